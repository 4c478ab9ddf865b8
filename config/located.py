"""YAML with the line of every part, for error messages. The YAML library parses it, as data only.

A hostile file is refused, not expanded. Its size (config/files.py), its depth and the number of its parts are bounded;
an alias counts each time that it is used. A duplicate key is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_PARTS = 200_000
MAX_DEPTH = 40
SCALARS = yaml.SafeLoader("")
PLAIN = str | int | float | None
"""Allowed types of a scalar. YAML also has dates, and a tag can turn a scalar into an empty collection."""


MARK = ""
"""Key of the place of a mapping. Its value is a tuple, which no file can contain."""


class LocatedError(Exception):
    """A text that is not valid YAML, or not in the expected form. `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line, self.why = line, why


@dataclass(frozen=True)
class Located:
    """A value and its line.

    The value is a scalar, a list of Located, or a dict from text to Located; `keys` has the lines of the keys.
    """

    value: Any
    line: int
    keys: dict[str, int] | None = None

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {key: part.plain() for key, part in self.value.items()}
        if isinstance(self.value, list):
            return [part.plain() for part in self.value]
        return self.value

    def marked(self, file: str) -> Any:
        """Like plain(). A mapping also has its place, under MARK: the file, its line and the lines of its keys."""
        plain = self.plain()
        # a key of the file itself wins: it is then reported as unknown
        return {MARK: (file, self.line, self.keys or {}), **plain} if isinstance(plain, dict) else plain

    def parts(self) -> list[Located]:
        """The parts of a list; anything else as the only part."""
        return self.value if isinstance(self.value, list) else [self]


def documents(text: str) -> Iterator[Located]:
    """The documents in a text. LocatedError if it is not YAML, is nested too deeply, or has too many parts."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for node in yaml.compose_all(text, Loader=loader):
            yield _Reader().read(node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise LocatedError(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise LocatedError(1, f"not YAML: {error}") from error
    except RecursionError as error:
        raise LocatedError(1, "nested too deeply") from error


class _Reader:
    """Converts the nodes of one document to values."""

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def read(self, node: yaml.Node, depth: int) -> Located:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise LocatedError(line, f"more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise LocatedError(line, f"nested more than {MAX_DEPTH} deep")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, line, depth)
        if isinstance(node, yaml.SequenceNode):
            return Located([self.read(part, depth + 1) for part in node.value], line)
        try:
            construct: Any = SCALARS.yaml_constructors.get(node.tag, SCALARS.yaml_constructors[None])
            value = construct(SCALARS, node)
        except Exception as error:  # decision 37: a tag on an unsuitable scalar can raise anything
            why = getattr(error, "problem", None) or (str(error) if isinstance(error, ValueError) else node.tag)
            raise LocatedError(line, f"not a plain value: {why}") from error
        if not isinstance(value, PLAIN):
            raise LocatedError(line, f"not a plain value: {node.tag}; put it in quotes")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise LocatedError(line, "a number of more than 64 bits")
        return Located(value, line)

    def _mapping(self, node: yaml.MappingNode, line: int, depth: int) -> Located:
        found: dict[str, Located] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise LocatedError(at, "a key is not a word")
            if key.value in found:
                raise LocatedError(at, f"the key {key.value} stands twice")
            found[key.value], lines[key.value] = self.read(value, depth + 1), at
        return Located(found, line, lines)
