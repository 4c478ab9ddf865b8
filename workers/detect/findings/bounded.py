"""Bounds the size of findings: a finding that is too long is shortened and marked.

A traced process controls the length of its arguments, environment and paths, and a signature in Python controls its
data. A result ring accepts no record longer than the ring, so no finding may exceed MAX_BYTES.
"""

from __future__ import annotations

from typing import Any

import msgspec

MAX_BYTES = 256 << 10
"""Bytes of a finding's line."""
STEPS = ((16384, 1024), (4096, 256), (1024, 64), (256, 16), (64, 4), (16, 1))
"""Limits for the characters of a text and the elements of a list, tried in this order."""
LATEST = {"events": "eventsOmitted", "before": "beforeOmitted"}
"""Lists whose end is kept, and the key that counts the omitted elements."""
MAX_DEPTH = 12


def bounded(line: bytes, most: int = MAX_BYTES) -> bytes:
    """The line, or a shortened one with `"cut": true` and the original length in `bytes`."""
    if len(line) <= most:
        return line
    finding = msgspec.json.decode(line)
    said = {"cut": True, "bytes": len(line)}
    for characters, parts in STEPS:
        short = msgspec.json.encode(_top(finding, characters, parts) | said) + b"\n"
        if len(short) <= most:
            return short
    # Only keys can still be too long: those in the data of a signature in Python.
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
        # Keys are headrace's own, except in the data.
        kept = list(value.items())[: max(parts, 64)]
        return {key: _short(each, characters, parts, depth + 1) for key, each in kept}
    return value
