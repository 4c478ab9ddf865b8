"""Conditions on a part of an argument (`connect.addr.port=53`, `bpf.attr.prog_type=BPF_PROG_TYPE_KPROBE`).

Signatures call such a part a field, and conditions read it through the same columns. This module is loaded only if a
run has such a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import Condition, FilterError
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.view import View, listed
from headrace.workers.detect.rules.fields import Field, FieldError, field_of
from headrace.workers.detect.rules.values import NUMBER, TextValue
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]


def field_for(condition: Condition) -> Field:
    """The field that a condition tests. Raises FilterError if there is no such field, or if it is text and the
    operator is neither = nor !=.
    """
    name = condition.event.arguments[condition.argument or 0].name + condition.member
    try:
        found = field_of(condition.event, name)
    except FieldError as error:
        raise FilterError(f"{condition.text}: {error}") from error
    if found.kind != NUMBER and condition.op not in ("=", "!="):
        raise FilterError(f"{condition.text}: {name} is text, it takes = and !=")
    return found


class Parts:
    """Values of one such field in rows of its event."""

    def __init__(self, condition: Condition, counts: Array) -> None:
        self.field = field_for(condition)
        self._column, self._counts = column_of(self.field), counts
        self._tree = ProcessTree(catalogue())

    def values(self, rows: Rows, contexts: Contexts, chosen: Array) -> Sequence[Any]:
        """For each chosen row: a number, the readings of a text, or None if the value is unknown or truncated."""
        view = View(rows, contexts, self._tree, self._counts, chosen)
        found = [self._column.value(key) for key in listed(self._column.keys(view, chosen))]
        return [
            None if isinstance(v, TextValue) and v.cut else v.parts if isinstance(v, TextValue) else v for v in found
        ]
