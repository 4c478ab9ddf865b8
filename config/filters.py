"""Event expressions with conditions: `openat.args.pathname=/tmp/*`, `openat.retval<0`.

The kernel side evaluates a condition on a result if it is a single range. The other conditions become column predicates
in the workers (workers/conditions/filters.py), and the kernel side drops in advance what it can decide
(workers/conditions/early.py). Conditions on one event are ANDed; the values of one condition are ORed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.bpf.tables.catalogue import Catalogue, Event, UnknownName, nearest
from headrace.bpf.tables.errors import NUMBERS
from headrace.bpf.tables.ranges import Range
from headrace.bpf.tables.reads import HASH

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
CONDITION = re.compile(
    r"^(!?[\w*?\[\]]+)\.(?:(retval)|(?:(?:args|data)\.)?(\w+)((?:\.\w+)*(?:\[\d{1,4}\])?))"
    r"\s*(!=|<=|>=|=|<|>)(.*)$",
    re.S,
)
DECIMAL = r"-?[0-9]{1,20}"
MAX_DIGITS = 1000
"""Characters of a number or of flag names. Python refuses to parse numbers of thousands of digits."""
WIDE = ("long", "u64", "s64", "size_t", "off_t", "loff_t", "*")
"""Parts of the names of 64-bit types. All other types have at most 32 bits."""
TEXTUAL = ("const char*", "char*", "const char*const*")


class FilterError(Exception):
    """A condition that is malformed or can never match."""


@dataclass(frozen=True)
class Condition:
    """One condition: on the argument at position `argument`, or on the result (None). `member`: the condition is on
    this part of the argument (`.port`), which workers/conditions/parts.py looks up by the argument's name with this
    suffix.
    """

    event: Event
    argument: int | None
    op: str
    values: tuple[str, ...]
    text: str
    member: str = ""


@dataclass(frozen=True)
class Selection:
    """Parsed expressions: the events, the ranges of results for the kernel side, and the conditions for the workers.
    `skipped`: events that a set or glob included and that cannot be provided.
    """

    events: tuple[Event, ...] = ()
    skipped: tuple[Event, ...] = ()
    retval: tuple[tuple[str, int, int], ...] = ()
    conditions: tuple[Condition, ...] = ()

    def beside(self, others: Sequence[Event]) -> Selection:
        """The same selection, except that the conditions of the workers replace the result ranges of the events in
        `others`. Used when something else needs these events whole, so the kernel side must not drop any of them.
        """
        names = {event.name for event in others}
        by_name = {event.name: event for event in self.events}
        ranges = [(by_name[name], low, high) for name, low, high in self.retval if name in names]
        return Selection(
            self.events,
            self.skipped,
            tuple(each for each in self.retval if each[0] not in names),
            (
                *self.conditions,
                *(Condition(e, None, ">=", (str(low),), f"{e.name}.retval>={low}") for e, low, _ in ranges),
                *(Condition(e, None, "<=", (str(high),), f"{e.name}.retval<={high}") for e, _, high in ranges),
            ),
        )


def _split(expression: str) -> list[str]:
    """Split at commas. A part that looks like a value and follows a condition is one more value of it."""
    parts: list[str] = []
    for part in expression.split(","):
        part = part.strip()
        value = not CONDITION.match(part) and re.fullmatch(r".*/.*|-?\d+|-?[A-Z][A-Z0-9_|]*", part)
        continues = parts and CONDITION.match(parts[-1]) and value
        if continues:
            parts[-1] += "," + part
        elif part:
            parts.append(part)
    return parts


def _condition(text: str, catalogue: Catalogue) -> Condition | None:
    match = CONDITION.match(text)
    if match is None:
        return None
    name, retval, argument, member, op, values = match.groups()
    event = catalogue.event(name)
    parts = tuple(v for v in values.split(",") if v)
    if not parts:
        raise FilterError(f"{text}: a value is missing")
    if retval:
        return _on_result(event, op, parts, text)
    position = event.index(argument)
    if position is None:
        raise UnknownName(f"argument of {name}", argument, nearest(argument, [a.name for a in event.arguments]))
    kind = event.arguments[position].type
    if member:
        return Condition(event, position, op, parts, text, member)
    if event.arguments[position].form == HASH:
        raise FilterError(f"{text}: {argument} is computed behind the conditions, which cannot look at it")
    if op not in ("=", "!=") and kind in TEXTUAL:
        raise FilterError(f"{text}: {argument} is text, it takes = and !=")
    if kind not in TEXTUAL:
        _check_number(event, position, op, parts, text)
    return Condition(event, position, op, parts, text)


def _check_number(event: Event, position: int, op: str, values: tuple[str, ...], text: str) -> None:
    """FilterError if the argument cannot be compared with these values as a number."""
    argument = event.arguments[position]
    if any(blob.arg == position for blob in event.blobs) or argument.type.startswith(("struct", "union", "int[")):
        raise FilterError(f"{text}: {argument.name} is a {argument.type}: name a member of it, as {argument.name}.NAME")
    if op not in ("=", "!=") and len(values) > 1:
        raise FilterError(f"{text}: {op} takes one value")
    for value in values:
        number = re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0|[1-9][0-9]*)", value[:MAX_DIGITS])
        word = op in ("=", "!=") and re.fullmatch(r"[A-Z][A-Z0-9_|]*", value)
        if not number and not word:
            raise FilterError(f"{text}: {value!r} is neither a number nor a name like O_RDONLY")
        bits = 64 if any(wide in argument.type for wide in WIDE) else 32
        if len(value) > MAX_DIGITS:
            raise FilterError(f"{text}: {value[:MAX_DIGITS]}... has more than {MAX_DIGITS} characters")
        if number and not -(2 ** (bits - 1)) <= integer(value) < 2**bits:
            raise FilterError(f"{text}: {value} can never match, {argument.name} is a {argument.type}")


def integer(text: str) -> int:
    """A number as conditions accept it: decimal, 0x, 0o, or C's octal with a leading 0."""
    return int(text, 0) if not re.fullmatch("-?0[0-7]+", text) else int(text, 8)


