"""Findings of a bounded size: what makes one too long is shortened, and the finding says so.

A traced process decides how long its arguments, environment and paths are, and a signature in Python what it
finds. A result ring takes no record that is longer than itself, so nothing may be longer than MAX_BYTES.
"""

from __future__ import annotations

from typing import Any

import msgspec

MAX_BYTES = 256 << 10
"""Of a finding's line."""
STEPS = ((16384, 1024), (4096, 256), (1024, 64), (256, 16), (64, 4), (16, 1))
"""Characters of a text and parts of a list that are kept, tried one after the other."""
LATEST = {"events": "eventsOmitted", "before": "beforeOmitted"}
"""Lists of which the end is kept, and what counts those that are not."""
MAX_DEPTH = 12


def bounded(line: bytes, most: int = MAX_BYTES) -> bytes:
    """The line, or a shorter one with `"cut": true` and the `bytes` that it would have had."""
    if len(line) <= most:
        return line
    finding = msgspec.json.decode(line)
    said = {"cut": True, "bytes": len(line)}
    for characters, parts in STEPS:
        short = msgspec.json.encode(_top(finding, characters, parts) | said) + b"\n"
        if len(short) <= most:
            return short
    # only keys can be that long: those of what a signature says
    return msgspec.json.encode(_top(finding | {"data": {}}, *STEPS[-1]) | said) + b"\n"


def _top(finding: dict[str, Any], characters: int, parts: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in finding.items():
        if key in LATEST:
            found[key] = [_short(each, characters, parts) for each in value[-parts:]]
        else:
            found[key] = _short(value, characters, parts)
    for key, omitted in LATEST.items():
        more = len(finding.get(key, ())) - len(found.get(key, ()))
        if more:
            found[omitted] = found.get(omitted, 0) + more
    return found


def _short(value: Any, characters: int, parts: int, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value if len(value) <= characters else value[:characters] + "..."
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_short(each, characters, parts, depth + 1) for each in value[:parts]]
    if isinstance(value, dict):
        # keys are headrace's own but for those of data
        kept = list(value.items())[: max(parts, 64)]
        return {key: _short(each, characters, parts, depth + 1) for key, each in kept}
    return value
