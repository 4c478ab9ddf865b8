"""Converts paths from the form in records to ordinary path strings.

A walked path (bpf/c/path.h) consists of its components from the last to the first, each followed by a NUL. The
component `/` is the root; a file outside any root (memfd) has none. Names are bytes and are not decoded here.
"""

from __future__ import annotations

from headrace.bpf.layout import ROOT_NOT_MET

ROOT = b"/"


def walked(data: bytes) -> bytes:
    """A walked path with its components in normal order. The last NUL is optional."""
    parts = data.rstrip(b"\0").split(b"\0")
    if parts[-1] != ROOT:
        return b"/".join(reversed(parts))
    return ROOT + b"/".join(reversed(parts[:-1]))


def own_root(data: bytes, whole: int) -> bytes | None:
    """A walked path relative to the process's own root; None if it is outside that root. `whole` must not be 0."""
    return None if whole == ROOT_NOT_MET else walked(data[: whole - 1] + ROOT)


def joined(base: bytes, whole: int, name: bytes) -> tuple[bytes, bytes | None]:
    """(`name` resolved against the walked directory `base` and normalised; the same relative to the process's own
    root, None if it is outside that root).

    `whole` belongs to the base. An absolute name also starts from `base`, which is then the root of the process.
    Resolution is lexical: symbolic links are not followed, and `..` after a link removes the name of the link.
    """
    parts = base.rstrip(b"\0").split(b"\0")
    found = [part for part in reversed(parts) if part not in (ROOT, b"")]
    # number of components above the own root, which `..` cannot remove
    above = len(found) - base[: whole - 1].count(b"\0") if 0 < whole < ROOT_NOT_MET else 0
    for part in name.split(b"/"):
        if part == b"..":
            del found[max(above, len(found) - 1) :]
        elif part not in (b"", b"."):
            found.append(part)
    own = None if whole == ROOT_NOT_MET else ROOT + b"/".join(found[above:])
    return ROOT + b"/".join(found), own
