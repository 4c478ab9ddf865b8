"""Signatures in a live flood, and a storm of findings.

    flood    openat and close of one file as fast as it goes; all signatures that ship and 250 Sigma rules look at it.
             load (CPU 0) -> programs -> reader -> 1 worker -> publisher -> counting subscriber   (all on the last CPU)
    narrowed the same flood with the signatures that ship alone, of which the kernel tells what they can match; and, in
             turns, with one more that wants to see all opens
    storm    a signature that every getppid matches, folding off, findings as JSON to a file; RATE calls a second

`findings_per_s` is what stands in the file over the seconds of the load; what was lost is counted, and the books must
balance. Without --sigma the flood has the signatures that ship alone.

    python -m bench.detect.alarms [--seconds 10] [--rounds 5] [--sigma DIR] [--only flood|narrowed|storm]
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

import yaml

from bench.detect.detection import ENOUGH
from bench.floods import OUTPUT, PERF_PAGES
from bench.rig import harness

PATH = "/usr/bin/env"
"""What the flood opens: no signature looks for it."""
RATE = 150_000
STORM = {
    "id": "STORM-1",
    "name": "storm",
    "description": "Every call.",
    "severity": "low",
    "events": {"getppid": None},
    "examples": {"match": [{"event": "getppid"}], "near_miss": [{"event": "getpid"}]},
}
WIDE = {
    "id": "WIDE-1",
    "name": "wide",
    "description": "What the kernel cannot decide.",
    "severity": "low",
    "events": {"security_file_open": {"pathname|contains": "no such file"}},
    "examples": {
        "match": [{"event": "security_file_open", "args": {"pathname": "/no such file"}}],
        "near_miss": [{"event": "security_file_open", "args": {"pathname": "/x"}}],
    },
}
FIGURES = ("kept", "events_per_s", "lost", "cpu_us_per_event", "findings")


def copies(source: Path, count: int, folder: Path) -> None:
    """So many Sigma rules: those of a folder, and the same with other literals."""
    rules = [yaml.safe_load(path.read_text()) for path in sorted(source.rglob("*.yml"))]
    for i in range(count):
        rule = rules[i % len(rules)]
        if i >= len(rules):
            detection = {key: _other(part, f"_{i}") for key, part in rule["detection"].items() if key != "condition"}
            rule = rule | {
                "id": str(uuid.UUID(int=i)),
                "detection": detection | {"condition": rule["detection"]["condition"]},
            }
        (folder / f"{i}.yml").write_text(yaml.safe_dump(rule, sort_keys=False))


def _other(part: Any, mark: str) -> Any:
    if isinstance(part, dict):
        return {key: value if "|re" in key or "|cidr" in key else _other(value, mark) for key, value in part.items()}
    if isinstance(part, list):
        return [_other(each, mark) for each in part]
    return f"{part}{mark}" if isinstance(part, str) and part.startswith(("/", "-", " ")) else part


def flood(binary: Path, seconds: float, options: list[str]) -> dict[str, Any]:
    """One round of the flood."""
    base = harness.untraced(binary, "openat", min(seconds, harness.LONGEST_BASELINE_S), path=PATH)
    extra = ("--workers", "1", "--perf-pages", str(PERF_PAGES), "--findings", "none", *options)
    run = harness.traced(binary, "openat", seconds, "openat,close", OUTPUT, extra, subscriber=True, path=PATH)
    ledger = run.ledger
    return {
        "untraced_per_s": base,
        "kept": run.rate / base,
        "events_per_s": ledger["delivered"] / seconds,
        "lost": harness.lost(ledger),
        "cpu_us_per_event": run.cpu_us_per_event,
        "findings": ledger["findings"]["found"],
        "cpu_seconds": ledger["cpu_seconds"],
    }


def narrowed(binary: Path, seconds: float, wide: Path) -> dict[str, Any]:
    """A round each, narrowed and not: what is kept, and the CPU of all stages for one open and close."""
    found: dict[str, Any] = {}
    for name, options in (("narrowed", []), ("wide", ["--signatures", str(wide)])):
        one = flood(binary, seconds, options)
        calls = one["kept"] * one["untraced_per_s"] * seconds
        found |= {f"{name}_{key}": one[key] for key in ("untraced_per_s", "kept", "lost", "cpu_seconds")}
        found[f"{name}_cpu_us_per_call"] = sum(one["cpu_seconds"].values()) / calls * 1e6
    found["cpu_ratio"] = found["narrowed_cpu_us_per_call"] / found["wide_cpu_us_per_call"]
    return found


def storm(binary: Path, seconds: float) -> dict[str, Any]:
    """One round of the storm."""
    with tempfile.TemporaryDirectory() as folder:
        rule, found = Path(folder, "storm.yaml"), Path(folder, "found")
        rule.write_text(yaml.safe_dump(STORM))
        extra: tuple[str, ...] = ("--workers", "1", "--fold", "0", "--signatures", str(rule), "--rules", "STORM-1")
        extra += ("--findings", f"json:{found}", "--perf-pages", str(PERF_PAGES))
        run = harness.traced(binary, "getppid", seconds, "getppid", "none", extra, rate=RATE)
        with found.open("rb") as file:
            lines = sum(1 for _ in file)
    ledger = run.ledger
    if lines != ledger["findings"]["published"]:
        raise harness.Void(f"{lines} lines, and the ledger has {ledger['findings']}")
    return {
        "calls_per_s": run.rate,
        "findings_per_s": lines / (run.calls / run.rate),
        "lost": harness.lost(ledger),
        "missing": run.calls - lines,
        "cpu_us_per_finding": run.cpu_us_per_event,
        "cpu_seconds": ledger["cpu_seconds"],
    }


def main() -> None:
    """Measure and write the results."""
    parser = harness.options(__doc__, seconds=10)
    parser.add_argument("--sigma", type=Path, help="folder of Sigma rules")
    parser.add_argument("--only", choices=("flood", "narrowed", "storm"))
    chosen = parser.parse_args()
    harness.pin()
    # a program in /tmp is what Sigma rules look for
    with tempfile.TemporaryDirectory(dir=harness.HERE) as folder:
        binary = harness.build(Path(folder))
        if chosen.only in (None, "narrowed"):
            wide = Path(folder, "wide.yaml")
            wide.write_text(yaml.safe_dump(WIDE))
            rounds = [narrowed(binary, chosen.seconds, wide) for _ in range(chosen.rounds)]
            names = [key for key in rounds[0] if not key.endswith("cpu_seconds")]
            figures = harness.spreads(rounds, names)
            harness.save("alarms-narrowed", {"seconds": chosen.seconds, "figures": figures, "rounds": rounds})
            wide.unlink()
        if chosen.only in (None, "flood"):
            options = []
            if chosen.sigma:
                copies(chosen.sigma, ENOUGH, Path(folder))
                options = ["--sigma", folder]
            rounds = [flood(binary, chosen.seconds, options) for _ in range(chosen.rounds)]
            figures = harness.spreads(rounds, FIGURES)
            about = {"seconds": chosen.seconds, "sigma_rules": ENOUGH if chosen.sigma else 0}
            harness.save("alarms-flood", {**about, "figures": figures, "rounds": rounds})
        if chosen.only in (None, "storm"):
            rounds = [storm(binary, chosen.seconds) for _ in range(chosen.rounds)]
            figures = harness.spreads(
                rounds, ("calls_per_s", "findings_per_s", "lost", "missing", "cpu_us_per_finding")
            )
            harness.save("alarms-storm", {"seconds": chosen.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
