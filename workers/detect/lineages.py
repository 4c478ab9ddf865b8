"""Processes as headrace's own JSON lines tell of them (workers/views/lineage.py): what each runs, and who created it.

What is told stays for the lines behind it, by process id and start time: the same that a run's process tree has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from workers.detect.subjects import command_line, started_by
from workers.detect.values import Text
from workers.enrich.tree import Image, Key, Process, ancestor_images, ancestors
from workers.views.style import exact

MAX_TOLD = 65536
"""Processes that are remembered, those told of longest ago are forgotten first."""
MAX_SAID = 8192



class _ImageLine(msgspec.Struct, rename={"path_base64": "pathBase64", "asked_base64": "askedBase64",
                                         "cwd_base64": "cwdBase64", "argv_base64": "argvBase64"}):  # fmt: skip
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


def _bytes(given: str) -> bytes:
    return given.encode("utf-8", "surrogateescape")


def _exact(name: str, shown: str | None, encoded: str | None) -> bytes | None:
    if encoded is not None:
        return exact(name, encoded)
    return None if shown is None else _bytes(shown)


class _KeyLine(msgspec.Struct, rename={"start_time": "startTime"}):
    pid: int
    start_time: int

    @property
    def key(self) -> Key:
        return self.pid, self.start_time


class _LinkLine(_KeyLine):
    image: _ImageLine | None
    creator: _KeyLine | None = None


class _Lineage(msgspec.Struct):
    links: list[_LinkLine]
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
        self._links: dict[Key, Process] = {}
        self._images: dict[Key, Image | None] = {}
        self._said: dict[Key, Told] = {}
        self._ends: set[Key] = set()
        """Where walks have ended: to whom these are told of later, they know more of themselves."""

    def get(self, key: Key) -> Process | None:
        """Who created a process; None if that was not told, as workers/enrich/tree.py."""
        found = self._links.get(key)
        if found is None:
            self._ends.add(key)
        return found

    def of(self, line: Mapping[str, Any]) -> Told:
        """Take what a line tells; what is known of its process by then. ValueError, msgspec.ValidationError."""
        pid, start = line.get("hostProcessId"), line.get("processStartTime")
        if not isinstance(pid, int) or not isinstance(start, int):
            return NOTHING
        key = pid, start
        if "lineage" in line:
            self._take(key, line["lineage"])
        said = self._said.get(key)
        if said is None:
            if len(self._said) >= MAX_SAID:
                self._said.clear()
            said = self._said[key] = self._made(key)
        return said

    def _take(self, key: Key, given: object) -> None:
        self._said.pop(key, None)
        if given is None:
            self._images.pop(key, None)
            return
        lineage = msgspec.convert(given, _Lineage)
        for link in lineage.links:
            creator = link.creator.key if link.creator else None
            image = link.image.image() if link.image else None
            _put(self._links, link.key, Process(link.key, creator=creator, creator_image=image))
            if link.key in self._ends:
                self._said.clear()
                self._ends.clear()
        own = self._links.get(key)
        if lineage.image is msgspec.UNSET:
            image = own.creator_image if own else None
        else:
            image = lineage.image.image() if lineage.image else None
        _put(self._images, key, image)

    def _made(self, key: Key) -> Told:
        process = self._links.get(key)
        if process is None or key not in self._images:
            return NOTHING
        image = self._images[key]
        found = ancestors(self, process)
        ran = [process.creator_image, *(each.creator_image for each in found)]
        values = _fields("process", [image]) | _fields("parent", [process.creator_image])
        values |= _fields("ancestors", ancestor_images(self, process))
        above = tuple((each.key[0], ran) for each, ran in zip(found, ran, strict=False))
        return Told(image, above, values, True)


def _put(where: dict[Key, Any], key: Key, value: object) -> None:
    if len(where) >= MAX_TOLD and key not in where:
        del where[next(iter(where))]
    where[key] = value


def _fields(who: str, images: list[Image | None] | list[Image]) -> dict[str, Text]:
    """IMAGE_FIELDS of one image, or of several as one; without those that are not known."""
    found: dict[str, Text] = {}
    for part in ("path", "image", "command_line", "cwd"):
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
