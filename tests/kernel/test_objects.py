"""Events made from the kernel's objects, against what stat, /proc and the sockets API said (objects.py)."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.host.features import event_lack
from tests.live import NEEDS_LOOPS, Event, Traced, arguments, details, headrace, kernel_has, trace

pytestmark = pytest.mark.kernel
HERE = Path(__file__).parent
OBJECTS = """security_file_open security_bprm_check security_inode_unlink security_inode_rename security_inode_link
    security_inode_symlink security_inode_mknod security_sb_mount security_sb_umount security_socket_create
    security_socket_listen security_socket_connect security_socket_accept security_socket_bind
    security_socket_setsockopt socket_accept socket_dup vfs_write vfs_writev magic_write mem_prot_alert
    security_path_truncate do_mmap process_execute_failed
    security_mmap_file security_file_mprotect shared_object_loaded commit_creds switch_task_ns cap_capable""".split()
THERE = [name for name in OBJECTS if not event_lack(catalogue().by_name[name])]


@dataclass
class Objects:
    """What objects.py did, as it was traced and by its own account."""

    traced: Traced
    facts: dict[str, Any]
    recording: Path

    def of(self, case: str, name: str) -> list[Event]:
        return self.traced.of(case, name)

    def values(self, case: str, name: str) -> list[dict[str, Any]]:
        return [arguments(event) for event in self.of(case, name)]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    folder = tmp_path_factory.mktemp("objects")
    recording = folder / "objects.hrc"
    options = ("-e", ",".join(THERE), "--workers", "2", "--record", str(recording))
    traced = trace([sys.executable, "-S", "-E", str(HERE / "objects.py"), str(folder)], *options)
    assert traced.status == 0, traced.errors
    return Objects(traced, json.loads((folder / "facts.json").read_text()), recording)


def test_the_books_balance(objects: Objects) -> None:
    assert objects.traced.ledger["balanced"] is True
    assert objects.traced.ledger["produced"] == len(objects.traced.events)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_recording_gives_the_same_events_with_any_number_of_workers(objects: Objects, workers: int) -> None:
    done = headrace("replay", str(objects.recording), "--workers", str(workers), "-o", "json:-")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == objects.traced.events


@pytest.mark.parametrize("case", ["relative", "dirfd", "symlink", "written", "rewritten", "procfd", "deep"])
def test_an_opened_file_is_the_one_that_the_kernel_opened(objects: Objects, case: str) -> None:
    event = objects.of(case, "security_file_open")[-1]
    expected = objects.facts[case]
    assert {name: value for name, value in arguments(event).items() if name in expected} == expected
    assert details(event, "pathname")["source"] == details(event, "inode")["source"] == "kernel"
    assert details(event, "syscall_pathname")["source"] == "user-exit"


def test_flags_are_those_of_the_call_that_created_the_file(objects: Objects) -> None:
    flags = details(objects.of("written", "security_file_open")[0], "flags")
    assert set(flags["value"].split("|")) >= {"O_RDWR", "O_CREAT", "O_TRUNC", "O_CLOEXEC"}
    assert flags["raw"] & 3 == 2


def test_a_descriptor_for_the_path_alone_opens_no_file(objects: Objects) -> None:
    assert not objects.of("pathonly", "security_file_open")


def test_bind_mounts_and_mount_namespaces_show_the_path_that_was_mounted_over(objects: Objects) -> None:
    paths = [a["pathname"] for a in objects.values("namespace", "security_file_open")]
    assert paths == objects.facts["namespace"]["pathnames"]


def test_a_process_with_a_root_of_its_own_has_both_paths(objects: Objects) -> None:
    facts = objects.facts["chrooted"]
    opens = [e for e in objects.values("chrooted", "security_file_open") if "root_pathname" in e]
    assert [(a["pathname"], a["root_pathname"]) for a in opens] == [
        (facts["pathname"], "/b/file"),
        (facts["pathname"], "/b/file"),
        (facts["folder"], "/"),
    ]
    renamed, removed = (objects.values("chrooted", f"security_inode_{name}")[0] for name in ("rename", "unlink"))
    assert (renamed["old_path"], renamed["root_old_path"]) == (f"{facts['folder']}/b/file2", "/b/file2")
    assert (renamed["new_path"], renamed["root_new_path"]) == (f"{facts['folder']}/b/file3", "/b/file3")
    assert (removed["pathname"], removed["root_pathname"]) == (f"{facts['folder']}/b/file3", "/b/file3")
    outside = objects.of("relative", "security_file_open")[0]
    assert "root_pathname" not in arguments(outside)


@pytest.mark.skipif(not kernel_has("get_current_task_btf"), reason="before Linux 5.11 that file is not found")
def test_a_socket_that_was_opened_as_a_file_is_shown_by_its_name(objects: Objects) -> None:
    event = objects.of("gone", "security_file_open")[0]
    pathname = details(event, "pathname")
    assert (pathname["value"], pathname["source"]) == (objects.facts["gone"]["pathname"], "kernel")
    assert (details(event, "inode")["value"], details(event, "inode")["reason"]) == (None, "no object")


def test_a_memfd_has_its_name_alone(objects: Objects) -> None:
    assert objects.values("memfd", "security_file_open")[-1]["pathname"] == objects.facts["memfd"]["pathname"]
    written = objects.values("memfd", "magic_write")[0]
    assert (written["pathname"], written["bytes"]) == ("memfd:secret", "f0VMRnh5eg==")


@NEEDS_LOOPS
def test_a_path_is_walked_to_its_root_and_one_that_is_longer_than_any_may_be_is_marked_cut(objects: Objects) -> None:
    deep, deeper = (details(event, "pathname") for event in objects.of("toodeep", "security_file_open")[-2:])
    assert (deep["value"], deep["source"], "cut" in deep) == (objects.facts["toodeep"]["deep"], "kernel", False)
    assert deeper["cut"] is True
    assert deeper["value"].endswith("/".join(["n" * 250] * 10))


@NEEDS_LOOPS
def test_names_are_joined_and_normalised(objects: Objects) -> None:
    folder = objects.facts["names"]["folder"]

    def paths(name: str) -> list[list[str]]:
        return [list(a.values()) for a in objects.values("names", f"security_inode_{name}")]

    assert paths("link") == [[f"{folder}/one", f"{folder}/two"]]
    assert paths("symlink") == [[f"{folder}/three", "../anything"]]
    assert paths("rename") == [[f"{folder}/two", f"{folder}/four"]]
    assert paths("mknod") == [[f"{folder}/fifo", "S_IFIFO|S_IRUSR|S_IWUSR", 0]]
    assert paths("unlink") == [[f"{folder}/four"], [f"{folder}/fifo"]]
    event = objects.of("names", "security_inode_rename")[0]
    assert details(event, "new_path")["source"] == "kernel"


@NEEDS_LOOPS
def test_a_name_is_in_the_directory_that_the_kernel_went_to(objects: Objects) -> None:
    pathname = details(objects.of("throughlink", "security_inode_unlink")[0], "pathname")
    assert (pathname["value"], pathname["source"]) == (objects.facts["throughlink"]["true"], "kernel")


@NEEDS_LOOPS
@pytest.mark.parametrize(
    ("event", "argument", "name"),
    [
        ("security_inode_rename", "new_path", "r"),
        ("security_inode_link", "new_path", "l"),
        ("security_inode_link", "old_path", "r"),
        ("security_inode_symlink", "linkpath", "s"),
        ("security_inode_mknod", "file_name", "f"),
        ("security_inode_unlink", "pathname", "f"),
        # by a link that leads to it
        ("security_path_truncate", "pathname", "r"),
    ],
)
def test_whatever_way_it_went(objects: Objects, event: str, argument: str, name: str) -> None:
    facts = objects.facts["manyways"]
    found = [details(each, argument) for each in objects.of("manyways", event)][-facts["ways"] :]
    expected = [f"{facts['real']}/{name}{number}" for number in range(facts["ways"])]
    assert [each["value"] for each in found] == expected
    assert {each["source"] for each in found} == {"kernel"}


@NEEDS_LOOPS
def test_an_exchange_gives_two_files_a_name(objects: Objects) -> None:
    facts = objects.facts["exchanged"]
    renamed = [tuple(a.values()) for a in objects.values("exchanged", "security_inode_rename")]
    assert renamed == [(facts["first"], facts["second"]), (facts["second"], facts["first"])]
    linked = objects.values("exchanged", "security_inode_link")[0]
    assert linked["old_path"].startswith(f"{facts['folder']}/#")
    assert linked["new_path"] == f"{facts['folder']}/given"


@NEEDS_LOOPS
def test_by_the_procfs_of_another_process(objects: Objects) -> None:
    found = [details(each, "pathname") for each in objects.of("ofothers", "security_inode_unlink")]
    true = objects.facts["ofothers"]["true"]
    assert [(each["value"], each["source"]) for each in found] == [(true, "kernel")] * 4


@NEEDS_LOOPS
def test_in_a_directory_of_very_many_names(objects: Objects) -> None:
    name = details(objects.of("crowded", "security_inode_mknod")[0], "file_name")
    assert (name["value"], name["source"]) == (objects.facts["crowded"]["true"], "kernel")


@NEEDS_LOOPS
def test_a_way_that_cannot_be_gone_is_text_and_says_so(objects: Objects) -> None:
    facts = objects.facts["longlinks"]
    found = [details(each, "file_name") for each in objects.of("longlinks", "security_inode_mknod")]
    assert [(each["value"], each["source"]) for each in found] == [
        (facts["true"], "kernel"),
        (facts["passed"], "lexical"),
    ]


def test_mounts_show_what_was_passed(objects: Objects) -> None:
    target = str(Path(objects.facts["chrooted"]["folder"]).with_name("mnt"))
    mounts = objects.values("namespace", "security_sb_mount")
    assert [(m["path"], m["type"], m["flags"]) for m in mounts] == [
        ("/", None, "MS_REC|MS_PRIVATE"),
        (target, None, "MS_BIND"),
        (f"{target}/b", "tmpfs", "0"),
    ]
    unmounted = objects.values("namespace", "security_sb_umount")[0]
    assert (unmounted["mountpoint"], unmounted["flags"]) == (f"{target}/b", "MNT_DETACH")


def test_tcp_sockets_show_both_ends(objects: Objects) -> None:
    facts = objects.facts["tcp"]
    server = {"sa_family": "AF_INET", "sin_port": facts["port"], "sin_addr": "127.0.0.1"}
    client = server | {"sin_port": facts["client_port"]}
    created = objects.values("tcp", "security_socket_create")[0]
    assert (created["family"], created["type"], created["protocol"]) == ("AF_INET", "SOCK_STREAM", 6)
    option = objects.values("tcp", "security_socket_setsockopt")[0]
    assert (option["level"], option["optname"]) == ("SOL_SOCKET", "SO_REUSEADDR")
    assert objects.values("tcp", "security_socket_bind")[0]["local_addr"] == server
    listening = objects.values("tcp", "security_socket_listen")[0]
    assert (listening["local_addr"], listening["backlog"]) == (server, 3)
    assert objects.values("tcp", "security_socket_connect")[0]["remote_addr"] == server
    assert objects.values("tcp", "security_socket_accept")[0]["local_addr"] == server
    accepted = objects.values("tcp", "socket_accept")[0]
    assert (accepted["local_addr"], accepted["remote_addr"]) == (server, client)
    first, second = objects.values("tcp", "socket_dup")
    assert (first["oldfd"], first["newfd"], first["remote_addr"]) == (facts["client"], 250, server)
    assert (second["oldfd"], second["newfd"], second["remote_addr"]) == (facts["peer"], 200, client)


def test_a_connection_that_was_refused_shows_what_was_asked_for(objects: Objects) -> None:
    event, six = objects.of("refused", "security_socket_connect")
    address = details(event, "remote_addr")
    port = objects.facts["refused"]["port"]
    assert address["value"] == {"sa_family": "AF_INET", "sin_port": port, "sin_addr": "127.0.0.1"}
    assert (address["source"], event["error"]) == ("user-exit", "ECONNREFUSED")
    assert arguments(six)["remote_addr"]["sin6_addr"] == "::1"


def test_a_connection_under_way_is_known_to_the_kernel(objects: Objects) -> None:
    event = objects.of("underway", "security_socket_connect")[0]
    address = details(event, "remote_addr")
    assert (address["value"]["sin_port"], address["source"]) == (objects.facts["underway"]["port"], "kernel")
    assert event["error"] == "EINPROGRESS"


def test_unix_sockets_show_their_path(objects: Objects) -> None:
    named = {"sa_family": "AF_UNIX", "sun_path": objects.facts["unixes"]["sun_path"]}
    assert objects.values("unixes", "security_socket_bind")[0]["local_addr"] == named
    assert objects.values("unixes", "security_socket_connect")[0]["remote_addr"] == named
    assert objects.values("unixes", "security_socket_accept")[0]["local_addr"] == named


def test_a_socket_that_came_over_a_socket_needs_no_tracking(objects: Objects) -> None:
    event = objects.values("passed", "socket_dup")[-1]
    facts = objects.facts["passed"]
    assert (event["oldfd"], event["newfd"]) == (facts["arrived"], 0)
    assert event["remote_addr"]["sin_port"] == facts["port"]


def test_first_bytes_of_files_are_shown_however_they_are_written(objects: Objects) -> None:
    import base64

    facts = objects.facts["writes"]
    events = objects.of("writes", "magic_write")
    found = [(arguments(e)["pathname"], arguments(e)["bytes"]) for e in events]
    expected = [b"\x7fELF" + bytes(16), b"#!/bin/sh\n", b"abcdefgh" + b"i" * 12, b"xyz"]
    assert (
        found
        == [(facts["pathname"], base64.b64encode(data).decode()) for data in expected] + [(facts["copy"], None)] * 3
    )
    assert {details(e, "bytes").get("reason") for e in events[4:]} == {"bypass"}
    assert arguments(events[0])["inode"] == facts["inode"]
    whole = [(a["count"], a["pos"]) for a in objects.values("writes", "vfs_write")]
    assert whole == [(44, 0), (4, 44), (10, 0)]
    assert [(a["vlen"], a["pos"]) for a in objects.values("writes", "vfs_writev")] == [(4, 0), (2, 0)]


def test_each_region_whose_protection_changes_raises_its_alert(objects: Objects) -> None:
    facts = objects.facts["protection"]
    events = objects.of("protection", "mem_prot_alert")
    found = [[details(e, "alert")["raw"], int(arguments(e)["addr"], 16), arguments(e)["len"]] for e in events]
    assert found == facts["alerts"]
    assert arguments(events[0])["alert"] == "Mmaped region with W+E permissions!"
    last = arguments(events[-1])
    assert (last["prev_prot"], last["prot"], last["pathname"]) == ("PROT_READ", "PROT_READ|PROT_EXEC", facts["exe"])
    changed = objects.values("protection", "security_file_mprotect")
    assert [(a["pathname"], a["prot"]) for a in changed] == [(facts["exe"], "PROT_READ|PROT_EXEC")]
    mapped = objects.values("protection", "security_mmap_file")
    assert [a["prot"] for a in mapped] == ["PROT_READ", "PROT_READ|PROT_EXEC"]
    assert [a["pathname"] for a in objects.values("protection", "shared_object_loaded")] == [facts["exe"]]
    anonymous, *_, runnable = objects.values("protection", "do_mmap")
    assert [anonymous[name] for name in ("addr", "pathname", "inode")] == [f"{facts['alerts'][0][1]:#x}", None, None]
    assert [runnable[name] for name in ("pathname", "pgoff", "prot")] == [facts["exe"], 0, "PROT_READ|PROT_EXEC"]


def test_an_exec_that_failed_is_told_with_what_it_was_to_run(objects: Objects) -> None:
    facts = objects.facts["not_run"]
    (failed,) = objects.of("not_run", "process_execute_failed")
    found = arguments(failed)
    assert (failed["returnValue"], found["pathname"], found["binary_path"]) == (-2, "a/none", facts["binary"])
    assert found["argv"] == ["none", "one", ""]


def test_credentials_that_change_show_what_they_were(objects: Objects) -> None:
    changes = objects.values("identity", "commit_creds")
    assert [(a["syscall"], a["old_cred"]["Gid"], a["new_cred"]["Gid"]) for a in changes[:1]] == [("setgid", 0, 12)]
    second = changes[1]
    assert second["syscall"] == "setresuid"
    ids = ("Uid", "Euid", "Suid", "Fsuid")
    assert [second["old_cred"][name] for name in ids] == [0, 0, 0, 0]
    assert [second["new_cred"][name] for name in ids] == [1000, 1001, 0, 1001]
    assert second["new_cred"]["CapEffective"] == 0 != second["old_cred"]["CapEffective"]
    assert len(changes) == 2


def test_a_new_namespace_is_named_and_the_others_are_zero(objects: Objects) -> None:
    event = objects.values("namespaces", "switch_task_ns")[-1]
    assert event["new_uts"] not in (0, objects.facts["identity"]["uts"])
    assert [event[f"new_{name}"] for name in ("mnt", "pid", "ipc", "net", "cgroup")] == [0] * 5


@pytest.mark.skipif("cap_capable" not in THERE, reason="this kernel has no tracepoint cap_capable")
def test_capabilities_that_are_asked_for_are_named(objects: Objects) -> None:
    asked = objects.values("identity", "cap_capable")
    assert {"CAP_SETGID", "CAP_SETUID"} <= {a["cap"] for a in asked}
    assert {a["syscall"] for a in asked} >= {"setgid", "setresuid"}
