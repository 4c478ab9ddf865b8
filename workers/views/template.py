"""Events as lines of the user's own (config/templates.py). The values are those of JSON lines."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from headrace.config.printable import escaped, quoted
from headrace.config.templates import Template
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.pieces import Lines, RenderedLines
from headrace.workers.views.table import shown

SECOND_NS = 10**9
ID_CHARACTERS = 12
Line = dict[str, Any]


def _moment(line: Line, form: str) -> str:
    seconds, rest = divmod(line["timestamp"], SECOND_NS)
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{time:%Y-%m-%dT%T}.{rest:09d}Z" if form == "iso" else f"{time:%T}.{rest // 1000:06d}"


def _arguments(line: Line) -> str:
    found = [a for a in line["args"] if a["value"] is not None and not a["name"].startswith("root_")]
    return ", ".join(f"{a['name']}={shown(a['value'])}" for a in found)


GETTERS: dict[str, Callable[[Line], Any]] = {
    "time": lambda line: _moment(line, ""),
    "time.iso": lambda line: _moment(line, "iso"),
    "time.ns": lambda line: line["timestamp"],
    "event": lambda line: line["eventName"],
    "source": lambda line: line["source"],
    "pid": lambda line: line["hostProcessId"],
    "tid": lambda line: line["hostThreadId"],
    "ppid": lambda line: line["hostParentProcessId"],
    "nspid": lambda line: line["processId"],
    "comm": lambda line: line["processName"],
    "exe": lambda line: line["executable"].get("path", ""),
    "uid": lambda line: line["userId"],
    "user": lambda line: line["context"].get("user", line["userId"]),
    "cpu": lambda line: line["processorId"],
    "host": lambda line: line["hostName"],
    "retval": lambda line: "" if line["returnValue"] is None else line["returnValue"],
    "error": lambda line: line.get("error", ""),
    "container": lambda line: line["containerId"][:ID_CHARACTERS],
    "container.id": lambda line: line["containerId"],
    "container.name": lambda line: line["containerName"],
    "image": lambda line: line["containerImage"],
    "pod": lambda line: line["podName"],
    "namespace": lambda line: line["podNamespace"],
}


def _argument(name: str) -> Callable[[Line], str]:
    """One argument, or a part of it; "" if the event does not have it."""
    first, *members = name.split(".")[1:]

    def get(line: Line) -> str:
        value = next((a["value"] for a in line["args"] if a["name"] == first), None)
        for member in members:
            value = value.get(member) if isinstance(value, dict) else None
        if isinstance(value, str):
            return escaped(value)
        return "" if value is None else shown(value)

    return get


def _getter(field: str) -> Callable[[Line], str]:
    if field == "args":
        return _arguments
    if field not in GETTERS:
        return _argument(field)
    get = GETTERS[field]

    def text(line: Line) -> str:
        value = get(line)
        return quoted(value) if field == "comm" else escaped(str(value))

    return text


class TemplateLines:
    """Renders rows as lines of a template."""

    def __init__(self, template: Template, lines: Lines) -> None:
        """`lines` renders JSON."""
        self._texts, self._fields = template.texts, tuple(map(_getter, template.fields))
        self._lines = lines
        self._decode = msgspec.json.Decoder(Line).decode

    def forget_who(self) -> None:
        """Discard cached process identities."""
        self._lines.forget_who()

    def unsay(self) -> None:
        """Undo the last render."""
        self._lines.unsay()

    def _line(self, data: bytes) -> bytes:
        line = self._decode(data)
        values = (field(line) + text for field, text in zip(self._fields, self._texts[1:], strict=True))
        return (self._texts[0] + "".join(values)).replace("\n", "\\x0a").encode("utf-8", "replace") + b"\n"

    def render(self, rows: Rows, contexts: Contexts) -> RenderedLines:
        """All rows, one line each. A newline in a template's text would make two lines of one, and is escaped."""
        data, ends = self._lines.render(rows, contexts)
        begins = [0, *ends.tolist()]
        found = [self._line(data[begin:end]) for begin, end in zip(begins, ends.tolist(), strict=False)]
        return RenderedLines(b"".join(found), np.cumsum([len(line) for line in found], dtype=np.int64))
