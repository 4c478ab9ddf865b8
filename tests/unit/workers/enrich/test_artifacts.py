"""Which artifacts the rows of a turn speak of."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.capture import EVENTS, KINDS, Capture
from headrace.pipeline.capture.requests import ArtifactRequest
from headrace.workers.enrich.artifacts import NAMINGS, Artifacts
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import Blob, Record, frame, view

EPOCH = 1_000_000
WALKED = b"name\0tmp\0/\0"
KERNEL = 1 << 4
"""A status: read from the kernel's objects."""


class Asked:
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.requests: list[ArtifactRequest] = []

    def ask(self, request: ArtifactRequest) -> None:
        self.requests.append(request)


def id_of(name: str) -> int:
    return catalogue().by_name[name].id


def record(name: str, values: dict[str, int], retval: int = 0, path: bytes = b"", **more: Any) -> Record:
    event = catalogue().by_name[name]
    args = [0] * event.cells
    for argument, value in values.items():
        index = event.index(argument)
        assert index is not None
        args[index] = value
    blobs = (Blob(event.index("pathname") or 0, path, KERNEL),) if path else ()
    return Record(event.id, 5, tuple(args), retval, blobs=blobs, **more)


def asked(*records: Record, **capture: Any) -> list[ArtifactRequest]:
    contexts, found = Contexts(), Asked()
    rows = read_frames([view(frame(records))], contexts).rows
    chosen = Capture(**({"kinds": frozenset(KINDS)} | capture))
    Artifacts(catalogue(), chosen, found, EPOCH).take(rows, contexts)
    return found.requests


def test_every_member_is_an_argument_of_its_event() -> None:
    assert {*NAMINGS} == {name for names in EVENTS.values() for name in names}
    for name, naming in NAMINGS.items():
        for argument in naming.members.values():
            assert catalogue().by_name[name].index(argument) is not None, (name, argument)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (
            record("sched_process_exec", {"dev": 1, "inode": 2, "ctime": 3}, path=WALKED),
            {"kind": "exec", "device": 1, "inode": 2, "place": 3, "path": b"/tmp/name"},
        ),
        (
            record("security_file_open", {"flags": 2, "dev": 1, "inode": 2}, path=WALKED),
            {"kind": "write", "device": 1, "inode": 2, "path": b"/tmp/name"},
        ),
        (record("vfs_write", {"dev": 1, "inode": 2}), {"kind": "write", "device": 1, "inode": 2}),
        (record("module_load", {"dev": 1, "inode": 2, "ctime": 3}), {"kind": "module", "inode": 2, "place": 3}),
        (record("init_module", {"module_image": 4096, "len": 7}), {"kind": "module", "place": 4096, "extent": 7}),
        (record("finit_module", {"fd": 5}), {"kind": "module", "extent": 5}),
        (record("bpf", {"cmd": 5}, retval=9), {"kind": "bpf", "extent": 9}),
        (
            record("mem_prot_alert", {"addr": 4096, "len": 8192, "prot": 5}),
            {"kind": "mem", "place": 4096, "extent": 8192},
        ),
    ],
)
def test_an_event_names_its_artifact(made: Record, wanted: dict[str, Any]) -> None:
    (request,) = asked(made)
    assert {name: getattr(request, name) for name in wanted} == wanted
    assert request.time_ns > EPOCH
    assert request.pid


@pytest.mark.parametrize(
    "made",
    [
        record("security_file_open", {"flags": 0, "dev": 1, "inode": 2}),
        record("init_module", {"module_image": 4096}, retval=-1),
        record("bpf", {"cmd": 5}, retval=-1),
        record("bpf", {"cmd": 0}, retval=9),
        record("mem_prot_alert", {"addr": 4096, "len": 1, "prot": 3}),
    ],
)
def test_other_rows_name_none(made: Record) -> None:
    assert asked(made) == []


def test_a_written_file_is_asked_for_once_in_a_turn() -> None:
    writes = [record("vfs_write", {"dev": 1, "inode": 2})] * 3
    program = record("sched_process_exec", {"dev": 1, "inode": 2, "ctime": 3})
    assert [request.kind for request in asked(program, *writes, program)] == ["exec", "exec", "write"]


def test_only_what_is_wanted_is_asked_for() -> None:
    made = record("vfs_write", {"dev": 1, "inode": 2}), record("bpf", {"cmd": 5}, retval=9)
    assert [request.kind for request in asked(*made, kinds=frozenset({"bpf"}))] == ["bpf"]
