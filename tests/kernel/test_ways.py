"""A call is the one that the kernel ran, whatever way it was made: nothing is hidden by how it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import Traced, arguments, compile_c, trace

pytestmark = pytest.mark.kernel
EVENTS = (
    "openat,security_file_open,socket,connect,security_socket_create,security_socket_connect,socketcall,shmget,"
    "unknown_syscall,listns,execveat,accept4,getpeername,getsockname,recvfrom,recvmsg,sendmsg,sendmmsg,"
    "mmap,old_mmap,old_select,select,mem_prot_alert,shared_object_loaded,commit_creds,exit_group"
)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    program = compile_c(Path(__file__).with_name("ways.c"), tmp_path_factory.mktemp("ways") / "ways")
    return trace([str(program)], "-e", EVENTS)


def test_the_upper_half_of_the_number_hides_nothing(ways: Traced) -> None:
    assert [e["eventName"] for e in ways.of("upper_half")][:2] == ["openat", "security_file_open"]
    assert {arguments(e)["pathname"] for e in ways.of("upper_half")[:2]} == {"/etc/passwd"}


def test_numbers_without_a_name_are_unknown_calls(ways: Traced) -> None:
    found = ways.of("unnamed", "unknown_syscall")
    assert [(arguments(e)["number"], e["contextFlags"]["isCompat"]) for e in found] == [
        (340, False),
        (510, False),
        (222, True),
    ]


def test_names_that_newer_kernels_gave_are_known(ways: Traced) -> None:
    assert len(ways.of("newer", "listns")) == 1


def test_calls_by_socketcall_raise_their_own_events(ways: Traced) -> None:
    found = [e for e in ways.of("socketcall") if e["eventName"] not in ("mmap", "exit_group")]
    assert [e["eventName"] for e in found] == [
        "socketcall",
        "socket",
        "security_socket_create",
        "socketcall",
        "connect",
        "security_socket_connect",
    ]
    address = {"sa_family": "AF_INET", "sin_port": "4321", "sin_addr": "127.0.0.1"}
    assert arguments(found[4])["addr"] == arguments(found[5])["remote_addr"] == address
    assert arguments(found[1])["domain"] == "AF_INET"


def test_calls_by_ipc_raise_their_own_events(ways: Traced) -> None:
    assert [arguments(e)["key"] for e in ways.of("ipc", "shmget")] == ["0x4d"]


def test_calls_with_their_arguments_in_a_struct_raise_their_own_events(ways: Traced) -> None:
    names = [e["eventName"] for e in ways.of("in_a_struct")]
    found = ways.of("in_a_struct")[names.index("old_mmap") : names.index("select") + 1]
    assert [e["eventName"] for e in found] == [
        *("old_mmap", "mmap", "mem_prot_alert"),
        *("old_mmap", "mmap", "shared_object_loaded"),
        *("old_select", "select"),
    ]
    assert [arguments(found[1])[name] for name in ("length", "flags")] == [4096, "MAP_PRIVATE|MAP_ANONYMOUS"]
    assert arguments(found[2])["addr"] == f"{found[1]['returnValue']:#x}"
    assert arguments(found[5])["pathname"] == "/usr/bin/true"
    assert arguments(found[7])["n"] == 1


def test_what_is_known_at_the_entry_alone_is_known_of_32_bit_calls(ways: Traced) -> None:
    (alert,) = ways.of("at_the_entry", "mem_prot_alert")
    assert arguments(alert)["alert"] == "Protection changed from W+E to E!"
    (creds,) = ways.of("at_the_entry", "commit_creds")
    assert (arguments(creds)["old_cred"]["Uid"], arguments(creds)["new_cred"]["Uid"]) == (0, 1)
    (ended,) = ways.of("at_the_entry", "exit_group")
    assert (arguments(ended)["status"], ended["contextFlags"]["isCompat"]) == (7, True)


def test_an_exec_that_was_only_asked_for_has_the_callers_arguments(ways: Traced) -> None:
    [event] = ways.of("checked", "execveat")
    assert (arguments(event)["pathname"], arguments(event)["argv"]) == ("/bin/true", ["true", "only asked"])


def test_a_call_that_seccomp_trapped_opened_nothing(ways: Traced) -> None:
    calls = [e for e in ways.of("trapped_open") if arguments(e).get("pathname") == "/etc/shadow"]
    assert [(e["eventName"], e["returnValue"], e.get("notRun")) for e in calls] == [("openat", None, "seccomp")]
    assert not ways.of("trapped_open", "security_file_open")


def test_a_result_that_a_listener_may_have_made_up_is_marked(ways: Traced) -> None:
    [call] = [e for e in ways.of("answered", "openat") if arguments(e)["pathname"] == "/etc/shadow"]
    assert (call["returnValue"], call["resultFrom"]) == (0, "seccomp listener")
    assert all(e["resultFrom"] == "seccomp listener" for e in ways.of("answered", "security_file_open"))
    assert not [e for e in ways.of("upper_half") if "resultFrom" in e]


def test_the_books_balance(ways: Traced) -> None:
    assert ways.ledger["balanced"] is True


def test_an_address_is_the_kernels_whatever_room_it_was_given(ways: Traced) -> None:
    """Of what it knows itself, all of it; of what it wrote, as much as it wrote."""
    own, accepted, datagrams = (arguments(e)["addr"] for e in ways.of("forged", "getsockname"))
    assert own == accepted
    (peer,) = (arguments(e)["addr"] for e in ways.of("forged", "getpeername"))
    (taken,) = ways.of("forged", "accept4")
    argument = next(a for a in taken["args"] if a["type"] == "struct sockaddr*")
    assert (argument["value"], argument["source"]) == (peer, "kernel")
    assert peer["sin_addr"] == "127.0.0.1"
    for name, argument_name in (("recvfrom", "src_addr"), ("recvmsg", "addr")):
        (event,) = ways.of("forged", name)
        shown = next(a for a in event["args"] if a["name"] == argument_name)
        assert shown["cut"]
        assert "4a4a" not in str(shown)
        assert shown["value"]["sa_family"] == "AF_INET"
    assert "74.74.74.74" not in str(ways.of("forged"))
    sent, none = ways.of("forged", "sendmsg")
    assert arguments(sent)["addr"] == datagrams
    assert next(a for a in none["args"] if a["name"] == "addr")["reason"] == "null"
    one, several = (next(a for a in e["args"] if a["name"] == "addr") for e in ways.of("forged", "sendmmsg"))
    assert one["value"] == several["value"] == datagrams
    assert ("cut" in one, "cut" in several) == (False, True)
