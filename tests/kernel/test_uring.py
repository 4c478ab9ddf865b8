"""Operations that go around the system calls: io_uring, on the live kernel."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.host.btf import Btf, UnknownMember
from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.host.features import event_lack
from tests.live import Traced, arguments, compile_c, details, trace

LACK = event_lack(catalogue().by_name["io_uring_submit"])
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(bool(LACK), reason=LACK)]


ADDRESSES = {"BIND": "127.1.2.3", "SENDMSG": "127.4.5.6", "CONNECT": "127.4.5.6"}
"""What the program gives to each."""


def _known() -> list[str]:
    """Those that this kernel has: BIND came with 6.11."""
    with contextlib.suppress(UnknownMember):
        Btf.of_kernel().enumerator("io_uring_op", "IORING_OP_BIND")
        return list(ADDRESSES)
    return [name for name in ADDRESSES if name != "BIND"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(Path(__file__).with_name("uring.c"), tmp_path_factory.mktemp("binaries") / "uring")


def ran(program: Path, folder: Path, *options: str) -> tuple[Traced, dict[int, int], int]:
    """The traced run, the result of each operation by its user_data, and the ring's descriptor."""
    traced = trace(
        [str(program), str(folder), *options],
        *("-e", "io_uring_create,io_uring_submit,openat,write,unlinkat,renameat,renameat2,close"),
    )
    assert traced.status == 0, traced.errors
    first, *rest = (line.split() for line in traced.out.splitlines())
    assert traced.ledger["balanced"]
    return traced, {int(user): int(result) for user, result in rest}, int(first[1])


@pytest.mark.parametrize("polled", [False, True])
def test_each_operation_is_told_with_its_file_and_its_names(program: Path, tmp_path: Path, polled: bool) -> None:
    traced, results, ring = ran(program, tmp_path, *(["sqpoll"] if polled else []))
    (created,) = (e for e in traced.events if e["eventName"] == "io_uring_create")
    assert arguments(created) | {"cq_entries": 0} == {
        "fd": ring,
        "sq_entries": 4,
        "cq_entries": 0,
        "flags": "IORING_SETUP_SQPOLL" if polled else "0",
        "polling": polled,
    }
    told: dict[str, dict[str, Any]] = {}
    for event in traced.events:
        if event["eventName"] == "io_uring_submit":
            found = arguments(event)
            told[found["opcode"]] = found
            assert event["hostProcessId"] == created["hostProcessId"]
            assert found["user_data"] in results
    submitted = {found["user_data"] for found in told.values()}
    files = ("NOP", "OPENAT", "WRITE", "RENAMEAT", "UNLINKAT", "CLOSE")
    assert list(told) == [f"IORING_OP_{name}" for name in (*files, *_known())]
    for name, ip in ((name, ADDRESSES[name]) for name in _known()):
        one = told[f"IORING_OP_{name}"]
        assert (one["addr"] or {}).get("sin_addr") == ip, name
    bound = told.get("IORING_OP_BIND", {}).get("user_data")
    assert all(result >= 0 for user, result in results.items() if user in submitted and user != bound)
    opened, written = told["IORING_OP_OPENAT"], told["IORING_OP_WRITE"]
    renamed, removed = told["IORING_OP_RENAMEAT"], told["IORING_OP_UNLINKAT"]
    # the directory that a name starts from, and the file that a descriptor is
    assert (opened["pathname"], opened["inode"]) == (str(tmp_path), tmp_path.stat().st_ino)
    assert (opened["name"], opened["new_name"]) == ("made", None)
    assert written["fd"] == results[opened["user_data"]]
    assert (written["pathname"], written["name"]) == (f"{tmp_path}/made", None)
    assert (renamed["pathname"], renamed["name"], renamed["new_name"]) == (str(tmp_path), "made", "renamed")
    assert (removed["fd"], removed["pathname"], removed["name"]) == (-100, str(tmp_path), "renamed")
    assert told["IORING_OP_CLOSE"]["fd"] == results[opened["user_data"]]
    assert told["IORING_OP_NOP"]["inode"] is None
    for event in traced.events:
        if event["eventName"] == "io_uring_submit":
            assert not [a for a in event["args"] if a["value"] is None and "raw" in a]


def test_nothing_of_it_is_a_system_call(program: Path, tmp_path: Path) -> None:
    traced, _, _ = ran(program, tmp_path)
    calls = {
        (e["eventName"], arguments(e).get("pathname")) for e in traced.events if e["eventName"] != "io_uring_submit"
    }
    assert not {"made", "renamed"} & {path for _, path in calls}
    submitted = next(e for e in traced.events if e["eventName"] == "io_uring_submit" and arguments(e)["name"] == "made")
    assert details(submitted, "name")["source"] == "kernel"
