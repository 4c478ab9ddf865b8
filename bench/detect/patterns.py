"""Libraries that look for many patterns, on command lines and the texts that Sigma rules look for in them.

    one by one    a set of RE2 on each line                     workers/detect/rules/patterns.py
    at once       Hyperscan on all lines in one block           workers/detect/engine/scan.py
    Aho-Corasick  pyahocorasick on all lines in one text        where it is installed; not used

Nanoseconds per line, of 1250 as in a turn. `found`: pairs of line and text; the last two
count a text as often as it occurs.

    python -m bench.detect.patterns --sigma DIR [--rounds 20]
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hyperscan
import re2

from bench.detect.detection import ENOUGH, MANY, multiplied
from bench.rig import harness, synthetic
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.tree import leaves
from headrace.workers.detect.rules.patterns import options
from headrace.workers.detect.rules.rulesets import build

LINES = 1250
FIELD = "process.command_line"


def wanted(folder: Path, count: int) -> list[bytes]:
    """What so many rules look for, in small letters; not what is one letter, which is everywhere."""
    rules = multiplied(build(catalogue(), shipped=False, sigma=[str(folder)]).rules, count)
    asked = [test for rule in rules for node in rule.events.values() for test in leaves(node) if test.field == FIELD]
    plain = {str(v).lower() for test in asked if test.operator == "contains" for v in test.values}
    return sorted(text.encode() for text in plain if len(text) > 1 and text.isascii())


def ways(texts: list[bytes], lines: list[bytes]) -> dict[str, Callable[[], int]]:
    """Each way, compiled: how many (line, text) pairs it finds."""
    block = b"\0".join(lines)
    escaped = ["".join(f"\\x{b:02x}" for b in text) for text in texts]
    each = re2.Set.SearchSet(options(True))
    for one in escaped:
        each.Add(one)
    each.Compile()
    database = hyperscan.Database()
    database.compile(
        [e.encode() for e in escaped], list(range(len(texts))), flags=[hyperscan.HS_FLAG_CASELESS] * len(texts)
    )

    def by_block() -> int:
        found: list[tuple[int, int]] = []
        database.scan(block, match_event_handler=lambda number, _, end, flags, context: found.append((number, end)))
        return len(found)

    made: dict[str, Callable[[], int]] = {
        "one_by_one": lambda: sum(len(each.Match(line) or ()) for line in lines),
        "at_once": by_block,
    }
    try:
        automaton: Any = importlib.import_module("ahocorasick").Automaton()
    except ImportError:
        return made
    for number, text in enumerate(texts):
        automaton.add_word(text.decode(), number)
    automaton.make_automaton()
    shown = block.decode("latin-1")
    return made | {"aho_corasick": lambda: len(list(automaton.iter(shown)))}


def main() -> None:
    """Measure and write the results."""
    parser = harness.options(__doc__, seconds=0, rounds=20)
    parser.add_argument("--sigma", type=Path, required=True, help="folder of Sigma rules")
    chosen = parser.parse_args()
    harness.pin()
    chance = random.Random(1)
    lines = [" ".join(synthetic.word(chance, 2, 16) for _ in range(8)).encode() for _ in range(LINES)]
    results: list[dict[str, float]] = []
    found: dict[str, int] = {}
    texts = {count: wanted(chosen.sigma, count) for count in (ENOUGH, MANY)}
    compiled = {f"{way}_{count}": run for count in texts for way, run in ways(texts[count], lines).items()}
    for _ in range(chosen.rounds):
        row: dict[str, float] = {}
        for name, run in compiled.items():
            began = time.perf_counter()
            found[name] = run()
            row[f"{name}_ns"] = (time.perf_counter() - began) / LINES * 1e9
        results.append(row)
    figures = harness.spreads(results, list(results[0]))
    about = {"texts": {str(count): len(each) for count, each in texts.items()}, "found": found, "lines": LINES}
    harness.save("patterns", {"figures": figures, **about, "rounds": results})


if __name__ == "__main__":
    main()
