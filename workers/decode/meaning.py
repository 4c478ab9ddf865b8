"""The meaning of a call's argument: by its name and type, or by the value of another argument, its command."""

from __future__ import annotations

from functools import cache, cached_property

from headrace.bpf.tables import words
from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.reads import ASIDE, VECTOR, Argument
from headrace.bpf.tables.shown import Shown, commands_of
from headrace.bpf.tables.shown import of as of_call
from headrace.workers.decode.flags import parser_by_command, parser_of
from headrace.workers.decode.numbers import Parser
from headrace.workers.decode.structs import TYPED
from headrace.workers.decode.texts import TEXT_TYPES
from headrace.workers.decode.words import numbers_of_words

BYTES_TYPE = "bytes"


def shown_of(event: Event, argument: Argument, command: int | None) -> Shown | None:
    """How an argument of a call is shown, with this command if a command decides. None if nothing is declared."""
    if not event.is_syscall:
        return None
    commands = commands_of(event.name)
    if command is not None and commands is not None and argument.name in commands.by_value.get(command, {}):
        return commands.by_value[command][argument.name]
    return of_call(event.name, argument.name, argument.type)


def by_variant(how: Shown | None, command: int | None) -> str:
    """The word that selects the variant of a struct; "" if there is none."""
    return words.names_of(f"bpf_{how.by}").get(command or 0, "") if how and how.by else ""


def is_read(event: Event, index: int, how: Shown | None, command: int | None) -> bool:
    """Whether the record can hold data for the argument in addition to its number."""
    kind = event.arguments[index].type
    if not event.is_syscall:
        return kind in TEXT_TYPES or kind in (VECTOR, BYTES_TYPE) or kind in TYPED
    read = any(blob.arg == index for blob in event.blobs) or event.arguments[index].form == ASIDE
    return read or (command is not None and how is not None and how.is_pointer)


def decides(event: Event, argument: Argument) -> tuple[int, int, frozenset[int]]:
    """(index of the argument that decides the meaning of this one, its mask, its values that have a declared meaning).
    The index is -1 if no argument decides.
    """
    commands = commands_of(event.name)
    how = of_call(event.name, argument.name, argument.type) if event.is_syscall else None
    if how is not None and how.by:
        values = frozenset(number for number, _ in words.words_of(f"bpf_{how.by}"))
        return event.index(how.by) or 0, 0xFFFFFFFF, values
    if commands is None or argument.name not in commands.arguments or event.index(commands.argument) is None:
        return -1, 0, frozenset()
    values = frozenset(value for value, each in commands.by_value.items() if argument.name in each)
    return event.index(commands.argument) or 0, commands.mask, values


@cache
def pointing(event: Event, argument: Argument) -> frozenset[int]:
    """The commands for which an argument is a pointer."""
    commands = commands_of(event.name)
    by_value = commands.by_value if commands else {}
    return frozenset(v for v, each in by_value.items() if argument.name in each and each[argument.name].is_pointer)


class Commanded(int):
    """The value of an argument whose words depend on a command. It carries that command."""

    command: int

    @classmethod
    def of(cls, value: int, command: int) -> Commanded:
        """`value` with `command`."""
        found = cls(value)
        found.command = command
        return found


class WordsByCommand:
    """Parser for Commanded values. Other values are shown as plain numbers."""

    def __init__(self, event: Event, argument: str) -> None:
        commands = commands_of(event.name)
        assert commands is not None
        self._parsers = {
            value: parser
            for value in commands.by_value
            if (parser := parser_by_command(event.name, argument, value)) is not None
        }

    def __call__(self, raw: int) -> str:
        parser = self._parsers.get(raw.command) if isinstance(raw, Commanded) else None
        return str(int(raw)) if parser is None else parser(int(raw))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word, over all commands."""
        return {word: number for parser in self._parsers.values() for word, number in numbers_of_words(parser).items()}


def words_of(event: Event, index: int) -> Parser | None:
    """The parser of a number, by command if its words depend on one; None if it has no words."""
    argument = event.arguments[index]
    if decides(event, argument)[0] < 0 or not event.is_syscall:
        return parser_of(event.name, argument.name, argument.type)
    found = WordsByCommand(event, argument.name)
    return found if found.numbers else None
