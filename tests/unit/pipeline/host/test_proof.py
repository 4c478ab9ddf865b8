"""What `headrace check --live` makes of what came."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.host.causes import ACTIONS, COMPAT_CALLS, OUTSIDE
from headrace.pipeline.host.features import Finding
from headrace.pipeline.host.proof import EXISTING, NAME, NOT_CAUSED, UNKNOWN_NUMBER, Proof, _plan, _proof

BOOKS = {"produced": 3, "delivered": 3, "lost": 0, "missed_runs": 0, "balanced": True} | {
    "lost_by_reason": {},
    "missed_by_program": {},
}
EVENTS = [catalogue().by_name[name] for name in ("openat", "unlinkat", "io_uring_create", "ipc", "loss")]


def proof(folder: Path, failed: dict[str, str], **books: object) -> Proof:
    (folder / "ledger").write_text(json.dumps(BOOKS | books))
    (folder / "events").write_text('{"eventName":"openat","args":[]}\n{"eventName":"openat"}\n')
    return _proof(EVENTS, folder, failed)


def test_what_was_caused_and_did_not_come_is_wrong_and_what_could_not_be_is_said(tmp_path: Path) -> None:
    found = proof(tmp_path, {"io_uring_create": "Operation not permitted", COMPAT_CALLS: "no 32-bit programs"})
    assert (found.arrived, found.missing) == ({"openat": 2}, ("unlinkat",))
    assert found.not_caused == {
        "io_uring_create": "Operation not permitted",
        "ipc": "no 32-bit programs",
        "loss": NOT_CAUSED["loss"],
    }
    summary, *others = found.findings()
    assert summary.detail == "1 events were caused and came, 1 did not; the ledger balances, 0 lost"
    assert [(f.name, f.ok, f.optional) for f in others] == [
        ("event unlinkat", False, False),
        *((f"event {name}", False, True) for name in found.not_caused),
    ]


@pytest.mark.parametrize(("books", "ok"), [({"balanced": False}, False), ({"lost": 1}, True)])
def test_books_that_do_not_close_are_wrong(tmp_path: Path, books: dict[str, object], ok: bool) -> None:
    summary = proof(tmp_path, {}, **books).findings()[0]
    assert (summary.name, summary.ok, summary.optional) == (NAME, ok, False)


def test_a_run_that_failed_is_one_finding(tmp_path: Path) -> None:
    found = proof(tmp_path, {"": "no namespaces of its own: Operation not permitted"})
    assert found.findings() == [Finding(NAME, False, "no namespaces of its own: Operation not permitted")]


def test_there_is_a_cause_for_every_event() -> None:
    known = {event.name for event in catalogue().by_id.values() if event.hook is not None}
    plan = _plan(known)
    assert (UNKNOWN_NUMBER, False) in plan
    swept = {call.event.name for call in catalogue().calls}
    acted = {event for events in (*ACTIONS.values(), *OUTSIDE.values()) for event in events.split()}
    assert acted <= known
    # these come by themselves
    always = {
        "device_add",
        "sys_enter",
        "sys_exit",
        "sched_process_fork",
        "sched_process_exit",
        "sched_switch",
        "cap_capable",
    }
    assert known - swept - acted - always == {*NOT_CAUSED, EXISTING, "init_namespaces"}
