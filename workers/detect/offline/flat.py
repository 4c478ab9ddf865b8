"""Single events as mappings of names to values: the examples of rules, and JSON lines.

Values are converted to the types of the columns, by the catalogue. A missing value is None, which means unread.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.conditions import Node, Test
from headrace.config.tree import verdict
from headrace.workers.decode.meaning import Commanded, decides, pointing, words_of
from headrace.workers.decode.structs import TYPED
from headrace.workers.detect.columns.comparison import compared
from headrace.workers.detect.columns.recorded import address_part
from headrace.workers.detect.columns.subjects import command_line, exec_image
from headrace.workers.detect.rules.fields import EXEC, OPAQUE_TYPES, SOCKADDR_TYPE, Field, field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.members import place_of
from headrace.workers.detect.rules.values import BYTES, NUMBER, TextValue, Value, number_of, shown_number, text
from headrace.workers.views.pieces import VECTOR_TYPE


@dataclass
class FlatEvent:
    """One event. `values`: the fields of its process, by name."""

    event: Event
    args: Mapping[str, Any]
    retval: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def value(self, wanted: Field) -> Value:
        """The value of a field, as rules see it."""
        found = self._value(wanted)
        if wanted.view and isinstance(found, int):
            return shown_number(found, wanted.view, wanted.words)
        return None if wanted.view else found

    def _value(self, wanted: Field) -> Value:
        if wanted.place == "result":
            return self.retval
        if wanted.place == "argument":
            return self._argument(wanted)
        if wanted.pair is not None:
            return compared(wanted.column, *map(self.value, wanted.pair))
        if wanted.place == "target":
            return self._own_target(wanted)
        name = wanted.column if wanted.place == "image" else wanted.name.partition("@")[0]
        given = self.values.get(name)
        if given is None and wanted.place == "image" and self.event.name == EXEC:
            return self._image(wanted.column)
        if wanted.name == "container" and given is None:
            return self._in_container()
        if given is None:
            return None
        if wanted.kind == NUMBER or wanted.view:
            return number_of(given, wanted.width, wanted.words)
        return texts(given)

    def _own_target(self, wanted: Field) -> Value:
        if self.values.get(wanted.name):
            return 1
        pid = number_of(self.args.get("pid"), "s32", None)
        mine = [number_of(self.values.get(name), "s32", None) for name in ("process.ns_pid", "process.ns_tid")]
        return None if pid is None or mine[0] is None else int(pid in mine)

    def _in_container(self) -> Value:
        name = self.values.get("container.id")
        if name is None:
            return None
        return int(bool(name) and self.values.get("container.started") is not False)

    def _image(self, what: str) -> Value:
        """The process's own image on an exec, taken from its arguments."""
        if what == "process.command_line":
            argv = self.args.get("argv")
            if not isinstance(argv, list | TextValue):
                return None
            line = texts(argv)
            return command_line(b"".join(part + b"\0" for part in line.parts), line.cut)
        path, interp, cwd = (self._text(name) for name in ("pathname", "interp", "pwd"))
        if what == "process.image":
            return exec_image(path, interp, cwd)
        return {"process.path": path, "process.cwd": cwd}.get(what)

    def _text(self, argument: str) -> TextValue | None:
        given = self.args.get(argument)
        return texts(given) if isinstance(given, str | bytes | TextValue) else None

    def _argument(self, wanted: Field) -> Value:
        given = self.args.get(self.event.arguments[wanted.argument].name)
        if given is None:
            return None
        if wanted.member is not None:
            return _member(wanted, given) if self._has_member(wanted) else None
        if wanted.type == SOCKADDR_TYPE:
            return address_part(_address(given), wanted.column) if isinstance(given, str | dict) else None
        if wanted.kind == BYTES:
            return _bytes(given)
        if wanted.type == VECTOR_TYPE:
            found, element = texts(given), wanted.element
            if element is None:
                return found
            return (
                TextValue(found.parts[element : element + 1], found.cut and element == len(found.parts) - 1)
                if (element < len(found.parts))
                else None
            )
        if wanted.kind == NUMBER or wanted.view:
            return self._number(wanted, given)
        return texts(given)

    def _has_member(self, wanted: Field) -> bool:
        """Whether the structure behind the argument has the member, for the command of this call."""
        of, mask, known = decides(self.event, self.event.arguments[wanted.argument])
        command = None
        if of >= 0:
            command = number_of(self.args.get(self.event.arguments[of].name), "u32", words_of(self.event, of))
            command = command & mask if command is not None and command & mask in known else None
        return place_of(self.event, wanted.argument, wanted.column, False, command) is not None

    def _number(self, wanted: Field, given: object) -> Value:
        """A number, with the command that determines its words, if there is one."""
        value = number_of(given, wanted.width, wanted.words)
        argument = self.event.arguments[wanted.argument]
        of, mask, _ = decides(self.event, argument)
        if value is None or of < 0:
            return value
        command = number_of(self.args.get(self.event.arguments[of].name), "u32", words_of(self.event, of))
        if command is None:
            return value
        return None if command & mask in pointing(self.event, argument) else Commanded.of(value, command & mask)


