"""Translates conditions into tests for the BPF programs (bpf/programs/early.py).

A test may discard a record only if workers/conditions/filters.py would certainly reject it. For words, the test
requires the bits that all values of the word have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from headrace.bpf.layout import KIND_STRING
from headrace.bpf.programs.early import Leaf, NumberTest, Pattern, TextTest, is_early, path_terms, text_terms
from headrace.bpf.tables import words
from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.reads import PATH, ROOT
from headrace.config.filters import Condition, integer
from headrace.workers.decode.flags import parser_of
from headrace.workers.decode.numbers import Parser, table_of
from headrace.workers.decode.texts import TEXT_TYPES
from headrace.workers.decode.words import sample_values
from headrace.workers.views.pieces import VECTOR_TYPE

RANGES = {"s32": (-(2**31), 2**31 - 1), "u32": (0, 2**32 - 1), "s64": (-(2**63), 2**63 - 1), "u64": (0, 2**64 - 1)}


def early_tests(conditions: Sequence[Condition]) -> tuple[Leaf, ...]:
    """Tests for the conditions that the BPF programs can decide, completely or in part."""
    found = (_test(condition) for condition in conditions if is_early(condition.event) and not condition.member)
    return tuple(test for test in found if test is not None)


def _test(condition: Condition) -> Leaf | None:
    if condition.argument is None:
        return _number(condition, "s64", None)
    argument = condition.event.arguments[condition.argument]
    if argument.type in TEXT_TYPES:
        return text_test(condition.event, condition.argument, condition.values, condition.op == "!=")
    if argument.type == VECTOR_TYPE or argument.type == "bool" or argument.form == ROOT:
        return None
    return _number(condition, argument.width, parser_of(condition.event.name, argument.name, argument.type))


def _number(condition: Condition, cast: str, parser: Parser | None) -> Leaf | None:
    values, masks = [], []
    for text in condition.values:
        if text.lstrip("-")[:1].isdigit():
            value = integer(text)
            if RANGES[cast][0] <= value <= RANGES[cast][1]:
                values.append(value)
            elif condition.op not in ("=", "!="):
                return None
        elif condition.op == "=":
            mask = common_bits(parser, text) if parser else 0
            if not mask:
                return None
            masks.append(mask)
    if not values and not masks:
        return None
    return NumberTest(condition.event, condition.argument, cast, condition.op, tuple(values), tuple(masks))


@cache
def _producers(parser: Parser) -> dict[str, int]:
    """Maps each word and each combination of words that a parser can return to the bits common to all its values."""
    table = table_of(parser)
    if table is not None:
        return words.numbers_of(table)
    found: dict[str, int] = {}
    for value in sample_values():
        text = parser(value)
        for word in {text, *text.split("|")}:
            found[word] = found.get(word, value) & value
    return found


def common_bits(parser: Parser, text: str) -> int:
    """Bits set in every value whose words are `text` or include it; 0 if no common bits are known."""
    known = _producers(parser)
    bits = 0
    for word in text.split("|"):
        if word not in known:
            return 0
        bits |= known[word]
    return bits


def text_test(event: Event, argument: int, globs: Sequence[str], negated: bool = False) -> TextTest | None:
    """A test that discards a record if its text certainly matches none of the globs or, if `negated`, certainly
    matches one of them. None if the programs cannot decide this.
    """
    form = event.arguments[argument].form
    is_string = any(blob.arg == argument and blob.kind == KIND_STRING for blob in event.blobs)
    if form not in (PATH, "", "kernel") or (event.is_syscall and not is_string):
        return None
    make = path_terms if form == PATH else text_terms
    found = [Pattern.of(glob) for glob in globs]
    sure = tuple(pattern for pattern in found if pattern is not None and make(pattern) is not None)
    return TextTest(event, argument, negated, sure) if sure and (negated or len(sure) == len(globs)) else None
