"""Processes as headrace's own JSON lines tell of them (workers/views/lineage.py): what each runs, and who created it.

What is told stays for the lines behind it, by process id and start time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.workers.detect.columns.subjects import command_line, started_by
from headrace.workers.detect.rules.fields import IMAGE_PARTS
from headrace.workers.detect.rules.values import Text
from headrace.workers.enrich.tree import Image, Key
from headrace.workers.views.style import exact

MAX_TOLD = 65536
"""Processes that are remembered; those told of longest ago are forgotten first."""


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
        """ValueError if bytes are no base64."""
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
    """What is known of a process at one line: what it runs, `above`: (process id, what it ran) of its ancestors, and
    fields of rules by their names.
    """

    image: Image | None = None
    above: tuple[tuple[int, Image | None], ...] = ()
    values: Mapping[str, Text] = {}
    known: bool = False


NOTHING = Told()


class Processes:
    """What some lines have told."""

    def __init__(self) -> None:
        self._told: dict[Key, Told] = {}

    def of(self, line: Mapping[str, Any]) -> Told:
        """Take what a line tells; what is known of its process by then. ValueError, msgspec.ValidationError."""
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


def _fields(who: str, images: Sequence[Image | None]) -> dict[str, Text]:
    """IMAGE_FIELDS of one image, or of several as one; without those that are not known."""
    found: dict[str, Text] = {}
    for part in IMAGE_PARTS:
        texts = [text for image in images if image is not None and (text := _text(image, part)) is not None]
        if texts:
            found[f"{who}.{part}"] = Text(tuple(dict.fromkeys(each for text in texts for each in text.parts)))
    return found


def _text(image: Image, part: str) -> Text | None:
    if part == "image":
        return started_by(image.path, image.asked, image.cwd)
    if part == "command_line":
        return command_line(image.argv, False) if image.argv else None
    data = image.path if part == "path" else image.cwd
    return None if data is None else Text((data,))


def _bytes(given: str) -> bytes:
    return given.encode("utf-8", "surrogateescape")


def _exact(name: str, shown: str | None, encoded: str | None) -> bytes | None:
    if encoded is not None:
        return exact(name, encoded)
    return None if shown is None else _bytes(shown)
