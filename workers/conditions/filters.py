"""Argument conditions as column predicates: evaluated once per distinct value, cached, applied as masks.

Evaluation is three-valued. An argument that could not be read makes a condition unknown, and an unknown condition
does not match, negated or not.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.bpf.layout import HEAD_OWN_ROOT
from headrace.bpf.tables.catalogue import LOSS, Catalogue, Event, did_you_mean
from headrace.bpf.tables.reads import NAME, PATH
from headrace.bpf.tables.widths import number
from headrace.config.filters import Condition, FilterError, integer
from headrace.workers.decode.ignored import Ignored
from headrace.workers.decode.meaning import Commanded, decides, pointing, words_of
from headrace.workers.decode.numbers import Parser
from headrace.workers.decode.texts import TEXT_TYPES, Texts
from headrace.workers.decode.words import known_words
from headrace.workers.records.blobs import Blobs, argument_counts, blobs, used
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.pieces import VECTOR_TYPE

if TYPE_CHECKING:
    from headrace.workers.conditions.parts import Parts

Array = np.ndarray[Any, Any]
CACHE_ENTRIES = 1 << 16
"""Maximum verdicts that a condition caches. A full cache is cleared."""
Test = Callable[[Any], bool]


def _number_test(condition: Condition, width: str, parser: Parser | None) -> Test:
    """Test of a number, or of a (number, command) pair whose command selects the words."""

    def test(given: int | tuple[int, int]) -> bool:
        raw = Commanded.of(*given) if isinstance(given, tuple) else given
        value = number(raw, width)
        if condition.op in ("=", "!="):
            words = parser(raw) if parser else ""
            hit = any(v == words or v in words.split("|") or _same_number(v, value) for v in condition.values)
            return hit == (condition.op == "=")
        return _compared(condition.op, value, integer(condition.values[0]))

    return test


def _compared(op: str, value: int, other: int) -> bool:
    return {"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}[op]


def _same_number(text: str, value: int) -> bool:
    try:
        return integer(text) == value
    except ValueError:
        return False


def _text_test(condition: Condition) -> Test:
    """Test of the readings of one text. A path has a second reading if the process has its own root."""

    def test(readings: tuple[bytes, ...]) -> bool:
        shown = [data.decode("utf-8", "replace") for data in readings]
        hit = any(fnmatch.fnmatchcase(text, pattern) for text in shown for pattern in condition.values)
        return hit == (condition.op == "=")

    return test


def check_words(conditions: Sequence[Condition]) -> None:
    """Raises FilterError if a condition names a word that its argument does not have."""
    for condition in conditions:
        if condition.argument is None:
            continue
        argument = condition.event.arguments[condition.argument]
        if condition.member:
            _check_part(condition)
            continue
        named = [w for v in condition.values for w in v.split("|") if w and not w.lstrip("-")[0].isdigit()]
        if argument.type in (*TEXT_TYPES, VECTOR_TYPE) or not named:
            continue
        parser = words_of(condition.event, condition.argument)
        known = known_words(parser) if parser else set()
        for word in named:
            if word not in known and argument.name != "syscall":
                raise FilterError(f"{condition.text}: {argument.name} has no {word}{did_you_mean(word, known)}")


def _check_part(condition: Condition) -> None:
    from headrace.workers.conditions.parts import field_for  # loaded on demand

    field = field_for(condition)
    known = known_words(field.words) if field.words else set()
    for value in condition.values if field.kind == "number" else ():
        for word in value.split("|"):
            if word not in known and not re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|\d+)", word):
                raise FilterError(f"{condition.text}: {field.name} has no {word}" + did_you_mean(word, known))


class Predicates:
    """All conditions of a run. A call with rows and contexts returns the mask of rows to keep."""

    def __init__(
        self, catalogue: Catalogue, conditions: Sequence[Condition], only: Sequence[Event] | None = None
    ) -> None:
        self._counts = argument_counts(catalogue)
        self._parts = {c: self._part(c) for c in conditions if c.member}
        self._conditions: list[tuple[Condition, Test, dict[Any, bool]]] = [(c, self._test(c), {}) for c in conditions]
        self._readers: dict[tuple[int, int], Texts] = {}
        self._unused: dict[tuple[int, int], Ignored] = {}
        self.unknown = 0
        """How often a condition was undecided because its text could not be read. Such a condition does not match."""
        # loss events are always reported
        shown = None if only is None else [catalogue.by_name[LOSS].id, *(event.id for event in only)]
        self._only = None if shown is None else np.isin(np.arange(1 << 16), shown)

    def take_unknown(self) -> int:
        """Returns `unknown` and resets it."""
        count, self.unknown = self.unknown, 0
        return count

    def _test(self, condition: Condition) -> Test:
        if condition.argument is None:
            wanted = {int(v) for v in condition.values}
            if condition.op in ("=", "!="):
                return lambda value: (value in wanted) == (condition.op == "=")
            return lambda value: all(_compared(condition.op, value, other) for other in wanted)
        if condition.member:
            field = self._parts[condition].field
            return (
                _number_test(condition, field.width, field.words) if field.kind == "number" else _text_test(condition)
            )
        argument = condition.event.arguments[condition.argument]
        if argument.type in TEXT_TYPES or argument.type == VECTOR_TYPE:
            return _text_test(condition)
        return _number_test(condition, argument.width, words_of(condition.event, condition.argument))

    def _part(self, condition: Condition) -> Parts:
        from headrace.workers.conditions.parts import Parts  # loaded on demand

        return Parts(condition, self._counts)

    def __call__(self, rows: Rows, contexts: Contexts) -> Array:
        stays = np.ones(len(rows), bool) if self._only is None else self._only[rows.event].copy()
        found = None
        for condition, test, memory in self._conditions:
            chosen = np.flatnonzero((rows.event == condition.event.id) & stays)
            if not len(chosen):
                continue
            if condition.argument is None:
                values: Sequence[Any] = rows.retval[chosen].tolist()
            elif condition.member:
                values = self._parts[condition].values(rows, contexts, chosen)
            elif condition.event.arguments[condition.argument].type in (*TEXT_TYPES, VECTOR_TYPE):
                found = found if found is not None else blobs(rows, self._counts)
                values = self._texts(rows, chosen, found, condition)
            else:
                values = self._numbers(rows, condition.event, condition.argument, chosen)
            if (ignored := self._ignored(condition)) and (mask := ignored.of(rows, chosen)).any():
                stays[chosen[mask]] = False  # the kernel ignores the argument: no value to test
                values, chosen = list(compress(values, ~mask)), chosen[~mask]
            self.unknown += sum(v is None for v in values)
            stays[chosen] = [self._verdict(test, memory, v) for v in values]
        return stays

    @staticmethod
    def _numbers(rows: Rows, event: Event, index: int, chosen: Array) -> Sequence[Any]:
        raws: list[int] = used(rows, event, index, chosen).tolist()
        of, mask, _ = decides(event, event.arguments[index])
        if of < 0:
            return raws
        commands = (used(rows, event, of, chosen) & np.uint64(mask)).tolist()
        pointers = pointing(event, event.arguments[index])
        return [None if c in pointers else (raw, c) for raw, c in zip(raws, commands, strict=True)]

    def _ignored(self, condition: Condition) -> Ignored | None:
        if condition.argument is None:
            return None
        key = condition.event.id, condition.argument
        if key not in self._unused:
            self._unused[key] = Ignored(condition.event, condition.argument)
        return self._unused[key]

    @staticmethod
    def _verdict(test: Test, memory: dict[Any, bool], value: Any) -> bool:
        if value is None:
            return False
        verdict = memory.get(value)
        if verdict is None:
            if len(memory) >= CACHE_ENTRIES:
                memory.clear()
            verdict = memory[value] = test(value)
        return verdict

    def _texts(
        self, rows: Rows, chosen: Array, found: Blobs, condition: Condition
    ) -> Sequence[tuple[bytes, ...] | None]:
        texts = [text.known for text in self._reader(condition, "").read(rows, chosen, found)]
        path = condition.event.arguments[condition.argument or 0]
        own_root = (rows.flags[chosen] & HEAD_OWN_ROOT).astype(bool)
        if path.form not in (PATH, NAME) or not own_root.any():
            return [None if text is None else (text,) for text in texts]
        own = [text.known for text in self._reader(condition, "root_").read(rows, chosen, found)]
        return [
            None if text is None else (text,) if below is None or not chrooted else (text, below)
            for text, below, chrooted in zip(texts, own, own_root.tolist(), strict=True)
        ]

    def _reader(self, condition: Condition, prefix: str) -> Texts:
        event = condition.event
        index = event.index(prefix + event.arguments[condition.argument or 0].name)
        assert index is not None
        key = event.id, index
        if key not in self._readers:
            self._readers[key] = Texts(event, index)
        return self._readers[key]
