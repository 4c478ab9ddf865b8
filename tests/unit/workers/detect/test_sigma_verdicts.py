"""Verdicts on Sigma rules against those of pySigma's SQLite backend over the same rows.

The table's columns are without case, as Sigma's texts are; a field that a row lacks is NULL.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import Rule
from headrace.workers.detect.offline.flat import FlatEvent, FlatRules
from headrace.workers.detect.rules.sigma_files import load_sigma

FIELDS = {
    "Image": "process.image",
    "CommandLine": "process.command_line",
    "ParentImage": "parent.image",
    "ParentCommandLine": "parent.command_line",
    "User": "process.user",
    "CurrentDirectory": "process.cwd",
}
EXEC = catalogue().by_name["sched_process_exec"]
WORDS = ["/bin/sh", "sh", "SH", "-c", "it's", "a%b", "a_b", "axb", 'a"b', "/tmp/", "x", "[x]", "0", "root", "a b"]
PATTERNS = [*WORDS, "*/sh", "/bin/*", "*tmp*", "a?b", r"a\*b", "*", "/b*/s?"]
REGULAR = ["^/bin", "sh$", "a.b", "[0-9]", "(x|sh)", "tmp/?", "S"]
TEXTS = some.one_of(some.sampled_from(WORDS), some.lists(some.sampled_from(WORDS), max_size=3).map(" ".join))
ROWS = some.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, TEXTS))


@some.composite
def items(draw: Any) -> tuple[str, Any]:
    field = draw(some.sampled_from(sorted(FIELDS)))
    how = draw(
        some.sampled_from(["", "", "|contains", "|startswith", "|endswith", "|contains|all", "|re", "null", "|exists"])
    )
    if how == "null":
        return field, None
    if how == "|exists":
        return f"{field}|exists", draw(some.booleans())
    words = REGULAR if how == "|re" else WORDS if how else PATTERNS
    values = draw(some.lists(some.sampled_from(words), min_size=1, max_size=3, unique=True))
    return field + how, values if len(values) > 1 or draw(some.booleans()) else values[0]


SELECTIONS = some.lists(items(), min_size=1, max_size=3).map(dict)
CONDITIONS = some.sampled_from(
    [
        "a",
        "a and b",
        "a or b",
        "a and not b",
        "not a",
        "not (a and b)",
        "1 of *",
        "all of *",
        "a and not 1 of c*",
        "not b or c",
    ]
)


def verdicts(rule: Rule, rows: list[dict[str, str]]) -> list[bool]:
    plain = FlatRules()
    node = rule.events.get(EXEC.name)
    events = [FlatEvent(EXEC, {}, None, {FIELDS[field]: text for field, text in row.items()}) for row in rows]
    return [node is not None and plain.verdict(node, event) is True for event in events]


def expected(text: str, rows: list[dict[str, str]]) -> list[bool]:
    (query,) = sqliteBackend().convert(SigmaCollection.from_yaml(text))
    database = sqlite3.connect(":memory:")
    database.create_function("REGEXP", 2, lambda pattern, value: value is not None and bool(re.search(pattern, value)))
    columns = ", ".join(f"{field} TEXT COLLATE NOCASE" for field in FIELDS)
    database.execute(f"CREATE TABLE logs (number INTEGER, {columns})")
    for number, row in enumerate(rows):
        values = [number, *(row.get(field) for field in FIELDS)]
        database.execute(f"INSERT INTO logs VALUES ({', '.join('?' * len(values))})", values)
    found = {row[0] for row in database.execute(query)}
    database.close()
    return [number in found for number in range(len(rows))]


def written(detection: dict[str, Any]) -> str:
    facts = {"title": "A rule", "id": "00000000-0000-4000-8000-000000000001", "status": "test", "level": "low"}
    source = {"product": "linux", "category": "process_creation"}
    return yaml.safe_dump({**facts, "logsource": source, "detection": detection}, sort_keys=False)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SELECTIONS, SELECTIONS, SELECTIONS, CONDITIONS, some.lists(ROWS, min_size=1, max_size=8))
def test_a_rule_says_what_sqlite_says(
    tmp_path: Path, a: Any, b: Any, c: Any, condition: str, rows: list[dict[str, str]]
) -> None:
    text = written({"a": a, "b": b, "c": c, "condition": condition})
    (tmp_path / "rule.yml").write_text(text)
    rules, refused = load_sigma([tmp_path], catalogue(), False)
    assert refused == []
    # values of the rule itself are what is likely to match
    rows = [*rows, {}, *_likely(a, b), *_likely(b, c)]
    assert verdicts(rules[0], rows) == expected(text, rows)


def _likely(*selections: dict[str, Any]) -> list[dict[str, str]]:
    found: dict[str, str] = {}
    for selection in selections:
        for name, value in selection.items():
            field, _, how = name.partition("|")
            values = [str(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
            if how in ("", "contains", "startswith", "endswith"):
                found[field] = values[0].replace("*", "q").replace("?", "q").replace("\\", "") if values else "q"
            elif how == "contains|all":
                found[field] = "".join(values)
    return [found, {field: text.upper() for field, text in found.items()}]
