"""Rules and values chosen to hurt the engine: how much memory evaluation takes, and how long.

    execs whose texts hold a random half of some words -> View -> Engine.match       one process a case

Every rule asks for a word in each of two or three fields, so that nearly every row is another set of tests that hold,
in every field. `peak_mb` is what the process took beyond the rows themselves. Counts of what matches are compared with
what the words say. `long` has texts of 8 KiB that are no ASCII and come once, which are looked at one by one.

    python -m bench.detect.hostile_rules [--rounds 5] [--before CHECKOUT]    (alternating with another checkout)
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAX_BYTES = 6 << 30
"""Of a case's address space: what takes more ends with a MemoryError, and is shown as that."""
TURN_ROWS = 500
"""Of `long`, which comes in many turns."""


class Case(NamedTuple):
    """So many rules that ask for a word in each of these fields, on so many rows; the share of words that a row has."""

    rules: int
    rows: int
    fields: tuple[str, ...] = ("pathname", "argv")
    share: float = 0.5
    long: int = 0


CASES = {
    "pairs_16": Case(16, 12_000),
    "pairs_20": Case(20, 40_000),
    "triples_20": Case(20, 12_000, ("pathname", "argv", "env")),
    "pairs_400": Case(400, 10_000, share=0.1),
    "long": Case(16, 20_000, ("argv",), long=8192),
}
BLOBS = {"pathname": 1, "argv": 2, "env": 3}


def rules_of(case: Case) -> list[Any]:
    """Each asks for its word in all fields."""
    from headrace.config.conditions import Test
    from headrace.config.rules import Rule
    from headrace.config.tree import And

    found = []
    for i in range(case.rules):
        node = And(tuple(Test(name, "contains", (f"{name[0]}{i:03}.",)) for name in case.fields))
        found.append(Rule(id=f"R-{i}", name=f"r{i}", events={"sched_process_exec": node}))
    return found


def turns_of(case: Case) -> Iterator[tuple[list[Any], int]]:
    """Frames of each turn, and how often rules match in it."""
    from bench.rig import synthetic

    chance, frames, made, expected = random.Random(1), synthetic.Frames(), [], 0
    who, step = synthetic.context(1000, b"run"), TURN_ROWS if case.long else case.rows
    for i in range(case.rows):
        sets = {name: {w for w in range(case.rules) if chance.random() < case.share} for name in case.fields}
        expected += len(set.intersection(*sets.values()))
        texts = {}
        for name, words in sets.items():
            text = b"".join(b"%c%03d." % (name.encode()[0], word) for word in sorted(words)) + b"%d" % i
            text += "é".encode() * (case.long // 2)
            texts[BLOBS[name]] = synthetic.walked(text.decode()) if name == "pathname" else text + b"\0"
        made += frames.add(who, synthetic.record("sched_process_exec", 1000 + i, [], texts), 1000 + i)
        if (i + 1) % step == 0:
            yield [*made, frames.close()], expected
            made, expected = [], 0


def memory(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measured(case: Case) -> dict[str, Any]:
    """One case, in this process."""
    from headrace.bpf.tables.catalogue import catalogue
    from headrace.workers.detect.engine.engine import Engine
    from headrace.workers.enrich.tree import ProcessTree
    from headrace.workers.records.rows import Contexts, read_frames

    engine, contexts, tree = Engine(rules_of(case), catalogue()), Contexts(), ProcessTree(catalogue())
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    seconds, peak, begin = 0.0, 0, 0
    for frames, expected in turns_of(case):
        rows = read_frames(frames, contexts).rows
        begin = begin or memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        began = time.perf_counter()
        try:
            found = engine.match(rows, contexts, tree)
        except MemoryError:
            return {"out_of_memory": True}
        seconds += time.perf_counter() - began
        peak = max(peak, memory("VmHWM") - begin)
        if sum(map(len, found.rules)) != expected:
            raise SystemExit(f"{sum(map(len, found.rules))} matches, and not {expected}")
    return {"seconds": seconds, "peak_mb": peak / 1e6}


def one(name: str, checkout: Path) -> dict[str, Any]:
    """One case by the engine of a checkout, in a process of its own."""
    from bench.rig import harness

    env = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, __file__, "--case", name], env=env, cwd=checkout, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise harness.Void(f"{name} in {checkout}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and write the results."""
    from bench.rig import harness

    parser = harness.options(__doc__, seconds=0)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--case", choices=CASES, help="only this, in this process")
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(measured(CASES[chosen.case])))
        return
    harness.pin()
    sides = {"after": harness.HERE.parent} | ({"before": chosen.before} if chosen.before else {})
    rounds: list[dict[str, Any]] = []
    for _ in range(chosen.rounds):
        row: dict[str, Any] = {}
        for name in CASES:
            for side, checkout in sides.items():
                row |= {f"{name}_{side}_{key}": value for key, value in one(name, checkout).items()}
        rounds.append(row)
    names = [name for name in rounds[0] if not name.endswith("out_of_memory")]
    ended = [name.removesuffix("_out_of_memory") for name in rounds[0] if name.endswith("out_of_memory")]
    about = {"cases": {name: case._asdict() for name, case in CASES.items()}, "most_bytes": MAX_BYTES}
    figures = harness.spreads(rounds, names)
    harness.save("hostile_rules", {"figures": figures, "out_of_memory": ended, **about, "rounds": rounds})


if __name__ == "__main__":
    main()
