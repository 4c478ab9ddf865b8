"""Processes as described by headrace's own JSON lines (workers/views/lineage.py): their images and ancestors.

A description applies to its line and the following lines of the process, identified by process id and start time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.workers.detect.columns.subjects import command_line, started_by
from headrace.workers.detect.rules.fields import IMAGE_PARTS
from headrace.workers.detect.rules.values import TextValue
from headrace.workers.enrich.tree import Image, Key
from headrace.workers.views.style import exact

MAX_TOLD = 65536
"""Number of processes that are remembered. Beyond it, the one described least recently is dropped."""


class _ImageLine(msgspec.Struct, rename="camel"):
    path: str | None = None
    path_base64: str | None = None
    asked: str | None = None
    asked_base64: str | None = None
    cwd: str | None = None
    cwd_base64: str | None = None
    argv: list[str] = []
    argv_base64: str | None = None

    def image(self) -> Image:
        """The image; ValueError if a base64 text is invalid."""
        argv = b"".join(_bytes(each) + b"\0" for each in self.argv)
        return Image(
            0,
            0,
            0,
            _exact("path", self.path, self.path_base64),
            _exact("asked", self.asked, self.asked_base64),
            _exact("argv", None, self.argv_base64) or argv,
            _exact("cwd", self.cwd, self.cwd_base64),
        )


class _AncestorLine(msgspec.Struct, rename="camel"):
    image: _ImageLine | None
    pid: int | None = None


class _Lineage(msgspec.Struct):
    ancestors: list[_AncestorLine]
    image: _ImageLine | msgspec.UnsetType | None = msgspec.UNSET


class Told(NamedTuple):
    """What is known about a process at one line.

    Its image; `above`: (process id, image) of its ancestors; `values`: the fields that rules can read, by name.
    """

    image: Image | None = None
    above: tuple[tuple[int, Image | None], ...] = ()
    values: Mapping[str, TextValue] = {}
    known: bool = False


NOTHING = Told()


class Processes:
    """The processes that the lines so far describe."""

    def __init__(self) -> None:
        self._told: dict[Key, Told] = {}

    def of(self, line: Mapping[str, Any]) -> Told:
        """Read the lineage of a line, if any. Returns what is known about its process by then.

        ValueError or msgspec.ValidationError if the lineage is malformed.
        """
        pid, start = line.get("hostProcessId"), line.get("processStartTime")
        if not isinstance(pid, int) or not isinstance(start, int):
            return NOTHING
        key = pid, start
        if "lineage" in line:
            self._told.pop(key, None)
            if line["lineage"] is not None:
                if len(self._told) >= MAX_TOLD:
                    del self._told[next(iter(self._told))]
                self._told[key] = _read(msgspec.convert(line["lineage"], _Lineage))
        return self._told.get(key, NOTHING)


def _read(lineage: _Lineage) -> Told:
    ran = [each.image.image() if each.image else None for each in lineage.ancestors]
    if isinstance(lineage.image, msgspec.UnsetType):
        own = ran[0] if ran else None
    else:
        own = lineage.image.image() if lineage.image else None
    values = _fields("process", [own]) | _fields("parent", ran[:1]) | _fields("ancestors", ran)
    above = tuple((each.pid, image) for each, image in zip(lineage.ancestors, ran, strict=True) if each.pid is not None)
    return Told(own, above, values, True)


def _fields(who: str, images: Sequence[Image | None]) -> dict[str, TextValue]:
    """IMAGE_FIELDS of one image, or of several as alternative readings; without those that are unknown."""
    found: dict[str, TextValue] = {}
    for part in IMAGE_PARTS:
        texts = [text for image in images if image is not None and (text := _text(image, part)) is not None]
        if texts:
            found[f"{who}.{part}"] = TextValue(tuple(dict.fromkeys(each for text in texts for each in text.parts)))
    return found


def _text(image: Image, part: str) -> TextValue | None:
    if part == "image":
        return started_by(image.path, image.asked, image.cwd)
    if part == "command_line":
        return command_line(image.argv, False) if image.argv else None
    data = image.path if part == "path" else image.cwd
    return None if data is None else TextValue((data,))


def _bytes(given: str) -> bytes:
    return given.encode("utf-8", "surrogateescape")


def _exact(name: str, shown: str | None, encoded: str | None) -> bytes | None:
    if encoded is not None:
        return exact(name, encoded)
    return None if shown is None else _bytes(shown)
