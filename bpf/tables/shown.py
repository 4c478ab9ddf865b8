"""How arguments of calls are read and shown, from `tables/arguments.txt`."""

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
    """A SPEC of arguments.txt. `words`: `=TABLE`, `|TABLE` or `:PARSER`. For a pointer, `struct` or `text` is the type
    of the data, and its number is `fixed`, or `count` (an argument, `*argument`, `result`) in `unit` (n, bytes, bits).
    """

    words: str = ""
    struct: str = ""
    by: str = ""
    """The argument that selects the variant of the struct."""
    text: bool = False
    written: bool = False
    fixed: int = 1
    unit: str = ""
    count: str = ""
    limit: str = ""

    @property
    def is_pointer(self) -> bool:
        """Whether data is read through the argument."""
        return bool(self.struct or self.text)


@dataclass
class Commands:
    """Arguments of a call that depend on its command, which is `argument` & `mask`."""

    argument: str
    mask: int = 0xFFFFFFFF
    by_value: dict[int, dict[str, Shown]] = field(default_factory=dict)

    @property
    def arguments(self) -> set[str]:
        """Names of the arguments that depend on the command."""
        return {name for shown in self.by_value.values() for name in shown}


def parse(text: str) -> Shown:
    """Parses a SPEC. Raises ValueError if it is invalid."""
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
class ShownArguments:
    """The whole table: by (call, argument), by globs of calls, by type, and the commands of each call."""

    named: dict[tuple[str, str], Shown] = field(default_factory=dict)
    globs: list[tuple[str, str, Shown]] = field(default_factory=list)
    typed: dict[str, Shown] = field(default_factory=dict)
    commands: dict[str, Commands] = field(default_factory=dict)


@cache
def table() -> ShownArguments:
    """The table, read once."""
    found = ShownArguments()
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
    """The number of a word in the tables of commands. Raises KeyError if no table has it."""
    return _numbers()[word]


@cache
def _numbers() -> dict[str, int]:
    return {word: number for name in reversed(COMMANDS) for word, number in words.numbers_of(name).items()}


COMMANDS = """fcntl prctl ptrace seccomp_op reboot landlock_rule keyctl ioctl family level fsconfig arch_prctl bpf_cmd
    quota_cmd uring_register kcmp""".split()
"""Word tables of command arguments."""


@cache
def of(call: str, argument: str, kind: str) -> Shown | None:
    """How an argument is shown, independent of any command; None if nothing is declared or its command decides."""
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
    """The arguments of a call that depend on its command; None if there are none."""
    return table().commands.get(call)
