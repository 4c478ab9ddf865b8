"""The data of findings: the fields that rules show of the events that they match."""

from __future__ import annotations

import base64
from typing import NamedTuple

import msgspec

from headrace.bpf.tables.catalogue import Event
from headrace.config.rules import Rule
from headrace.config.tree import leaves
from headrace.workers.detect.rules.fields import Field, FieldError, field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.values import NUMBER, TextValue, Value
from headrace.workers.views.json_lines import encode
from headrace.workers.views.pieces import VECTOR_TYPE
from headrace.workers.views.style import text


class DataField(NamedTuple):
    """One data field of a rule, on one event."""

    name: str
    field: Field
    of: Matcher | None
    """For a vector: the tests that the rule has on it."""

    def shown(self, value: Value) -> object:
        """The value as a finding shows it."""
        return shown(self.field, value, self.of)

    def said(self, value: Value) -> dict[str, object]:
        """The shown value under its name. If its bytes are not UTF-8, they are added as base64 under `NAMEBase64`."""
        found = {self.name: self.shown(value)}
        if isinstance(value, TextValue) and "\ufffd" in encode(found[self.name]):
            exact = b"\0".join(_parts(self.field, value, self.of))
            found[f"{self.name}Base64"] = base64.b64encode(exact).decode()
        return found


def data_fields(rule: Rule, event: Event) -> list[DataField]:
    """The data fields of a rule on one of its events, without those that the event does not have."""
    found = []
    for name, source in rule.data.items():
        try:
            field = field_of(event, source)
        except FieldError:
            continue
        asked = [test for test in leaves(rule.events[event.name]) if test.field == source]
        whole = field.type == VECTOR_TYPE and field.element is None
        found.append(DataField(name, field, Matcher(field, asked) if whole and asked else None))
    return found


def same_fields(rule: Rule) -> Rule:
    """A copy of the rule whose data fields are those in `by` of its threshold."""
    by = rule.threshold.by if rule.threshold else ()
    return msgspec.structs.replace(rule, data={name: name for name in by})


def _parts(field: Field, value: TextValue, of: Matcher | None) -> tuple[bytes, ...]:
    """For a vector, the elements for which a test holds, or all if there are no tests; else the first reading."""
    if field.type != VECTOR_TYPE or field.element is not None:
        return value.parts[:1]
    return tuple(p for p in value.parts if of is None or of.verdicts(TextValue((p,))).true)


def shown(field: Field, value: Value, of: Matcher | None = None) -> object:
    """A field's value for people: flags as words, bytes as base64, texts as text. For a vector, the elements for which
    one of the rule's tests (`of`) holds.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, TextValue):
        parts = [text(p) for p in _parts(field, value, of)]
        return parts if field.type == VECTOR_TYPE and field.element is None else "".join(parts)
    if field.is_bool:
        return bool(value)
    return field.words(value & 0xFFFFFFFFFFFFFFFF) if field.words and field.kind == NUMBER else value
