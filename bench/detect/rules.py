"""How long rules take to be loaded: read, parsed, checked and compiled, in a process that begins with nothing.

sigma    250 Sigma rules (those of a folder, and the same with other literals) and the signatures that ship

python -m bench.detect.rules [--rounds 5] --sigma DIR
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.detect.alarms import copies
from bench.detect.detection import ENOUGH
from bench.rig import harness

COMMAND = ("-c", "from headrace.pipeline.command.cli import main; main()", "signatures", "check", "--json", "--sigma")
ENGINE = "import sys; from bench.detect.rules import compiled; compiled(sys.argv[1])"


def compiled(folder: str) -> None:
    """Load the rules and make an engine of them."""
    from headrace.bpf.tables.catalogue import catalogue
    from headrace.workers.detect.engine.engine import Engine
    from headrace.workers.detect.rules.rulesets import build

    Engine(build(catalogue(), sigma=[folder]).rules, catalogue())


def timed(*arguments: str) -> tuple[float, float, str]:
    """(seconds, CPU seconds, what it said) of a process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=harness.HERE.parent, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise harness.Void(done.stderr)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def one(folder: str) -> dict[str, float]:
    """A round."""
    check_s, check_cpu_s, text = timed(*COMMAND, folder)
    rules = [json.loads(line) for line in text.splitlines()]
    sigma = [rule for rule in rules if rule["file"].startswith(folder)]
    if len(sigma) != ENOUGH or any(rule["coverage"] == "refused" for rule in sigma):
        raise harness.Void(f"{len(sigma)} rules are loaded")
    engine_s, engine_cpu_s, _ = timed("-c", ENGINE, folder)
    return {"check_s": check_s, "check_cpu_s": check_cpu_s, "engine_s": engine_s, "engine_cpu_s": engine_cpu_s}


def main() -> None:
    """Measure and write the results."""
    parser = harness.options(__doc__, seconds=0)
    parser.add_argument("--sigma", type=Path, help="folder of Sigma rules")
    chosen = parser.parse_args()
    if chosen.sigma is None:
        parser.error("--sigma: a folder of rules is needed")
    with tempfile.TemporaryDirectory() as folder:
        copies(chosen.sigma, ENOUGH, Path(folder))
        rounds = [one(folder) for _ in range(chosen.rounds)]
    harness.save("rules", {"rules": ENOUGH, "figures": harness.spreads(rounds, list(rounds[0])), "rounds": rounds})


if __name__ == "__main__":
    main()