def _joins_words(condition: Condition) -> bool:
    """Whether several such conditions can hold together: a value can have several flags, a vector several strings."""
    if condition.argument is None:
        return False
    kind = condition.event.arguments[condition.argument].type
    return kind == "const char*const*" or (
        any(not v.lstrip("-")[:1].isdigit() for v in condition.values) and (kind not in TEXTUAL)
    )


def _contradiction(conditions: Sequence[Condition]) -> Condition | None:
    """The first condition that contradicts earlier conditions on the same argument; None if there is none."""
    numbers: dict[tuple[str, int | None], Range] = {}
    allowed: dict[tuple[str, int | None], set[str]] = {}
    barred: dict[tuple[str, int | None], set[str]] = {}
    for condition in conditions:
        if condition.member:
            continue
        key = condition.event.name, condition.argument
        if condition.argument is None or condition.event.arguments[condition.argument].type not in TEXTUAL:
            left = numbers.setdefault(key, Range(INT64_MIN, 2**64))
            number = int if condition.argument is None else integer
            left.narrow(condition.op, [number(value) for value in condition.values])
            if left.empty:
                return condition
        elif not any(c in value for value in condition.values for c in "*?["):
            if condition.op == "=":
                allowed[key] = allowed.get(key, set(condition.values)) & set(condition.values)
            else:
                barred.setdefault(key, set()).update(condition.values)
            if key in allowed and not allowed[key] - barred.get(key, set()):
                return condition
    return None


def _result(text: str) -> str:
    """A result as a number: tables show `-ENOENT`."""
    number = NUMBERS.get(text.removeprefix("-"))
    return text if number is None else str(-number)


def _on_result(event: Event, op: str, values: tuple[str, ...], text: str) -> Condition:
    if not event.is_syscall or event.hook != "raw_tracepoint:sys_exit":
        raise FilterError(f"{text}: {event.name} has no result, this can never match")
    values = tuple(_result(value) for value in values)
    for value in values:
        if not re.fullmatch(DECIMAL, value) or not INT64_MIN <= int(value) <= INT64_MAX:
            raise FilterError(f"{text}: {value!r} is neither a 64-bit number nor an error such as -ENOENT")
    if op not in ("=", "!=") and len(values) > 1:
        raise FilterError(f"{text}: {op} takes one value")
    return Condition(event, None, op, values, text)


def _range(condition: Condition) -> tuple[int, int] | None:
    """The range of results that a condition allows; None if it is not a single range."""
    first = int(condition.values[0])
    if len(condition.values) > 1 or condition.op == "!=":
        return None
    return {
        "=": (first, first),
        "<": (INT64_MIN, first - 1),
        "<=": (INT64_MIN, first),
        ">": (first + 1, INT64_MAX),
        ">=": (first, INT64_MAX),
    }[condition.op]


def no_hook(event: Event) -> str:
    """Why headrace has no source for an event on any host; "" if it has one."""
    return "" if event.hook else event.missing


def parse(expressions: Sequence[str], catalogue: Catalogue, lack: Callable[[Event], str] = no_hook) -> Selection:
    """Parse `--events`. UnknownName and FilterError name the error and the nearest valid name.

    `lack` returns why an event cannot be provided, "" if it can. It is an error to name such an event; an event from a
    set or a glob is skipped.
    """
    names: list[str] = []
    conditions: list[Condition] = []
    for part in _split(",".join(expressions)):
        condition = _condition(part, catalogue)
        if condition:
            conditions.append(condition)
            names.append(condition.event.name)
        else:
            names.append(part)
    asked = catalogue.select(",".join(names))
    for name in names:
        event = catalogue.by_name.get(name)
        if event and lack(event):
            raise FilterError(f"{name}: {lack(event)}")
    against = _contradiction([c for c in conditions if not _joins_words(c)])
    if against:
        raise FilterError(f"{against.text}: the conditions contradict each other, nothing can match")
    spans: dict[str, tuple[int, int]] = {}
    left: list[Condition] = []
    for condition in conditions:
        span = _range(condition) if condition.argument is None else None
        if span is None:
            left.append(condition)
            continue
        low, high = spans.get(condition.event.name, (INT64_MIN, INT64_MAX))
        spans[condition.event.name] = (max(low, span[0]), min(high, span[1]))
        if max(low, span[0]) > min(high, span[1]):
            raise FilterError(f"{condition.text}: the conditions contradict each other, nothing can match")
    return Selection(
        tuple(e for e in asked if not lack(e)),
        tuple(e for e in asked if lack(e)),
        tuple((name, low, high) for name, (low, high) in spans.items()),
        tuple(left),
    )
