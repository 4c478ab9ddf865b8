"""Signatures on recorded frames in one worker's core: with none, with those that ship, with Sigma rules.

    frames (bench/synthetic.py) -> Core -> Detector.match          one process, pinned to the last CPU

Sides of a round: `none` decodes frames and reads the columns that the rules ask for, without looking at them; the
others evaluate. Findings of every round are compared in number. With --sigma DIR, its rules are there as well, up to
250, and 1000 of them with other literals.

    python -m bench.detection [--rounds 5] [--seconds 1] [--sigma DIR]    (2,000,000 events a "second")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench import harness, synthetic
from bpf.catalogue import catalogue
from config.conditions import Either, Every, Negated, Node, Surely, Test
from config.rules import Rule
from workers.core import Core
from workers.detect.columns import View
from workers.detect.detector import Detector
from workers.detect.engine import Matches
from workers.detect.rulesets import build
from workers.rows import Contexts, Rows
from workers.views.pieces import Facts, argument_counts

EVENTS_PER_S = 2_000_000
EXECS_PER_S = 60_000
TURN_FRAMES = 32
ENOUGH, MANY = 250, 1000
Look = Callable[[Rows, Contexts, Any], Matches]


def varied(node: Node, mark: str) -> Node:
    """The same condition with other literals."""
    if isinstance(node, Test):
        texts = tuple(f"{v}{mark}" if isinstance(v, str) and node.operator != "cidr" else v for v in node.values)
        return msgspec.structs.replace(node, values=texts) if not node.field.endswith(("port", "flags")) else node
    if isinstance(node, Negated):
        return Negated(varied(node.part, mark))
    if isinstance(node, Surely):
        return Surely(varied(node.part, mark))
    parts = tuple(varied(part, mark) for part in node.parts)
    return Every(parts) if isinstance(node, Every) else Either(parts)


def multiplied(rules: Sequence[Rule], count: int) -> list[Rule]:
    """So many rules: those, and the same with other literals."""
    found: list[Rule] = []
    usable = [rule for rule in rules if rule.events and not _asks_words(rule)]
    while len(found) < count:
        mark = f"_{len(found)}" if found else ""
        for rule in usable[: count - len(found)]:
            events = {name: varied(node, mark) if mark else node for name, node in rule.events.items()}
            found.append(msgspec.structs.replace(rule, id=f"{rule.id}{mark}", events=events))
    return found


def _asks_words(rule: Rule) -> bool:
    return any("@" in name for name in rule.events)


def detector(rules: Sequence[Rule]) -> Detector:
    """As a worker has it."""
    found = Detector(rules, catalogue())
    core = Core(catalogue(), 0, 1)
    found.open(catalogue(), Facts(0), core.tree, b"", ())
    return found


def reading(rules: Sequence[Rule]) -> Look:
    """Reads the columns that the rules ask for, and finds nothing."""
    engines = detector(rules)._engine.events
    counts = argument_counts(catalogue())

    def look(rows: Rows, contexts: Contexts, tree: Any) -> Matches:
        view = View(rows, contexts, tree, counts)
        for event, engine in engines.items():
            chosen = np.flatnonzero(rows.event == event)
            for column in engine.columns if len(chosen) else ():
                if column.scan is None or column.column.bulk(view, chosen) is None:
                    column.column.keys(view, chosen)
        return Matches.none()

    return look


def run(frames: Sequence[Any], look: Look) -> tuple[float, int]:
    """(seconds, findings) of all frames."""
    core = Core(catalogue(), 0, 1, detect=look)
    found = 0
    began = time.perf_counter()
    for at in range(0, len(frames), TURN_FRAMES):
        part = frames[at : at + TURN_FRAMES]
        for frame in part:
            core.feed(frame)
        batch = core.advance(int(part[-1][24:32].view("<u8")[0]))
        found += sum(map(len, batch.matches.rules)) if batch.matches else 0
    return time.perf_counter() - began, found


def compared(frames: Sequence[Any], events: int, sets: dict[str, Sequence[Rule]], rounds: int) -> dict[str, Any]:
    """Rates of all sets, each with and without looking, alternating."""
    expected: dict[str, int] = {}
    results: list[dict[str, float]] = []
    for _ in range(rounds):
        row: dict[str, float] = {}
        for name, rules in sets.items():
            bare, _ = run(frames, reading(rules))
            full, found = run(frames, detector(rules).match)
            if expected.setdefault(name, found) != found:
                raise harness.Void(f"{name}: {found} findings, and {expected[name]} before")
            row |= {f"{name}_ratio": bare / full, f"{name}_per_s": events / full, f"{name}_bare_per_s": events / bare}
        results.append(row)
    return {"figures": harness.spreads(results, list(results[0])), "findings": expected, "rounds": results}


def main() -> None:
    """Measure and write the results."""
    parser = harness.options(__doc__, seconds=1)
    parser.add_argument("--sigma", type=Path, help="folder of Sigma rules")
    options = parser.parse_args()
    harness.pin()
    shipped = build(catalogue()).rules
    sets: dict[str, Sequence[Rule]] = {"shipped": shipped}
    if options.sigma:
        sigma = build(catalogue(), shipped=False, sigma=[str(options.sigma)]).rules
        sets |= {"sigma_250": multiplied(sigma, ENOUGH), "sigma_1000": multiplied(sigma, MANY)}
    events, execs = int(EVENTS_PER_S * options.seconds), int(EXECS_PER_S * options.seconds)
    found = {
        "mixed": compared(synthetic.mixed(events), events, sets, options.rounds),
        "exec_storm": compared(synthetic.exec_storm(execs), execs, sets, options.rounds),
    }
    harness.save("detection", found | {"events": events, "execs": execs, "rules": {k: len(v) for k, v in sets.items()}})


if __name__ == "__main__":
    main()
