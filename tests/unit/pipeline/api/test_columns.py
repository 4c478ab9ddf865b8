"""Columns for Python users: sections that do not fit each other, and events whose arguments differ, are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.bpf.layout import CONTEXT
from headrace.pipeline.api.columns import by_event, structured
from headrace.pipeline.transport.wire import WireError
from headrace.workers.views.arrow import ARGUMENT


def sections(rows: int = 2, contexts: int = 2) -> dict[str, Any]:
    found = {
        "timestamp": np.arange(rows, dtype="<u8"),
        "event": np.full(rows, 7, "<u2"),
        "context": np.arange(rows, dtype="<u4"),
        "cpu": np.zeros(rows, "<u2"),
        "retval": np.full(rows, -2, "<i8"),
        "flags": np.zeros(rows, "|u1"),
        "contexts": np.zeros(contexts, CONTEXT),
        "args": np.arange(2 * rows, dtype="<u8"),
    }
    found["contexts"]["tgid"] = 100 + np.arange(contexts)
    return found


def test_each_row_has_the_fields_of_its_context_and_its_arguments() -> None:
    found = structured(sections(), ("fd", "count"))
    assert found["tgid"].tolist() == [100, 101]
    assert found["retval"].tolist() == [-2, -2]
    assert found["args.fd"].tolist() == [0, 2]
    assert found["args.count"].tolist() == [1, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("context"),
        lambda s: s.update(contexts=np.zeros(1, CONTEXT)),
        lambda s: s.update(cpu=np.zeros(3, "<u2")),
        lambda s: s.update(args=np.zeros(3, "<u8")),
        lambda s: s.update(timestamp=np.zeros(5, "<u8")),
        lambda s: s.update(retval=np.zeros(1, "<i8")),
        lambda s: s.update(timestamp=np.zeros(2, CONTEXT)),
        lambda s: s.update(contexts=np.zeros(2, "<u8")),
    ],
    ids=["missing", "context", "lengths", "arguments", "rows", "one", "records", "numbers"],
)
def test_sections_that_do_not_fit_each_other_are_refused(change: Any) -> None:
    found = sections()
    change(found)
    with pytest.raises(WireError):
        structured(found, ("fd", "count"))


def table(*rows: tuple[str, list[tuple[str, str | None, int | None]]]) -> pa.Table:
    arguments = [[{"name": n, "value": v, "raw": r} for n, v, r in args] for _, args in rows]
    return pa.table(
        {"eventName": pa.array([name for name, _ in rows]), "args": pa.array(arguments, pa.list_(ARGUMENT))}
    )


def test_a_table_is_split_by_event_with_a_column_for_each_argument() -> None:
    found = by_event(
        table(
            ("openat", [("pathname", "/a", 1), ("flags", "O_RDONLY", 0)]),
            ("getppid", []),
            ("openat", [("pathname", None, 2), ("flags", "O_RDWR", 2)]),
        )
    )
    assert list(found) == ["getppid", "openat"]
    assert found["getppid"].column_names == ["eventName"]
    assert found["openat"]["args.pathname"].to_pylist() == ["/a", None]
    assert found["openat"]["args.flags.raw"].to_pylist() == [0, 2]


@pytest.mark.parametrize(
    "other", [[("pathname", "/a", 1)], [("pathname", "/a", 1), ("mode", "0", 0)]], ids=["number", "names"]
)
def test_events_of_one_name_with_other_arguments_are_refused(other: list[tuple[str, str | None, int | None]]) -> None:
    with pytest.raises(WireError):
        by_event(table(("openat", [("pathname", "/a", 1), ("flags", "O_RDONLY", 0)]), ("openat", other)))
