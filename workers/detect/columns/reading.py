"""Selects the column that reads a field."""

from __future__ import annotations

from typing import Any

from headrace.workers.detect.columns.comparison import ComparisonColumn
from headrace.workers.detect.columns.members import MemberColumn
from headrace.workers.detect.columns.recorded import (
    AddressNumberColumn,
    BlobColumn,
    DescriptorColumn,
    NumberColumn,
    ResultColumn,
    TargetColumn,
    TextColumn,
)
from headrace.workers.detect.columns.subjects import CommandLineColumn, ContextColumn, ExecImageColumn, ImageColumn
from headrace.workers.detect.columns.view import Array, Column, Keys, ValueColumn, View
from headrace.workers.detect.rules.fields import EXEC, SOCKADDR_TYPE, Field, field_of
from headrace.workers.detect.rules.values import BYTES, NUMBER, Value, shown_number
from headrace.workers.views.pieces import VECTOR_TYPE


class ShownColumn(ValueColumn):
    """A number as text: `@hex` without 0x, `@dec`, or `@word`."""

    def __init__(self, column: Column, field: Field) -> None:
        self._column, self._field = column, field

    def keys(self, view: View, chosen: Array) -> Keys:
        return self._column.keys(view, chosen)

    def value(self, key: Any) -> Value:
        value = self._column.value(key)
        return shown_number(value, self._field.view, self._field.words) if isinstance(value, int) else None


def column_of(field: Field) -> Column:
    """The column that reads a field from rows."""
    found = _plain_column(field)
    return ShownColumn(found, field) if field.view else found


def _plain_column(field: Field) -> Column:
    if field.place == "result":
        return ResultColumn()
    if field.place == "context":
        return ContextColumn(field)
    if field.pair is not None:
        return ComparisonColumn(field.column, *map(column_of, field.pair))
    if field.place == "target":
        return TargetColumn(field)
    if field.place == "descriptor":
        return DescriptorColumn(field)
    if field.place == "image":
        return (_of_exec(field) if field.event.name == EXEC else None) or ImageColumn(field)
    if field.member is not None:
        return MemberColumn(field.event, field.argument, field.column, field.element or 0, field.member)
    if field.type == SOCKADDR_TYPE and field.kind == NUMBER:
        return AddressNumberColumn(field)
    if field.type in (VECTOR_TYPE, SOCKADDR_TYPE) or field.kind == BYTES:
        return BlobColumn(field)
    return NumberColumn(field) if field.kind == NUMBER or field.view else TextColumn(field.event, field.argument)


def _of_exec(field: Field) -> Column | None:
    """For an exec, the column that reads the process's own image from the record; None for other images."""
    event = field.event
    if field.column == "process.image":
        return ExecImageColumn(event)
    name = {"process.path": "pathname", "process.cwd": "pwd", "process.command_line": "argv"}.get(field.column)
    if name is None:
        return None
    found = field_of(event, name)
    return CommandLineColumn(found) if name == "argv" else TextColumn(event, found.argument)
