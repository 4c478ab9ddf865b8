"""Columns for the subject of a row: its process, parent, ancestors and container, and what each of them runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.bpf.layout import CONTAINER_STARTED
from headrace.bpf.tables.catalogue import Event
from headrace.workers.detect.columns.recorded import BlobColumn, TextColumn
from headrace.workers.detect.columns.view import Array, Bulk, Few, Keys, ValueColumn, View
from headrace.workers.detect.rules.fields import Field
from headrace.workers.detect.rules.values import NUMBER, TextValue, Value, text
from headrace.workers.enrich.containers import runtime_name, shown_id
from headrace.workers.enrich.tree import Image, Process, ProcessTree, ancestor_images
from headrace.workers.enrich.users import user_name
from headrace.workers.records import blocks


class ContextColumn(ValueColumn):
    """A field of the process's context. The key is a tuple of the parts of the context that determine the value."""

    def __init__(self, field: Field) -> None:
        plain = int if field.kind == NUMBER or field.view else text
        self._parts, self._value = _FROM_SEVERAL.get(field.name, ((field.column,), plain))

    def keys(self, view: View, chosen: Array) -> Keys:
        who, which = view.whose(chosen)
        few = view.contexts.table[who]
        return Few(list(zip(*(_hashable(few[part]) for part in self._parts), strict=True)), which)

    def value(self, key: Any) -> Value:
        return self._value(*key)


def _hashable(column: Array) -> list[Any]:
    if column.ndim > 1:
        column = np.ascontiguousarray(column).view(f"V{column.shape[1]}")[:, 0]
    return column.tolist()  # type: ignore[no-any-return]


def _user(uid: int, container: Any) -> Value:
    name = user_name(uid, container)
    return None if name is None else text(name)


_FROM_SEVERAL: dict[str, tuple[tuple[str, ...], Callable[..., Value]]] = {
    "container": (("container", "container_state"), lambda c, state: int(any(c) and state >= CONTAINER_STARTED)),
    "container.started": (("container_state",), lambda state: int(state >= CONTAINER_STARTED)),
    "container.id": (("container", "runtime"), lambda c, runtime: text(shown_id(c, runtime))),
    "container.runtime": (("runtime",), lambda number: text(runtime_name(number))),
    "process.user": (("uid", "container"), _user),
}
"""Fields that are computed from the context: the parts, and the function that converts them."""


def started_by(path: bytes | None, given: bytes | None, cwd: bytes | None) -> TextValue | None:
    """The file that runs, and the path that started it, made absolute. None if neither is known."""
    parts = [path] if path else []
    if given and not given.startswith(b"/"):
        given = os.path.join(cwd, given) if cwd else None
    if given:
        # normpath keeps two leading slashes; they mean one
        absolute = b"/" + os.path.normpath(given).lstrip(b"/")
        if absolute not in parts:
            parts.append(absolute)
    return TextValue(tuple(parts)) if parts else None


def exec_image(path: Value, interp: Value, cwd: Value) -> TextValue | None:
    """The image that an exec starts, from its arguments: the file, and the path that started it."""
    found = started_by(*(v.parts[0] if isinstance(v, TextValue) and not v.cut else None for v in (path, interp, cwd)))
    if found is not None and isinstance(path, TextValue) and len(path.parts) > 1:
        return TextValue(tuple(dict.fromkeys((*path.parts, *found.parts))))
    return found


def command_line(argv: bytes, cut: bool) -> TextValue:
    """argv joined by single spaces."""
    return TextValue((argv.removesuffix(b"\0").replace(b"\0", b" "),), cut)


class CommandLineColumn(BlobColumn):
    """argv of an exec, as a command line."""

    def value(self, key: Any) -> Value:
        return None if key is None else command_line(*key)

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        block, unread, cut, _ = view.read(self._index, chosen)
        return Bulk([blocks.spaced(block)], unread, cut)


class ExecImageColumn(ValueColumn):
    """`process.image` on an exec itself, read from the record."""

    def __init__(self, event: Event) -> None:
        self._columns = [TextColumn(event, event.index(name) or 0) for name in ("pathname", "interp", "pwd")]

    def keys(self, view: View, chosen: Array) -> Keys:
        return list(zip(*(column.keys(view, chosen) for column in self._columns), strict=True))

    def value(self, key: Any) -> Value:
        return exec_image(*(column.value(part) for column, part in zip(self._columns, key, strict=True)))

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        path, given = (column.bulk(view, chosen) for column in self._columns[:2])
        if path is None or given is None:
            return None
        block = given.blocks[0]
        # Paths that must be made absolute or normalized are read one by one.
        odd = (block.size > 0) & (block.data[block.begin] != blocks.SLASH)
        odd |= (block.size > 1) & (block.data[block.begin + block.size - 1] == blocks.SLASH)
        second = np.flatnonzero((block.data[:-1] == blocks.SLASH) & np.isin(block.data[1:], [blocks.SLASH, blocks.DOT]))
        odd[block.rows(second)] = True
        unread = path.unread & (given.unread | (block.size == 0))
        return Bulk([*path.blocks, *given.blocks], unread, path.single | given.single | odd)


class ImageColumn(ValueColumn):
    """The image of the process, its parent or its ancestors, from the process tree. The key holds the tree's values."""

    def __init__(self, field: Field) -> None:
        self._who, _, self._part = field.column.partition(".")

    def keys(self, view: View, chosen: Array) -> Keys:
        who, which = view.whose(chosen)
        return Few([self._key(view.tree, *view.running(one)) for one in who.tolist()], which)

    def _key(self, tree: ProcessTree, process: Process | None, image: Image | None) -> Any:
        if process is None:
            return None
        if self._who == "process":
            return self._of(image)
        if self._who == "parent":
            return self._of(process.creator_image)
        parts = [self._of(image) for image in ancestor_images(tree, process)]
        return tuple(p for p in parts if p is not None) or None

    def _of(self, image: Image | None) -> Any:
        if image is None:
            return None
        if self._part == "path":
            return image.path
        if self._part == "cwd":
            return image.cwd
        if self._part == "command_line":
            return image.argv if image.argv else None
        return (image.path, image.asked, image.cwd)

    def value(self, key: Any) -> Value:
        if key is None:
            return None
        if self._who != "ancestors":
            return self._text(key)
        found = [t for t in map(self._text, key) if t is not None]
        return TextValue(tuple(dict.fromkeys(part for t in found for part in t.parts))) if found else None

    def _text(self, key: Any) -> TextValue | None:
        if self._part == "image":
            return started_by(*key)
        return command_line(key, False) if self._part == "command_line" else TextValue((key,))
