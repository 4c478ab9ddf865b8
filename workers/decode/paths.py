"""Paths as the kernel side carries them, and as people write them.

A walked path (bpf/c/path.h) is its components from the last to the first, each with a NUL; the component `/` is the
root, and what has none (memfd) stands without. Names are bytes: nothing is decoded here.
"""

from __future__ import annotations

from headrace.bpf.layout import ROOT_NOT_MET

ROOT = b"/"


def walked(data: bytes) -> bytes:
    """A walked path, its last NUL there or not, from the first component to the last."""
    parts = data.rstrip(b"\0").split(b"\0")
    if parts[-1] != ROOT:
        return b"/".join(reversed(parts))
    return ROOT + b"/".join(reversed(parts[:-1]))


def own_root(data: bytes, whole: int) -> bytes | None:
    """A walked path as the process's own root has it; None if it is not below that. `whole` is not 0."""
    return None if whole == ROOT_NOT_MET else walked(data[: whole - 1] + ROOT)


def joined(base: bytes, whole: int, name: bytes) -> tuple[bytes, bytes | None]:
    """`name` as seen from the walked directory `base`, normalised: the path, and as the own root has it.

    `whole` is the base's. An absolute name starts from `base`, too, which is then the root of the process. It is
    text alone: a symbolic link on the way is not followed, and `..` behind one takes its name back.
    """
    parts = base.rstrip(b"\0").split(b"\0")
    found = [part for part in reversed(parts) if part not in (ROOT, b"")]
    # names above the own root: `..` does not get there
    above = len(found) - base[: whole - 1].count(b"\0") if 0 < whole < ROOT_NOT_MET else 0
    for part in name.split(b"/"):
        if part == b"..":
            del found[max(above, len(found) - 1) :]
        elif part not in (b"", b"."):
            found.append(part)
    own = None if whole == ROOT_NOT_MET else ROOT + b"/".join(found[above:])
    return ROOT + b"/".join(found), own
