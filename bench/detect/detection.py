"""Signatures on recorded frames in one worker's core: with none, with those that ship, with Sigma rules.

    frames (bench/synthetic.py) -> Core -> Detector.match          one process, pinned to the last CPU

Sides of a round, alternating: `bare` decodes frames and reads the columns that the rules ask for, without looking at
them; `full` evaluates. What is found in the first CHECKED events is compared with a plain evaluation, row by row and
test by test. With --sigma DIR, its rules are there as well, made 250 and 1000 of them with other literals.

    python -m bench.detect.detection [--rounds 5] [--seconds 1] [--sigma DIR]    (1,000,000 events a "second")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.rig import harness, synthetic
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Node, Test
from headrace.config.rules import Rule
from headrace.config.tree import conjunction, mapped, verdict
from headrace.pipeline.process import heap
from headrace.workers.core import Core
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.view import View, listed
from headrace.workers.detect.detector import Detector, FindingOptions
from headrace.workers.detect.engine.matches import Matches
from headrace.workers.detect.rules.compiled import IN_SCOPE
from headrace.workers.detect.rules.fields import field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.style import HostFacts

EVENTS_PER_S = 1_000_000
CHECKED = 10_000
EXECS_PER_S = 60_000
TURN_FRAMES = 32
ENOUGH, MANY = 250, 1000
Keys = Callable[[int, str], tuple[Any, dict[int, Any]]]
Look = Callable[[Rows, Contexts, Any], Matches]


def varied(node: Node, mark: str) -> Node:
    """The same condition with other literals."""

    def other(test: Test) -> Test:
        texts = tuple(f"{v}{mark}" if isinstance(v, str) and test.operator != "cidr" else v for v in test.values)
        return msgspec.structs.replace(test, values=texts) if not test.field.endswith(("port", "flags")) else test

    return mapped(node, other)


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
    found.open(catalogue(), HostFacts(0), core.tree, FindingOptions())
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
    found = 0

    def count(_: Rows, matches: Matches) -> None:
        nonlocal found
        found += sum(map(len, matches.rules))

    began = time.perf_counter()
    turns(frames, look, count)
    return time.perf_counter() - began, found


def turns(frames: Sequence[Any], look: Look, take: Callable[[Rows, Matches], None]) -> None:
    """A worker's turns; `take` gets what each has found."""
    core = Core(catalogue(), 0, 1, detect=look)
    for at in range(0, len(frames), TURN_FRAMES):
        part = frames[at : at + TURN_FRAMES]
        for frame in part:
            core.feed(frame)
        batch = core.advance(int(part[-1][24:32].view("<u8")[0]))
        if batch.matches:
            take(batch.ripe, batch.matches)


def plainly(rules: Sequence[Rule]) -> Look:
    """A plain evaluation: each rule on each row, each test of it by itself."""
    counts = argument_counts(catalogue())
    tested: dict[tuple[int, Test], tuple[Matcher, dict[Any, bool | None]]] = {}
    columns: dict[tuple[int, str], Any] = {}

    def test(one: Test, event: int, keys: Keys, row: int) -> bool | None:
        if (event, one) not in tested:
            tested[event, one] = Matcher(field_of(catalogue().by_id[event], one.field), [one]), {}
        matcher, known = tested[event, one]
        column, of_rows = keys(event, one.field)
        key = of_rows[row]
        if key not in known:
            said = matcher.verdicts(column.value(key))
            known[key] = bool(said.true) if not said.unknown else None
        return known[key]

    def holds(node: Node, event: int, keys: Keys, row: int) -> bool | None:
        return verdict(node, lambda each: test(each, event, keys, row))

    def look(rows: Rows, contexts: Contexts, tree: Any) -> Matches:
        view = View(rows, contexts, tree, counts)
        read: dict[tuple[int, str], tuple[Any, dict[int, Any]]] = {}

        def keys(event: int, name: str) -> tuple[Any, dict[int, Any]]:
            if (event, name) not in read:
                column = columns.setdefault((event, name), column_of(field_of(catalogue().by_id[event], name)))
                chosen = np.flatnonzero(rows.event == event)
                of_rows = listed(column.keys(view, chosen))
                read[event, name] = column, dict(zip(chosen.tolist(), of_rows, strict=True))
            return read[event, name]

        found: dict[int, list[int]] = {}
        for row, event in enumerate(rows.event.tolist()):
            name = catalogue().by_id[event].name
            for position, rule in enumerate(rules):
                node = rule.events.get(name)
                if node is not None and holds(conjunction(IN_SCOPE[rule.scope], node), event, keys, row):
                    found.setdefault(row, []).append(position)
        return Matches(np.array(list(found), np.int64), [tuple(each) for each in found.values()])

    return look


def check(frames: Sequence[Any], rules: Sequence[Rule]) -> int:
    """Void if the engine says something else than a plain evaluation; how much both found."""
    said: list[set[tuple[int, int]]] = []
    for look in (detector(rules).match, plainly(rules)):
        found: set[tuple[int, int]] = set()

        def take(rows: Rows, matches: Matches, found: set[tuple[int, int]] = found) -> None:
            times = rows.time_ns[matches.rows].tolist()
            found.update((at, p) for at, positions in zip(times, matches.rules, strict=True) for p in positions)

        turns(frames, look, take)
        said.append(found)
    if said[0] != said[1]:
        raise harness.Void(f"the engine and a plain evaluation differ: {len(said[0] ^ said[1])} findings")
    return len(said[0])


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
    heap.keep()
    shipped = build(catalogue()).rules
    sets: dict[str, Sequence[Rule]] = {"shipped": shipped}
    if options.sigma:
        sigma = build(catalogue(), shipped=False, sigma=[str(options.sigma)]).rules
        sets |= {"sigma_250": multiplied(sigma, ENOUGH), "sigma_1000": multiplied(sigma, MANY)}
    counts = {"events": int(EVENTS_PER_S * options.seconds), "execs": int(EXECS_PER_S * options.seconds)}
    few = synthetic.mixed(CHECKED), synthetic.exec_storm(CHECKED // 10)
    checked = {name: sum(check(frames, rules) for frames in few) for name, rules in sets.items()}
    found = {
        "mixed": compared(synthetic.mixed(counts["events"]), counts["events"], sets, options.rounds),
        "exec_storm": compared(synthetic.exec_storm(counts["execs"]), counts["execs"], sets, options.rounds),
    }
    for name, load in found.items():
        rest = {"load": name, "rules": {k: len(v) for k, v in sets.items()}, "found_in_checked": checked, **counts}
        harness.save(f"detection-{name}", load | rest)


if __name__ == "__main__":
    main()
