"""How arguments of calls are read and shown: what `tables/arguments.txt` says."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from headrace.bpf.tables import words

TABLE = Path(__file__).parent / "arguments.txt"
SPEC = re.compile(
    r"(?P<out><)?(?:(?P<mark>[=|:])(?P<table>\w+)(?P<low>/32)?|\*(?P<struct>\w+)(?P<by>/\w+)?|(?P<text>text))"
    r"(?:\[(?:(?P<fixed>\d+)|(?P<unit>n|bytes|bits)=(?P<count>result|\*?\w+)(?:<(?P<limit>\w+))?)\])?"
)
BY = re.compile(r"(?P<calls>\S+) by (?P<argument>\w+)(?: & (?P<mask>\w+))?")
TYPE = re.compile(r"type (?P<type>.*) = (?P<spec>\S+)")
RESULT = "result"


@dataclass(frozen=True)
class Shown:
    """A SPEC of arguments.txt. `words`: `=TABLE`, `|TABLE` or `:PARSER`; of what stands behind a pointer `struct` or
    `text`, and how many: `fixed`, or `unit` (n, bytes, bits) of `count` (an argument, `*argument`, `result`).
    """

    words: str = ""
    struct: str = ""
    by: str = ""
    """The argument that decides which variant of the struct it is."""
    text: bool = False
    written: bool = False
    fixed: int = 1
    unit: str = ""
    count: str = ""
    limit: str = ""

    @property
    def is_pointer(self) -> bool:
        """Whether something is read."""
        return bool(self.struct or self.text)


@dataclass
class Commands:
    """Of a call: arguments that depend on another one, which is `argument` & `mask`."""

    argument: str
    mask: int = 0xFFFFFFFF
    by_value: dict[int, dict[str, Shown]] = field(default_factory=dict)

    @property
    def arguments(self) -> set[str]:
        """Those that depend on it."""
        return {name for shown in self.by_value.values() for name in shown}


def parse(text: str) -> Shown:
    """A SPEC; ValueError if it is none."""
    match = SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"arguments.txt: {text!r} says nothing")
    return Shown(
        words=(match["mark"] or "") + (match["table"] or "") + (match["low"] or ""),
        struct=match["struct"] or "",
        by=(match["by"] or "")[1:],
        text=bool(match["text"]),
        written=bool(match["out"]),
        fixed=int(match["fixed"] or 1),
        unit=match["unit"] or "",
        count=match["count"] or "",
        limit=match["limit"] or "",
    )


@dataclass
class Table:
    """The whole table: by (call, argument), by globs of calls, by type, and by call what depends on a command."""

    named: dict[tuple[str, str], Shown] = field(default_factory=dict)
    globs: list[tuple[str, str, Shown]] = field(default_factory=list)
    typed: dict[str, Shown] = field(default_factory=dict)
    commands: dict[str, Commands] = field(default_factory=dict)


@cache
def table() -> Table:
    """The table, read once."""
    found = Table()
    current: list[Commands] = []
    for line in TABLE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith(" "):
            values, argument, spec = line.split()
            for commands in current:
                _add(commands, values.split(","), argument, parse(spec))
        elif match := TYPE.fullmatch(line):
            found.typed[match["type"]] = parse(match["spec"])
        elif match := BY.fullmatch(line):
            mask = int(match["mask"] or "0xffffffff", 0)
            current = [
                found.commands.setdefault(c, Commands(match["argument"], mask)) for c in match["calls"].split(",")
            ]
        else:
            calls, arguments, spec = line.split()
            for call in calls.split(","):
                for argument in arguments.split(","):
                    if "*" in call:
                        found.globs.append((call, argument, parse(spec)))
                    else:
                        found.named.setdefault((call, argument), parse(spec))
    return found


def _add(commands: Commands, values: Iterable[str], arguments: str, shown: Shown) -> None:
    for value in values:
        number = int(value, 0) if value[0].isdigit() else number_of(value)
        for argument in arguments.split(","):
            commands.by_value.setdefault(number & commands.mask, {})[argument] = shown


def number_of(word: str) -> int:
    """The number of a word of the tables of commands; KeyError if none has it."""
    return _numbers()[word]


@cache
def _numbers() -> dict[str, int]:
    return {word: number for name in reversed(COMMANDS) for word, number in words.numbers_of(name).items()}


COMMANDS = """fcntl prctl ptrace seccomp_op reboot landlock_rule keyctl ioctl family level fsconfig arch_prctl bpf_cmd
    quota_cmd uring_register kcmp""".split()
"""Tables of the arguments that decide."""


@cache
def of(call: str, argument: str, kind: str) -> Shown | None:
    """How an argument is shown, whatever its command; None if its type says all."""
    known = table()
    if (call, argument) in known.named:
        return known.named[call, argument]
    for name, wanted, shown in known.globs:
        if wanted == argument and fnmatch.fnmatchcase(call, name):
            return shown
    commands = known.commands.get(call)
    if commands and argument in commands.arguments:
        return None
    return known.typed.get(kind)


def commands_of(call: str) -> Commands | None:
    """What of a call depends on one of its arguments."""
    return table().commands.get(call)
