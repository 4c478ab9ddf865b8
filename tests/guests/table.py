"""What came of guests, as the tables of docs/reference/kernels.md: `python -m tests.guests.table RESULTS PAGE`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headrace.bpf.tables.catalogue import CHECK, HOOK, Event, catalogue

FLOOD = 40000
"""Calls, of four processes together."""
MARK = "<!-- guests: {} -->"
"""Stands before and behind each table."""


def summary(found: dict[str, Any]) -> str:
    """In one line."""
    live, flood = found.get("live", {}), found.get("flood", {})
    came = live.get("error") or f"{len(live.get('arrived', ()))} events came, missing: {live.get('missing')}"
    parts = [found["release"], came, f"flood {flood}", f"statuses {found.get('statuses')}"]
    if "passed" in found:
        parts.append(f"tests {found['passed']} passed, {found['skipped']} left out, failed: {found['failed']}")
    return "; ".join([*parts, f"{found.get('seconds')} s", "well" if found.get("well") else "NOT WELL"])


COLUMNS = (
    *("kernel", "events that came", "not caused", "programs refused", "lost of produced, while all were caused"),
    *(f"flood of {FLOOD:,} calls", "kernel tests"),
)


def kernels(results: dict[str, Any]) -> list[str]:
    """A row a kernel."""
    return [_row(COLUMNS), _row(["---"] * len(COLUMNS)), *(_row(_kernel(*item)) for item in results.items())]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _kernel(name: str, found: dict[str, Any]) -> Iterator[object]:
    live, flood = found.get("live", {}), found.get("flood", {})
    books = live.get("ledger", {})
    yield f"{name}: {found['release']}"
    yield from (len(live.get(what, ())) for what in ("arrived", "not_caused", "refused"))
    balance = "" if books.get("balanced") else ", NOT BALANCED"
    yield f"{books.get('lost', 0):,} of {books.get('produced', 0):,}{balance}"
    missed = sum(flood.get("missed_by_program", {}).values())
    yield f"{flood.get('produced', 0):,} counted, {flood.get('lost', 0):,} of them lost; {missed} runs missed"
    if "passed" in found:
        yield f"{found['passed']} passed, {len(found['failed'])} failed, {found['skipped']} left out"
    else:
        yield "not run"


def events(results: dict[str, Any]) -> list[str]:
    """A row an event, a column a kernel; system calls stand there only if one of them did not come somewhere."""
    rows = [_row(("event", "source", *results)), _row(["---"] * (2 + len(results)))]
    for event in catalogue().by_id.values():
        if event.hook is None:
            continue
        cells = [_cell(event, found.get("live", {})) for found in results.values()]
        if not event.is_syscall or {*cells} & {"MISSING", "refused"}:
            rows.append(_row((f"`{event.name}`", _source(event), *cells)))
    return rows


def _source(event: Event) -> str:
    kind, _, where = (event.hook or "").partition(":")
    if kind == HOOK:
        return "kprobe"
    if kind == "raw_tracepoint":
        at_end = "end of calls, kprobe" if event.is_check else "end of calls"
        return at_end if where == "sys_exit" and event.name != "sys_exit" else "tracepoint"
    return {"start": "at the start", "pipeline": "headrace", CHECK: "the kernel's tables"}.get(kind, kind)


def _cell(event: Event, live: dict[str, Any]) -> str:
    if event.name in live.get("arrived", ()):
        return "came"
    if event.name in live.get("missing", ()):
        return "MISSING"
    if event.name in live.get("not_caused", ()):
        return "not caused"
    if any(re.search(rf"\b{event.name}\b", detail) for detail in live.get("refused", {}).values()):
        return "refused"
    return "not there"


def _version(name: str) -> list[tuple[int, str]]:
    """6.1, 6.1-rt, 6.12."""
    parts = [part.partition("-") for part in name.split(".")]
    return [(int(number), more) for number, _, more in parts]


def main() -> None:
    """Put the tables into a page, between their marks."""
    read, page = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    results = {name: read[name] for name in sorted(read, key=_version)}
    text = page.read_text()
    for name, rows in (("kernels", kernels(results)), ("events", events(results))):
        mark = MARK.format(name)
        before, _, rest = text.partition(mark)
        text = "\n".join((before + mark, "", *rows, "", mark + rest.partition(mark)[2]))
    page.write_text(text)


if __name__ == "__main__":
    main()
