"""Columns for Python users: numpy structured arrays, and Arrow tables with a column for each argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.bpf.layout import CONTEXT
from headrace.pipeline.transport.wire import WireError

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
OF_A_ROW = {"timestamp": "<u8", "event": "<u2", "cpu": "<u2", "retval": "<i8", "flags": "<u2"}
"""Columns that each row has for itself (docs/reference/wire.md)."""
ARGS = "args."
"""Before the name of an argument, where each has a column."""


def structured(sections: Mapping[str, Array], arguments: Sequence[str] = ()) -> Array:
    """Sections of the format `columns` as one structured array: a row an event, with the fields of its context.

    `arguments`: names of the event's arguments, if all rows are of one event: fields `args.NAME`, `<u8`, the raw
    values. WireError if the sections do not fit each other.
    """
    try:
        count, who = len(sections["timestamp"]), sections["context"]
        contexts = sections["contexts"]
        for name in (*OF_A_ROW, "context"):
            if len(sections[name]) != count or sections[name].dtype.kind not in "ui":
                raise WireError(f"section {name} has another length or type")
        if contexts.dtype != CONTEXT:
            raise WireError("section contexts has another type")
        fields = [*OF_A_ROW.items(), *((name, CONTEXT[name]) for name in CONTEXT.names or ())]
        found = np.zeros(count, [*fields, *((f"{ARGS}{name}", "<u8") for name in arguments)])
        for name in OF_A_ROW:
            found[name] = sections[name]
        for name in CONTEXT.names or ():
            found[name] = contexts[name][who]
        if arguments:
            values = sections["args"].reshape(count, len(arguments))
            for index, name in enumerate(arguments):
                found[f"{ARGS}{name}"] = values[:, index]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise WireError(f"sections that do not fit each other: {error}") from error
    return found


def by_event(table: pa.Table) -> dict[str, pa.Table]:
    """An Arrow table of events (docs/reference/wire.md) as one table for each event, in the order of their names.

    The list `args` becomes two columns for each argument: `args.NAME` has its text, as JSON lines show it, and
    `args.NAME.raw` the number. Rows keep their order.
    """
    import pyarrow.compute as pc

    names = sorted(pc.unique(table.column("eventName")).to_pylist())
    return {name: _spread(table.filter(pc.equal(table.column("eventName"), name))) for name in names}


def _spread(table: pa.Table) -> pa.Table:
    """All rows are of one event, and have the same arguments."""
    lists = table.column("args").combine_chunks()
    table = table.drop_columns(["args"])
    if not len(lists):
        return table
    arguments = lists[0].as_py()
    entries = lists.flatten()
    if len(entries) != len(lists) * len(arguments):
        raise WireError("events of one name with different numbers of arguments")
    names, values, raws = entries.field("name"), entries.field("value"), entries.field("raw")
    for index, argument in enumerate(arguments):
        # every so many entries: the same argument of each row
        at = np.arange(index, len(entries), len(arguments))
        if names.take(at).unique().to_pylist() != [argument["name"]]:
            raise WireError("events of one name with different arguments")
        table = table.append_column(f"{ARGS}{argument['name']}", values.take(at))
        table = table.append_column(f"{ARGS}{argument['name']}.raw", raws.take(at))
    return table


def data_frame(table: pa.Table) -> Any:
    """An Arrow table as a polars.DataFrame."""
    import polars

    return polars.from_arrow(table)