def _member(wanted: Field, given: object) -> Value:
    """The value of a structure's member, as lines show it."""
    if isinstance(given, list):
        element = wanted.element or 0
        given = given[element] if element < len(given) else None
    elif wanted.element:
        return None
    if isinstance(given, bytes):  # a structure of one text
        given = given.split(b"\0", 1)[0]
    elif not isinstance(given, str | int):
        for name in wanted.column.split("."):
            given = given.get(name) if isinstance(given, dict) else None
    if given is None or isinstance(given, dict | list):
        return None
    return number_of(given, wanted.width, wanted.words) if wanted.kind == NUMBER else texts(given)


def texts(given: object) -> TextValue:
    """A value as texts; each element of a list is a reading."""
    if isinstance(given, TextValue):
        return given
    if isinstance(given, list | tuple):
        return TextValue(tuple(part for each in given for part in texts(each).parts))
    return text(given if isinstance(given, str | bytes) else str(given))


def _bytes(given: object) -> Value:
    """Bytes from base64, or from a list of numbers. A text that is not base64 is taken as it is."""
    if isinstance(given, list):
        return bytes(b & 255 for b in given if isinstance(b, int))
    if not isinstance(given, str):
        return given if isinstance(given, bytes) else None
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        return given.encode("utf-8", "surrogateescape")


def _address(given: str | dict[str, Any]) -> dict[str, str]:
    """A socket address. Some versions of Tracee write it as the text of a mapping."""
    if isinstance(given, dict):
        return {str(k): str(v) for k, v in given.items()}
    found: dict[str, str] = {}
    for part in given.strip("{} ").split(","):
        key, _, value = part.partition(":")
        found[key.strip(" '\"")] = value.strip(" '\"")
    return found


class FlatRules:
    """Evaluates conditions one event at a time: slow and plain. Independent of the engine, to compare the two."""

    def __init__(self) -> None:
        self._matchers: dict[tuple[int, Test], tuple[Field, Matcher]] = {}

    def verdict(self, node: Node, event: FlatEvent) -> bool | None:
        """True, false, or None for unknown."""
        return verdict(node, lambda test: self.test(test, event)[1])

    def test(self, test: Test, event: FlatEvent) -> tuple[Value, bool | None]:
        """The value that a test sees, and its verdict."""
        key = event.event.id, test
        if key not in self._matchers:
            wanted = field_of(event.event, test.field)
            self._matchers[key] = wanted, Matcher(wanted, [test])
        wanted, matcher = self._matchers[key]
        value = event.value(wanted)
        verdicts = matcher.verdicts(value)
        return value, True if verdicts.true else None if verdicts.unknown else False


def of_example(given: Mapping[str, Any], catalogue: Catalogue) -> FlatEvent:
    """The event of an example. UnknownName if the catalogue does not know the event; ValueError or FieldError if an
    argument, value or field is invalid.
    """
    event = catalogue.event(given["event"])
    args = given.get("args") or {}
    if not isinstance(args, dict):
        raise ValueError("args is a mapping")
    for name, value in args.items():
        index = event.index(name)
        if index is None:
            raise ValueError(f"{event.name} has no argument {name}")
        _check_argument(event, index, value)
    values: dict[str, Any] = {"container.id": "", "host.name": "host"}
    for who in ("process", "parent", "container"):
        part = given.get(who) or {}
        if not isinstance(part, dict):
            raise ValueError(f"{who} is a mapping")
        values |= {f"{who}.{key}": value for key, value in part.items()}
    for name in values:
        field_of(event, name)
    above = given.get("ancestors") or []
    for part in ("path", "image", "command_line"):
        found = [each[part] for each in above if isinstance(each, dict) and part in each]
        if found:
            values[f"ancestors.{part}"] = found
    return FlatEvent(event, args, given.get("retval"), values)


def _check_argument(event: Event, index: int, value: object) -> None:
    kind = event.arguments[index].type
    if kind in TYPED or kind == VECTOR_TYPE or kind in OPAQUE_TYPES or value is None:
        return
    wanted = field_of(event, event.arguments[index].name)
    if wanted.kind == NUMBER and number_of(value, wanted.width, wanted.words) is None:
        raise ValueError(f"{wanted.name}: not a value of {kind}: {value!r}")
    if wanted.kind != NUMBER and not isinstance(value, str):
        raise ValueError(f"{wanted.name}: a text is wanted, not {value!r}")
