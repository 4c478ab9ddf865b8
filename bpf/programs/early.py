"""Conditions that the programs decide: a record is tested where it was written, and taken back if it fails.

A test may only take back what certainly does not match: whatever cannot be told here passes, and the worker's
predicate (workers/conditions/filters.py), which sees every record that comes, has the last word. So a test knows
numbers and flags, and texts that are an exact string, a beginning, an end, or both of these.

Each test becomes C for `record_passes()` (bpf/c/early.h). Texts are compared eight bytes at a time. A path that was
walked stands with its last component first, so its beginning is looked for at the end of the blob.

What signatures ask of an event becomes one test, `AnyOf`. Unlike conditions, signatures can change while a run goes on:
user space lets all records pass then, by `let_pass` of the map `status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.bpf.tables.catalogue import LIFECYCLE, Event
from headrace.bpf.tables.reads import PATH

MAX_BYTES = 255
"""Of a text that a test compares with."""
SIGNED, UNSIGNED = "s64", "u64"


@dataclass(frozen=True)
class NumberTest:
    """`argument` (None: the result), cast to `cast`, is one of `values` or has all bits of one of `masks`.

    With another operator than `=` there is one value; with `!=` no mask.
    """

    event: Event
    argument: int | None
    cast: str
    op: str
    values: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()

    def holds(self) -> str:
        """C: whether it may hold. Records of 32-bit calls pass."""
        kind = SIGNED if self.cast.startswith("s") else UNSIGNED
        raw = "h->retval" if self.argument is None else f"early_argument(h, {self.argument})"
        value, op = f"({kind})({self.cast}){raw}", "==" if self.op == "=" else self.op
        joined = " && " if self.op == "!=" else " || "
        terms = [f"{value} {op} {_literal(each, kind)}" for each in self.values]
        terms += [f"({value} & {mask}ULL) == {mask}ULL" for mask in self.masks]
        return f"(h->flags & HEAD_COMPAT) || ({joined.join(terms)})"

    def source(self) -> str:
        """C that leaves with `false` if the test fails."""
        return f"\tif (!({self.holds()}))\n\t\treturn false;\n"


@dataclass(frozen=True)
class Pattern:
    """A text that begins with `start` and ends with `end`; `exact`: that is `start`, and nothing else."""

    start: str = ""
    end: str = ""
    exact: bool = False

    @classmethod
    def of(cls, glob: str) -> Pattern | None:
        """The pattern that a glob is, or None if it is of another kind."""
        # the command line's bytes that are no UTF-8 match nothing
        if any(c in "?[\ufffd\0" or "\ud800" <= c <= "\udfff" for c in glob):
            return None
        start, star, end = glob.partition("*")
        if not star:
            return cls(start, exact=True)
        return None if "*" in end else cls(start, end)


@dataclass(frozen=True)
class TextTest:
    """The text behind `argument` fits one of `patterns`; `negated`: none of them."""

    event: Event
    argument: int
    negated: bool
    patterns: tuple[Pattern, ...]

    @property
    def _is_path(self) -> bool:
        return self.event.arguments[self.argument].form == PATH

    def terms(self) -> list[list[str]]:
        """C: of each pattern, what must hold for the text at hand to fit it."""
        make = path_terms if self._is_path else text_terms
        return [found or ["true"] for found in (make(pattern) for pattern in self.patterns) if found is not None]

    def read(self) -> str:
        """C: the text becomes the one at hand; false if it cannot decide."""
        found = f"early_{'path' if self._is_path else 'text'}(s, h, {self.argument})"
        # a path that is another one below the process's own root may match as that
        return f"{found} && !(h->flags & HEAD_OWN_ROOT)" if self._is_path and not self.negated else found

    def source(self) -> str:
        """C that leaves with `false` if the test fails. What was not read whole passes."""
        fits = " || ".join(f"({' && '.join(terms)})" for terms in self.terms())
        return f"\tif ({self.read()} && {'' if self.negated else '!'}({fits}))\n\t\treturn false;\n"


Leaf = NumberTest | TextTest
Wanted = int | tuple[str, tuple["Wanted", ...]]
"""A leaf by its number, or EVERY or EITHER of some."""
EVERY, EITHER = "every", "either"
MAX_LEAVES = 64


@dataclass(frozen=True)
class AnyOf:
    """What signatures can match of an event: `leaves`, none negated, and which of them must hold together."""

    event: Event
    leaves: tuple[Leaf, ...]
    wanted: Wanted

    def source(self) -> str:
        """C that leaves with `false` if no signature can match, as long as they are those that this was made of."""
        texts: dict[int, list[int]] = {}
        lines = ["*(volatile u64 *)&s->hits = 0;"]
        for number, leaf in enumerate(self.leaves):
            if isinstance(leaf, TextTest):
                texts.setdefault(leaf.argument, []).append(number)
            else:
                lines.append(f"if ({leaf.holds()})\n{_hit(number)}")
        for numbers in texts.values():
            lines += self._text(numbers)
        lines += [f"u64 hits = *(volatile u64 *)&s->hits;\nif (!({_joined(self.wanted)}))\n\treturn false;"]
        return "\tif (early_narrows()) {\n" + "\n".join(lines) + "\n\t}\n"

    def _text(self, numbers: Sequence[int]) -> list[str]:
        """C: the bits of tests of one text. A component is measured once for all patterns that want to know of it."""
        plain: list[str] = []
        measured: dict[tuple[str, ...], list[str]] = {}
        read = ""
        for number in numbers:
            leaf = self.leaves[number]
            assert isinstance(leaf, TextTest)
            read = leaf.read()
            for terms in leaf.terms():
                at = next((i for i, term in enumerate(terms) if term.startswith(MEASURE)), None)
                # a pattern that measures something else as well does it by itself
                if at is None or any(term.startswith(NAME_MEASURE) for term in terms):
                    plain.append(f"if ({' && '.join(terms)})\n{_hit(number)}")
                else:
                    measure, _, least = terms[at].rpartition(" >= ")
                    rest = " && ".join([f"s->component >= {least}", *terms[at + 1 :]])
                    measured.setdefault((*terms[:at], f"{measure} >= 0"), []).append(f"if ({rest})\n{_hit(number)}")
        groups = [f"if ({' && '.join(key)}) {{\n" + "\n".join(inner) + "\n}" for key, inner in measured.items()]
        every = "\n".join(map(_hit, numbers))
        return [f"if ({read}) {{", *plain, *groups, "} else {", every, "}"]


MEASURE, NAME_MEASURE = "early_component(", "early_name("


def _hit(number: int) -> str:
    return f"\tEARLY_HIT(s, {1 << number:#x}ULL);"


Test = NumberTest | TextTest | AnyOf


def _joined(wanted: Wanted) -> str:
    if isinstance(wanted, int):
        return f"(hits & {1 << wanted:#x}ULL)"
    kind, parts = wanted
    return f"({(' && ' if kind == EVERY else ' || ').join(map(_joined, parts))})" if parts else "0"


def _literal(value: int, kind: str) -> str:
    # the least 64-bit number has no literal of its own in C
    return f"({kind}){value % 2**64:#x}ULL"


def _begins(data: bytes) -> list[str]:
    """C: the text begins with `data`, which is not longer. Most do not: the first bytes are at hand."""
    head = data[:8]
    value = int.from_bytes(head, "little")
    first = f"(s->first & {(1 << 8 * len(head)) - 1:#x}ULL) == {value:#x}ULL"
    return [first] if len(data) <= 8 else [first, _same(data, "s->at")]


def _ends(data: bytes) -> list[str]:
    """C: the text ends with `data`, which is not longer."""
    tail = data[-8:]
    last = f"(s->last >> {64 - 8 * len(tail)}) == {int.from_bytes(tail, 'little'):#x}ULL"
    return [last] if len(data) <= 8 else [last, _same(data, f"s->at + s->bytes - {len(data)}")]


def _same(data: bytes, at: str) -> str:
    """C: the bytes at `at`, an address, are `data`."""
    words = []
    for i in range(0, len(data), 8):
        part = data[i : i + 8]
        value = int.from_bytes(part, "little")
        word = f"s->words[{i // 8}]"
        if len(part) < 8:
            word = f"({word} & {(1 << 8 * len(part)) - 1:#x}ULL)"
        words.append(f"{word} == {value:#x}ULL")
    return f"early_read(s, {at}, {len(data)}) && {' && '.join(words)}"


def text_terms(pattern: Pattern) -> list[str] | None:
    """C terms that must all hold for a text to fit; None if that cannot be told here."""
    start, end = pattern.start.encode(), pattern.end.encode()
    if max(len(start), len(end)) > MAX_BYTES:
        return None
    terms = [f"s->bytes {'==' if pattern.exact else '>='} {len(start) + len(end)}"]
    return terms + (_begins(start) if start else []) + (_ends(end) if end else [])


def _components(names: Iterable[str]) -> bytes:
    return b"".join(name.encode() + b"\0" for name in reversed(list(names)))


def path_terms(pattern: Pattern) -> list[str] | None:
    """The same for a walked path: `/a/b` stands as `b NUL a NUL / NUL`."""
    if pattern.exact:
        return _exact_path(pattern.start)
    if pattern.start == "/" and not pattern.end:
        return None  # all but what has no directory
    terms: list[str] = []
    if pattern.start:
        found = _path_start(pattern.start)
        if found is None:
            return None
        terms += found
    if pattern.end:
        found = _path_end(pattern.end)
        if found is None:
            return None
        terms += found
    if pattern.start and pattern.end:
        # a beginning and an end that share bytes are no match; two bytes of the blob stand for the root
        terms.append(f"s->bytes >= {len(pattern.start.encode()) + len(pattern.end.encode()) + 2}")
    return terms


def _exact_path(path: str) -> list[str] | None:
    root, names = path.startswith("/"), path.removeprefix("/").split("/")
    if path == "/":
        data = b"/\0"
    elif "" in names:
        return None
    else:
        data = _components(names) + (b"/\0" if root else b"")
    return None if len(data) > MAX_BYTES else [f"s->bytes == {len(data)}", *_begins(data)]


def _path_start(start: str) -> list[str] | None:
    *names, partial = start.removeprefix("/").split("/")
    if not start.startswith("/") or "" in names:
        return None
    # the NUL of the component below stands before
    above = b"\0" + _components(names) + b"/\0"
    if len(above) + len(partial.encode()) > MAX_BYTES:
        return None
    terms = [f"s->bytes > {len(above)}", *_ends(above)]
    if partial:
        begins, end = partial.encode(), f"s->bytes - {len(above)}"
        terms.append(f"early_component(s, {end}) >= {len(begins)}")
        terms.append(_same(begins, f"s->at + {end} - s->component"))
    return terms


def _path_end(end: str) -> list[str] | None:
    partial, *names = end.split("/")
    below = _components(names)
    if "" in names or len(below) + len(partial.encode()) > MAX_BYTES:
        return None
    terms = []
    if below:
        terms += [f"s->bytes > {len(below)}", *_begins(below)]
    if partial:
        ends = partial.encode()
        terms.append(f"early_name(s, {len(below)}) >= {len(ends)}")
        terms.append(_same(ends, f"s->at + {len(below)} + s->component - {len(ends)}"))
    return terms


def is_early(event: Event) -> bool:
    """Whether records of an event may be taken back: the process tree needs all of the lifecycle's."""
    return event.name not in LIFECYCLE and event.hook not in (None, "pipeline")


def c_source(tests: Sequence[Test]) -> str:
    """The functions that early.h expects at EARLY_TESTS, "" without tests."""
    if not tests:
        return ""
    rules = [test for test in tests if isinstance(test, AnyOf)]
    conditions = [test for test in tests if not isinstance(test, AnyOf)]
    return _function("record_passes", conditions) + _function("record_wanted", rules)


def _function(name: str, tests: Sequence[Test]) -> str:
    of_event: dict[int, list[str]] = {}
    for test in tests:
        of_event.setdefault(test.event.id, []).append(test.source())
    # an event without tests costs nothing
    begin = "\tu32 zero = 0;\n\tstruct early *s = earlies.lookup(&zero);\n\tif (!s)\n\t\treturn true;\n"
    cases = "".join(f"\tif (event == {n}) {{\n{begin}{''.join(parts)}\t}}\n" for n, parts in of_event.items())
    return f"static __always_inline bool {name}(const struct head *h, u32 event)\n{{\n{cases}\treturn true;\n}}\n"
