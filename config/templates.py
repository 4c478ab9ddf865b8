"""Lines that a user chooses: `-o fields=time,pid,comm,args.pathname` and `-p '%{time} %{comm} %{args.pathname}'`.

A template is text with fields in `%{...}`. `%%` is a percent sign, `\\n` and `\\t` are what they are in C. There are no
conditions, loops or functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.bpf.tables.catalogue import did_you_mean

FIELDS = {
    "time": "time of day, UTC, in microseconds",
    "time.iso": "date and time, UTC, in nanoseconds",
    "time.ns": "nanoseconds since the epoch",
    "event": "name of the event",
    "source": "where the event comes from",
    "pid": "process id on the host",
    "tid": "thread id on the host",
    "ppid": "process id of the parent on the host",
    "nspid": "process id in its namespace",
    "comm": "name of the task",
    "exe": "path of the executable",
    "uid": "user id",
    "user": "name of the user, or the id",
    "cpu": "CPU",
    "host": "host name",
    "retval": "result of a call",
    "error": "name of the error, such as ENOENT",
    "container": "beginning of the container's id; empty on the host",
    "container.id": "id of the container",
    "container.name": "name of the container (--containers)",
    "image": "image of the container (--containers)",
    "pod": "name of the pod (--containers)",
    "namespace": "namespace of the pod (--containers)",
    "args": "all arguments",
}
"""Fields and what they are. `args.NAME` is one argument, `args.NAME.MEMBER` a part of it."""
ARGUMENT = re.compile(r"args\.\w+(?:\.\w+)*")
TOKEN = re.compile(r"%%|%\{([^}]*)\}|%|\\[nt\\]")
ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\", "%%": "%"}
MAX_CHARACTERS = 4096


class TemplateError(Exception):
    """A template names no field, or one that does not exist."""


@dataclass(frozen=True)
class Template:
    """Literal texts and fields in turn: `texts` has one more than `fields`."""

    texts: tuple[str, ...]
    fields: tuple[str, ...]


def check_field(name: str) -> str:
    """The field with this name. Raises TemplateError."""
    if name in FIELDS or ARGUMENT.fullmatch(name):
        return name
    raise TemplateError(f"no such field: {name}" + did_you_mean(name, FIELDS))


def of_fields(names: str) -> str:
    """The template that shows a comma-separated list of fields, separated by tabs. Raises TemplateError."""
    fields = [check_field(name.strip()) for name in names.split(",") if name.strip()]
    if not fields:
        raise TemplateError("no field is named")
    return "\\t".join(f"%{{{name}}}" for name in fields)


def parse(text: str) -> Template:
    """Parse a template. A newline at its end is the end of the line. Raises TemplateError."""
    if len(text) > MAX_CHARACTERS:
        raise TemplateError(f"more than {MAX_CHARACTERS} characters")
    texts, fields, at = [""], [], 0
    for found in TOKEN.finditer(text):
        texts[-1] += text[at : found.start()]
        at = found.end()
        if found[1] is not None:
            fields.append(check_field(found[1]))
            texts.append("")
        elif found[0] == "%":
            raise TemplateError(f"a % that is neither %{{FIELD}} nor %%, before {text[at : at + 10]!r}")
        else:
            texts[-1] += ESCAPES[found[0]]
    texts[-1] += text[at:]
    if not fields:
        raise TemplateError("no field is named")
    texts[-1] = texts[-1].removesuffix("\n")
    return Template(tuple(texts), tuple(fields))
