"""Run targets, each until it has tried so many inputs, and keep what came of it (docs/explanation/fuzzing.md).

python -m tests.fuzz [TARGET...] [--inputs N] [--seconds S] [--jobs N] [--result FILE]
python -m tests.fuzz TARGET --again FILE      # one input once more, with its traceback
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.rig.harness import environment
from tests.fuzz import NAMES, load
from tests.fuzz.campaign import PROGRESS, ROOT

MAX_DEATHS = 20
"""After so many a target is given up."""
EDGES = re.compile(r"\bcov: (\d+)")
ENDED, DEFECTS = 0, 1


def cache_folder() -> Path:
    """Where corpora and crashes stay from run to run: outside of the checkout."""
    given = os.environ.get("HEADRACE_FUZZ_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "headrace-fuzz")


@dataclass
class Campaign:
    """What became of one target."""

    name: str
    asked: int
    executions: int = 0
    seconds: float = 0
    edges: int | None = None
    deaths: int = 0
    crashes: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """Inputs that were tried."""
        return self.executions * load(self.name).EACH

    def result(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "inputs": self.inputs,
            "asked": self.asked,
            "executions": self.executions,
            "seconds": round(self.seconds, 1),
            "inputs_per_second": round(self.inputs / self.seconds) if self.seconds else 0,
            "edges": self.edges,
            "crashes": len(self.crashes),
            "deaths": self.deaths,
        }


def _crashes(folder: Path) -> set[str]:
    found = folder.iterdir() if folder.is_dir() else ()
    return {str(path) for path in found if path.suffix != ".txt"}


def run(name: str, options: argparse.Namespace) -> Campaign:
    """One target, started again where it dies."""
    cache = options.cache / name
    cache.mkdir(parents=True, exist_ok=True)
    found, known = Campaign(name, options.inputs), _crashes(cache / "crashes")
    wanted = -(-options.inputs // load(name).EACH)
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile() as shared, Path(cache, "log").open("w+") as log:
        shared.write(bytes(PROGRESS.size))
        shared.flush()
        while (left := wanted - found.executions) > 0 and found.deaths < MAX_DEATHS:
            seconds = options.seconds - (time.monotonic() - begin)
            if seconds <= 0:
                break
            numbers = [str(left), str(seconds), str(options.seed + found.deaths)]
            mode = "plain" if options.plain else "guided"
            command = [sys.executable, "-m", "tests.fuzz.campaign", name, mode, str(cache), shared.name, *numbers]
            status = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log).returncode
            before = found.executions
            found.executions, spent_ns = PROGRESS.unpack(Path(shared.name).read_bytes())
            found.seconds = spent_ns / 1e9
            if status == 0:
                break
            found.deaths += 1
            if found.executions == before:
                break  # it does not even begin
        log.seek(0)
        edges = EDGES.findall(log.read())
    found.edges = int(edges[-1]) if edges else None
    found.crashes = sorted(_crashes(cache / "crashes") - known)
    _say(found, cache)
    return found


def _say(found: Campaign, cache: Path) -> None:
    result = found.result()
    print(f"{found.name:<12} " + "  ".join(f"{key} {value}" for key, value in result.items()), flush=True)
    for crash in found.crashes:
        print(f"  crash: {sys.executable} -m tests.fuzz {found.name} --again {crash}", flush=True)
    if found.deaths:
        print(f"  the process died {found.deaths} times: {cache / 'log'}", flush=True)


def again(name: str, path: Path) -> None:
    """One input, as it came."""
    load(name).target(path.read_bytes())
    print(f"{path}: nothing wrong")


def _write(path: Path, done: Sequence[Campaign], mode: str) -> None:
    """Figures of these targets, beside those that stand there of others."""
    known = json.loads(path.read_text())["targets"] if path.exists() else {}
    about = environment()
    known |= {one.name: {**one.result(), "mode": mode, "date": about["date"]} for one in done}
    targets = {name: known[name] for name in NAMES if name in known}
    path.write_text(json.dumps({"environment": about, "targets": targets}, indent=2) + "\n")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {' '.join(NAMES)}")
    parser.add_argument("--inputs", type=int, default=10_000_000, help="of each target; default 10,000,000")
    parser.add_argument("--seconds", type=float, default=1e7, help="of each target at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time; default: CPUs")
    parser.add_argument("--seed", type=int, default=int(time.time()) & 0xFFFFFF, help="default: another each time")
    parser.add_argument("--plain", action="store_true", help="without atheris: mutation without feedback")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    parser.add_argument("--result", type=Path, help="JSON file for the figures")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run this one input, and nothing else")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in NAMES]
    if unknown:
        parser.error(f"no such target: {' '.join(unknown)} (there are: {' '.join(NAMES)})")
    if options.again:
        again(options.targets[0], options.again)
        return ENDED
    if not options.plain and find_spec("atheris") is None:
        parser.error("atheris is not installed: ./setup.sh fuzz, or --plain")
    options.cache = options.cache.resolve()
    print(f"seed {options.seed}  cache {options.cache}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda name: run(name, options), options.targets or NAMES))
    if options.result:
        _write(options.result, done, "plain" if options.plain else "guided")
    return DEFECTS if any(one.crashes or one.deaths for one in done) else ENDED


if __name__ == "__main__":
    sys.exit(main())
