"""The data of findings: what rules show of the events that they match."""

from __future__ import annotations

import base64
from typing import NamedTuple

import msgspec

from headrace.bpf.tables.catalogue import Event
from headrace.config.conditions import tests
from headrace.config.rules import Rule
from headrace.workers.detect.rules.fields import Field, FieldError, field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.values import NUMBER, Text, Value
from headrace.workers.views.json_lines import encode
from headrace.workers.views.pieces import VECTOR_TYPE
from headrace.workers.views.style import text


class DataField(NamedTuple):
    """One data field of a rule, on one event."""

    name: str
    field: Field
    of: Matcher | None
    """Of a vector: the tests that the rule makes of it."""

    def shown(self, value: Value) -> object:
        """What a finding shows."""
        return shown(self.field, value, self.of)

    def said(self, value: Value) -> dict[str, object]:
        """The same under its name, with its exact bytes beside it where those are not UTF-8."""
        found = {self.name: self.shown(value)}
        if isinstance(value, Text) and "\ufffd" in encode(found[self.name]):
            exact = b"\0".join(_parts(self.field, value, self.of))
            found[f"{self.name}Base64"] = base64.b64encode(exact).decode()
        return found


def data_fields(rule: Rule, event: Event) -> list[DataField]:
    """The data fields of a rule on one of its events, without those that this event cannot have."""
    found = []
    for name, source in rule.data.items():
        try:
            field = field_of(event, source)
        except FieldError:
            continue
        asked = [test for test in tests(rule.events[event.name]) if test.field == source]
        whole = field.type == VECTOR_TYPE and field.element is None
        found.append(DataField(name, field, Matcher(field, asked) if whole and asked else None))
    return found


def same_fields(rule: Rule) -> Rule:
    """A rule that shows what is the same about the matches that its threshold counts together."""
    by = rule.threshold.by if rule.threshold else ()
    return msgspec.structs.replace(rule, data={name: name for name in by})


def _parts(field: Field, value: Text, of: Matcher | None) -> tuple[bytes, ...]:
    """The first reading of a text; of a vector its elements."""
    if field.type != VECTOR_TYPE or field.element is not None:
        return value.parts[:1]
    return tuple(p for p in value.parts if of is None or of.verdicts(Text((p,))).true)


def shown(field: Field, value: Value, of: Matcher | None = None) -> object:
    """A field's value for people: flags in words, texts as text; of a vector the elements that a rule asks for."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Text):
        parts = [text(p) for p in _parts(field, value, of)]
        return parts if field.type == VECTOR_TYPE and field.element is None else "".join(parts)
    if field.is_bool:
        return bool(value)
    return field.words(value & 0xFFFFFFFFFFFFFFFF) if field.words and field.kind == NUMBER else value
