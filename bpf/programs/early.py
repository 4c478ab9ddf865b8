"""Conditions that the BPF programs evaluate: a record is tested after it is written and discarded if it fails.

A test may discard only records that certainly do not match. Undecidable records pass, and the worker's predicate
(workers/conditions/filters.py), which sees every record that arrives, makes the final decision. Tests support numbers,
flags, exact texts, and texts with a given prefix, suffix, or both.

Each test becomes C code of `record_passes()` (bpf/c/early.h). Texts are compared eight bytes at a time. A walked path
is stored with its last component first, so its prefix is compared at the end of the blob.

The signatures of an event become one test, `AnyOf`, and so do the conditions of policies. Unlike conditions, signatures
can change during a run. User space then sets `let_pass` in the map `status`, which lets all records pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.bpf.tables.catalogue import LIFECYCLE, Event
from headrace.bpf.tables.reads import PATH
from headrace.config.tree import Fold, Tree

MAX_BYTES = 255
"""Maximum bytes of a text in a test."""
SIGNED, UNSIGNED = "s64", "u64"


@dataclass(frozen=True)
class NumberTest:
    """`argument` (None: the result), cast to `cast`, is one of `values` or has all bits of one of `masks`.

    With `!=`, it is none of `values`, and `masks` is empty. With `<`, `<=`, `>` or `>=`, there is one value.
    """

    event: Event
    argument: int | None
    cast: str
    op: str
    values: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()

    def holds(self) -> str:
        """C: whether the test may hold. Records of 32-bit calls pass."""
        kind = SIGNED if self.cast.startswith("s") else UNSIGNED
        raw = "h->retval" if self.argument is None else f"early_argument(h, {self.argument})"
        value, op = f"({kind})({self.cast}){raw}", "==" if self.op == "=" else self.op
        joined = " && " if self.op == "!=" else " || "
        terms = [f"{value} {op} {_literal(each, kind)}" for each in self.values]
        terms += [f"({value} & {mask}ULL) == {mask}ULL" for mask in self.masks]
        return f"(h->flags & HEAD_COMPAT) || ({joined.join(terms)})"

    def source(self) -> str:
        """C: returns `false` if the test fails."""
        return f"\tif (!({self.holds()}))\n\t\treturn false;\n"


@dataclass(frozen=True)
class Pattern:
    """A text that begins with `start` and ends with `end`. If `exact`, the text is `start`."""

    start: str = ""
    end: str = ""
    exact: bool = False

    @classmethod
    def of(cls, glob: str) -> Pattern | None:
        """The pattern of a glob; None if it is of another form."""
        # bytes of the command line that are not UTF-8 match nothing
        if any(c in "?[\ufffd\0" or "\ud800" <= c <= "\udfff" for c in glob):
            return None
        start, star, end = glob.partition("*")
        if not star:
            return cls(start, exact=True)
        return None if "*" in end else cls(start, end)


@dataclass(frozen=True)
class TextTest:
    """The text of `argument` matches one of `patterns` or, if `negated`, none of them."""

    event: Event
    argument: int
    negated: bool
    patterns: tuple[Pattern, ...]

    @property
    def _is_path(self) -> bool:
        return self.event.arguments[self.argument].form == PATH

    def terms(self) -> list[list[str]]:
        """C: for each pattern, the terms that must all hold for the current text to match."""
        make = path_terms if self._is_path else text_terms
        return [found or ["true"] for found in (make(pattern) for pattern in self.patterns) if found is not None]

    def read(self) -> str:
        """C: makes the argument the current text; false if the text cannot be decided."""
        found = f"early_{'path' if self._is_path else 'text'}(s, h, {self.argument})"
        # a path that differs below the process's own root may match in that form
        return f"{found} && !(h->flags & HEAD_OWN_ROOT)" if self._is_path and not self.negated else found

    def source(self) -> str:
        """C: returns `false` if the test fails. Texts that were not read completely pass."""
        fits = " || ".join(f"({' && '.join(terms)})" for terms in self.terms())
        return f"\tif ({self.read()} && {'' if self.negated else '!'}({fits}))\n\t\treturn false;\n"


Leaf = NumberTest | TextTest
MAX_LEAVES = 64


@dataclass(frozen=True)
class AnyOf:
    """The records of an event that signatures or policies can want: `leaves`, and a tree of their numbers without
    negations.
    """

    event: Event
    leaves: tuple[Leaf, ...]
    wanted: Tree[int]
    of_policies: bool = False
    """Policies want them. Such a test always holds; one of signatures only while the signatures of the start do."""

    def source(self) -> str:
        """C: returns `false` if nobody can want the record."""
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
        gate = "" if self.of_policies else "if (early_narrows()) "
        return f"\t{gate}{{\n" + "\n".join(lines) + "\n\t}\n"

    def _text(self, numbers: Sequence[int]) -> list[str]:
        """C: the hits of all tests of one text. A component is measured once for all patterns that need its length."""
        plain: list[str] = []
        measured: dict[tuple[str, ...], list[str]] = {}
        read = ""
        for number in numbers:
            leaf = self.leaves[number]
            assert isinstance(leaf, TextTest)
            read = leaf.read()
            for terms in leaf.terms():
                at = next((i for i, term in enumerate(terms) if term.startswith(MEASURE)), None)
                # a pattern that also measures something else does so separately
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


def _negated(_: str) -> str:
    raise ValueError("a test that the programs cannot decide must not discard a record")


_joined = Fold[int, str](
    leaf=lambda number: f"(hits & {1 << number:#x}ULL)",
    all_of=lambda parts: f"({' && '.join(parts)})" if parts else "1",
    any_of=lambda parts: f"({' || '.join(parts)})" if parts else "0",
    negate=_negated,
    certain=lambda part: part,
)
"""C: the combination of the tests that were hit."""


def _literal(value: int, kind: str) -> str:
    # the smallest 64-bit number has no literal in C
    return f"({kind}){value % 2**64:#x}ULL"


def _begins(data: bytes) -> list[str]:
    """C: the text begins with `data`, which is not longer than the text. The cached first bytes reject most texts."""
    head = data[:8]
    value = int.from_bytes(head, "little")
    first = f"(s->first & {(1 << 8 * len(head)) - 1:#x}ULL) == {value:#x}ULL"
    return [first] if len(data) <= 8 else [first, _same(data, "s->at")]


def _ends(data: bytes) -> list[str]:
    """C: the text ends with `data`, which is not longer than the text."""
    tail = data[-8:]
    last = f"(s->last >> {64 - 8 * len(tail)}) == {int.from_bytes(tail, 'little'):#x}ULL"
    return [last] if len(data) <= 8 else [last, _same(data, f"s->at + s->bytes - {len(data)}")]


def _same(data: bytes, at: str) -> str:
    """C: the bytes at the address `at` are `data`."""
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
    """C terms that must all hold for a text to match; None if the programs cannot decide it."""
    start, end = pattern.start.encode(), pattern.end.encode()
    if max(len(start), len(end)) > MAX_BYTES:
        return None
    terms = [f"s->bytes {'==' if pattern.exact else '>='} {len(start) + len(end)}"]
    return terms + (_begins(start) if start else []) + (_ends(end) if end else [])


def _components(names: Iterable[str]) -> bytes:
    return b"".join(name.encode() + b"\0" for name in reversed(list(names)))


def path_terms(pattern: Pattern) -> list[str] | None:
    """Like text_terms(), for a walked path: `/a/b` is stored as `b NUL a NUL / NUL`."""
    if pattern.exact:
        return _exact_path(pattern.start)
    if pattern.start == "/" and not pattern.end:
        return None  # matches everything except names without a directory
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
        # prefix and suffix must not overlap; the root takes two additional bytes of the blob
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
    # preceded by the NUL of the next component
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
    """Whether records of an event may be discarded. The process tree needs all lifecycle records."""
    return event.name not in LIFECYCLE and event.hook not in (None, "pipeline")


def of_signatures(tests: Sequence[Test]) -> tuple[AnyOf, ...]:
    """The tests for the records that signatures can match, one per event."""
    return tuple(test for test in tests if isinstance(test, AnyOf) and not test.of_policies)


def c_source(tests: Sequence[Test]) -> str:
    """The functions that early.h expects at EARLY_TESTS; "" without tests."""
    if not tests:
        return ""
    rules = of_signatures(tests)
    conditions = [test for test in tests if not isinstance(test, AnyOf) or test.of_policies]
    return _function("record_passes", conditions) + _function("record_wanted", rules)


def _function(name: str, tests: Sequence[Test]) -> str:
    of_event: dict[int, list[str]] = {}
    for test in tests:
        of_event.setdefault(test.event.id, []).append(test.source())
    # the map lookup is done only for events with tests
    begin = "\tu32 zero = 0;\n\tstruct early *s = earlies.lookup(&zero);\n\tif (!s)\n\t\treturn true;\n"
    cases = "".join(f"\tif (event == {n}) {{\n{begin}{''.join(parts)}\t}}\n" for n, parts in of_event.items())
    return f"static __always_inline bool {name}(const struct head *h, u32 event)\n{{\n{cases}\treturn true;\n}}\n"
