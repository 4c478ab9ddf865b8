"""JSON lines: Tracee's fields, docs/schema.json, and any bytes."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.core import Core
from headrace.workers.records.rows import Contexts, read_frames
from headrace.workers.views import pieces, store
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from tests.unit.frames import (
    CLONE,
    CLOSE,
    COMPAT,
    CONNECT,
    CUT,
    ENTRY,
    EXEC_IMAGE,
    EXECVE,
    EXIT,
    FAULT,
    GETCWD,
    GETPPID,
    MMAP,
    NANOSLEEP,
    NOT_RUN,
    NULL,
    OPENAT,
    READ,
    WRITE,
    Blob,
    Record,
    Who,
    frame,
    view,
)
from tests.unit.workers.records.test_rows import ANY_FRAME

EPOCH = 1_700_000_000_000_000_000
SCHEMA = Path(__file__).parents[4] / "docs" / "schema.json"
Event = dict[str, Any]

# trace.Event of Tracee v0.24.1; metadata stands only in detections
FIELDS = """timestamp threadStartTime processorId processId cgroupId threadId parentProcessId hostProcessId
    hostThreadId hostParentProcessId userId mountNamespace pidNamespace processName executable hostName containerId
    container containerImage containerName podName podNamespace podUID kubernetes eventId eventName matchedPolicies
    argsNum returnValue syscall stackAddresses contextFlags threadEntityId processEntityId parentEntityId
    args""".split()


def render(*records: Record, cpu: int = 0, parse: bool = True, detect: bool = True, late: bool = False) -> list[Event]:
    contexts = Contexts()
    rows = read_frames([view(frame(records, cpu=cpu))], contexts).rows
    rows.late[:] = late
    out = Lines(catalogue(), JsonStyle(HostFacts(EPOCH), detect), parse).render(rows, contexts).data
    assert out.endswith(b"\n")
    return [json.loads(line) for line in out.decode().splitlines()]


def one(record: Record, **options: Any) -> Event:
    found = render(record, **options)
    assert len(found) == 1
    return found[0]


def details(record: Record, name: str, **options: Any) -> Event:
    found: Event = next(a for a in one(record, **options)["args"] if a["name"] == name)
    return found


def opened(data: bytes = b"/x", status: int = 0, flags: int = 0) -> Record:
    return Record(OPENAT, args=(2**64 - 100, 4096, flags, 0), blobs=(Blob(1, data, status),))


@cache
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_tracees_fields_are_all_there() -> None:
    event = one(opened())
    assert [name for name in FIELDS if name not in event] == []


def test_the_order_of_tracees_fields_is_kept() -> None:
    names = [name for name in one(opened()) if name in FIELDS]
    assert names[:13] == FIELDS[:13]
    assert names[-1] == "args"


def test_ids_are_those_of_the_context() -> None:
    who = Who(
        tgid=1,
        tid=2,
        ppid=3,
        ns_tgid=4,
        ns_tid=5,
        ns_ppid=6,
        uid=7,
        mntns=8,
        pidns=9,
        cgroup_id=2**63 + 1,
        thread_start_ns=11,
        process_start_ns=12,
        comm=b"sh",
        nodename=b"node",
    )
    event = one(Record(GETPPID, 5, who=who), cpu=3)
    expected = {
        "timestamp": EPOCH + 5,
        "processorId": 3,
        "hostProcessId": 1,
        "hostThreadId": 2,
        "hostParentProcessId": 3,
        "processId": 4,
        "threadId": 5,
        "parentProcessId": 6,
        "userId": 7,
        "mountNamespace": 8,
        "pidNamespace": 9,
        "cgroupId": 2**63 + 1,
        "threadStartTime": 11,
        "processStartTime": 12,
        "processName": "sh",
        "hostName": "node",
    }
    assert {name: event[name] for name in expected} == expected


def test_entity_ids_tell_tasks_apart_and_stay_32_bits() -> None:
    who = Who(tgid=100, tid=101, thread_start_ns=7, process_start_ns=6, parent_start_ns=5, ppid=1)
    event = one(Record(who=who))
    assert event["threadEntityId"] == zlib.crc32((7).to_bytes(8, "little") + (101).to_bytes(4, "little"))
    assert event["processEntityId"] == zlib.crc32((6).to_bytes(8, "little") + (100).to_bytes(4, "little"))
    assert event["parentEntityId"] == zlib.crc32((5).to_bytes(8, "little") + (1).to_bytes(4, "little"))


def test_an_event_names_itself_as_tracee_does() -> None:
    event = one(Record(OPENAT, retval=3, blobs=(Blob(1, b"/x"),)))
    assert (event["eventId"], event["eventName"], event["argsNum"], event["returnValue"]) == ("257", "openat", 4, 3)
    assert (event["syscall"], event["stackAddresses"]) == ("openat", None)
    assert event["contextFlags"] == {"containerStarted": False, "isCompat": False}
    assert [(a["name"], a["type"]) for a in one(Record(CLOSE))["args"]] == [("fd", "int")]


def test_an_error_is_named_beside_its_number() -> None:
    event = one(Record(CLOSE, retval=-9))
    assert (event["returnValue"], event["error"]) == (-9, "EBADF")
    assert one(Record(CLOSE, retval=-512))["error"] == "ERESTARTSYS"
    assert "error" not in one(Record(CLOSE, retval=0))
    assert "error" not in one(Record(MMAP, retval=-(2**47)))


def test_an_entry_has_its_time_and_no_result() -> None:
    event = one(Record(EXIT, 9, (3,), flags=ENTRY))
    assert (event["returnValue"], event["entryTime"]) == (None, EPOCH + 9)
    assert "entryTime" not in one(Record(CLOSE))


def test_a_call_that_seccomp_stopped_has_no_result_and_says_so() -> None:
    event = one(Record(CLOSE, retval=-9, flags=NOT_RUN))
    assert (event["returnValue"], event["notRun"], event.get("error")) == (None, "seccomp", None)


def test_a_32_bit_call_is_marked() -> None:
    assert one(Record(CLOSE, flags=COMPAT))["contextFlags"]["isCompat"] is True


def test_what_came_late_is_marked() -> None:
    assert one(Record(CLOSE), late=True)["late"] is True
    assert "late" not in one(Record(CLOSE))


def test_numbers_have_their_types_sign_and_width() -> None:
    big = 2**64 - 1
    args = {a["name"]: a["value"] for a in one(Record(READ, args=(big, big, big)), parse=False)["args"]}
    assert args == {"fd": -1, "buf": big, "count": big}
    args = {a["name"]: a["value"] for a in one(Record(MMAP, args=(0, 1, 2, 3, big, big)), parse=False)["args"]}
    assert (args["fd"], args["off"]) == (-1, big)


def test_parsed_arguments_keep_their_raw_number() -> None:
    assert details(opened(flags=0o101), "flags") == {
        "name": "flags",
        "type": "string",
        "value": "O_WRONLY|O_CREAT",
        "raw": 0o101,
    }
    assert details(opened(), "dirfd") == {"name": "dirfd", "type": "string", "value": "AT_FDCWD", "raw": -100}
    assert details(opened(flags=0o101), "flags", parse=False) == {"name": "flags", "type": "int", "value": 0o101}


def test_addresses_are_hex_when_parsed() -> None:
    assert details(Record(READ, args=(0, 0x7F00, 1)), "buf") == {"name": "buf", "type": "void*", "value": "0x7f00"}


def test_a_string_is_its_text() -> None:
    assert details(opened(b"/etc/\xc3\xa9"), "pathname") == {
        "name": "pathname",
        "type": "const char*",
        "value": "/etc/é",
        "source": "user-exit",
    }


def test_bytes_that_are_no_text_keep_their_base64() -> None:
    found = details(opened(b"/\xff\x01"), "pathname")
    assert found["value"] == "/\ufffd\x01"
    assert base64.b64decode(found["base64"]) == b"/\xff\x01"


@pytest.mark.parametrize(("status", "reason"), [(FAULT, "fault"), (NULL, "null")])
def test_what_could_not_be_read_is_null_with_its_reason_and_its_address(status: int, reason: str) -> None:
    found = details(opened(b"", status), "pathname")
    assert (found["value"], found["reason"]) == (None, reason)
    assert found["raw"] == 4096


def test_what_was_never_read_says_so() -> None:
    found = details(Record(OPENAT, args=(0, 4096)), "pathname")
    assert (found["value"], found["reason"], found["raw"]) == (None, "not read", 4096)


def test_what_exec_took_away_says_so() -> None:
    found = details(Record(EXECVE, flags=EXEC_IMAGE, blobs=(Blob(0, b"/bin/ls"),)), "envp")
    assert (found["value"], found["reason"]) == (None, "exec")


def test_what_is_longer_is_cut_and_marked() -> None:
    found = details(opened(b"x" * 4096, CUT), "pathname")
    assert (found["value"], found["cut"]) == ("x" * 4096, True)
    assert "cut" not in details(opened(b"x" * 4095), "pathname")


def test_a_vector_is_a_list_of_its_strings_with_empty_ones() -> None:
    def argv(data: bytes, status: int = 0) -> Event:
        return details(Record(EXECVE, retval=-2, blobs=(Blob(0, b"/x"), Blob(1, data, status))), "argv")

    assert argv(b"ls\0\0-l\0")["value"] == ["ls", "", "-l"]
    assert argv(b"\0")["value"] == [""]
    assert argv(b"")["value"] == []
    assert argv(b"a\0b\0", CUT)["cut"] is True
    assert base64.b64decode(argv(b"a\0\xff\0")["base64"]) == b"a\0\xff"


def test_structs_are_maps() -> None:
    import socket
    import struct

    address = struct.pack("=H", socket.AF_INET) + b"\0\x09" + socket.inet_aton("127.0.0.1") + bytes(8)
    found = details(Record(CONNECT, args=(3, 4096, 16), blobs=(Blob(1, address, 0, 16),)), "addr")
    assert found["value"] == {"sa_family": "AF_INET", "sin_port": "9", "sin_addr": "127.0.0.1"}
    req = details(Record(NANOSLEEP, args=(1, 2), blobs=(Blob(0, struct.pack("=qq", 1, 5)),)), "req")
    assert req["value"] == {"tv_sec": 1, "tv_nsec": 5}


def test_a_struct_that_is_too_short_is_null_with_its_reason() -> None:
    found = details(Record(NANOSLEEP, args=(4096, 0), blobs=(Blob(0, b"1234567"),)), "req")
    assert (found["value"], found["reason"], found["raw"]) == (None, "short", 4096)


@pytest.mark.parametrize("among", [False, True], ids=["alone", "beside one that failed"])
def test_a_line_does_not_depend_on_its_neighbours(among: bool) -> None:
    # getcwd's result counts the NUL
    good = Record(GETCWD, 1, (4096, 100), 6, blobs=(Blob(0, b"/root\0"),))
    failed = Record(GETCWD, 2, (4096, 1), -34)
    event = render(*([good, failed] if among else [good]))[0]
    assert event["args"][0]["value"] == "/root"


def test_captured_bytes_are_shown_where_they_were_asked_for() -> None:
    events = render(
        Record(WRITE, args=(1, 4096, 9), blobs=(Blob(1, b"hello", CUT, 9),)), Record(WRITE, args=(1, 4096, 9))
    )
    assert events[0]["args"][1]["value"] == "hello"
    assert events[0]["args"][1]["cut"] is True
    assert events[1]["args"][1]["value"] == "0x1000"


def test_a_calls_number_is_its_name_when_it_is_an_argument() -> None:
    sys_exit = catalogue().by_name["sys_exit"].id
    found = details(Record(sys_exit, args=(257,)), "syscall")
    assert (found["value"], found["raw"]) == ("openat", 257)
    assert details(Record(sys_exit, args=(5,), flags=COMPAT), "syscall")["value"] == "open"


def test_the_name_of_the_call_can_be_left_out() -> None:
    assert one(Record(CLOSE), detect=False)["syscall"] == ""


def test_rows_keep_their_order_and_their_number() -> None:
    records = [Record([CLOSE, GETPPID, MMAP][n % 3], n) for n in range(50)]
    assert [e["timestamp"] - EPOCH for e in render(*records)] == list(range(50))


def test_no_rows_are_no_bytes() -> None:
    assert Lines(catalogue(), JsonStyle(HostFacts(0))).render(read_frames([], Contexts()).rows, Contexts()).data == b""


def test_a_reused_row_of_the_table_of_contexts_shows_who_is_there_now() -> None:
    lines = Lines(catalogue(), JsonStyle(HostFacts(0)))
    contexts = Contexts()
    for tgid in (1, 2):
        rows = read_frames([view(frame([Record(who=Who(tgid=tgid))]))], contexts).rows
        assert json.loads(lines.render(rows, contexts).data)["hostProcessId"] == tgid
        contexts.clear()


@pytest.mark.parametrize("bound", ["MAX_PIECES", "MAX_BYTES"])
def test_caches_are_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, bound, 8)
    lines = Lines(catalogue(), JsonStyle(HostFacts(0)))
    contexts = Contexts()
    for fd in range(100):
        rows = read_frames([view(frame([Record(CLOSE, args=(fd,)), Record(CLOSE, args=(3,))]))], contexts).rows
        events = [json.loads(line) for line in lines.render(rows, contexts).data.splitlines()]
        assert [e["args"][0]["value"] for e in events] == [fd, 3]
        assert lines.store._count < 20


def test_clone_shows_flags_and_signal() -> None:
    assert details(Record(CLONE, args=(0x100 | 17,)), "flags")["value"] == "CLONE_VM|SIGCHLD"


# -- the schema, and anything


SAMPLES = [
    opened(),
    opened(b"", FAULT),
    opened(b"x" * 4096, CUT),
    opened(b"\xff"),
    Record(GETPPID),
    Record(CLOSE, retval=-9),
    Record(CLOSE, retval=-9, flags=NOT_RUN),
    Record(EXIT, args=(3,), flags=ENTRY),
    Record(CLOSE, flags=COMPAT),
    Record(EXECVE, retval=-2, blobs=(Blob(0, b"/x"), Blob(1, b"a\0\xff\0"), Blob(2, b"", NULL))),
    Record(CONNECT, blobs=(Blob(1, b"\x01\0\0abstract", 0, 11),)),
    Record(NANOSLEEP, blobs=(Blob(0, b"12"),)),
    Record(MMAP, args=(2**64 - 1,) * 6, retval=-(2**63)),
]


@pytest.mark.parametrize("record", SAMPLES, ids=range(len(SAMPLES)))
@pytest.mark.parametrize("parse", [True, False], ids=["parsed", "raw"])
def test_lines_are_what_the_schema_says(record: Record, parse: bool) -> None:
    validator().validate(one(record, parse=parse))
    validator().validate(one(record, parse=parse, late=True, detect=False))


def test_the_schema_refuses_what_is_no_event() -> None:
    event = one(opened())
    for wrong in ({"eventId": 257}, {"timestamp": "now"}, {"args": None}, {"unheard": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator().validate(event | wrong)


@given(st.binary(max_size=60), st.binary(max_size=16), st.binary(max_size=64))
def test_any_bytes_in_strings_are_json(path: bytes, comm: bytes, node: bytes) -> None:
    event = one(Record(OPENAT, blobs=(Blob(1, path),), who=Who(comm=comm, nodename=node)))
    found = event["args"][1]
    whole = path.rstrip(b"\0")
    assert found["value"] == whole.decode("utf-8", "replace")
    if "base64" in found:
        assert base64.b64decode(found["base64"]) == whole
    else:
        assert found["value"].encode() == whole
    assert event["processName"] == comm.rstrip(b"\0").decode("utf-8", "replace")


@given(st.lists(ANY_FRAME, max_size=3), st.booleans())
def test_any_frames_are_lines_of_json_one_a_row(payloads: list[bytes], parse: bool) -> None:
    core = Core(catalogue(), 0, 1)
    for payload in payloads:
        core.feed(view(payload))
    rows = core.advance(2**64 - 1).rows
    out = Lines(catalogue(), JsonStyle(HostFacts(EPOCH)), parse).render(rows, core.contexts).data
    lines = out.decode().split("\n")
    assert len(lines) == len(rows) + 1
    for line in lines[:-1]:
        assert json.loads(line)["eventId"] in {str(e) for e in catalogue().by_id}


def test_the_ends_of_lines_are_known() -> None:
    contexts = Contexts()
    # a line feed within a value is escaped, another byte of more than one char is not
    odd = [opened(b"a\nb"), opened("é".encode()), Record(EXIT, args=(3,), flags=ENTRY)]
    records = [Record(CLOSE), *odd, Record(GETPPID)]
    rows = read_frames([view(frame(records))], contexts).rows
    data, ends = Lines(catalogue(), JsonStyle(HostFacts(EPOCH))).render(rows, contexts)
    assert ends.tolist() == [i + 1 for i, byte in enumerate(data) if byte == 10]


def test_of_a_stack_that_ends_within_an_address_the_whole_ones_are_shown() -> None:
    style = JsonStyle(HostFacts(0), stacks=True)
    assert style.stack(struct.pack("<QQ", 1, 2) + b"\1\2\3") == ',"stackAddresses":[1,2]}\n'
    assert style.stack(b"\1") == ',"stackAddresses":null}\n'


def test_flags_of_which_there_are_too_many_are_rendered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording can have any flags: what is remembered of each is bounded, and lines stay the same."""
    monkeypatch.setattr(pieces, "MAX_GROUPS", 3)
    lines, contexts = Lines(catalogue(), JsonStyle(HostFacts(EPOCH), False), True), Contexts()
    for flags in (*range(8), *range(8)):
        rows = read_frames([view(frame([Record(event=READ, flags=flags)]))], contexts).rows
        again = Lines(catalogue(), JsonStyle(HostFacts(EPOCH), False), True)
        assert lines.render(rows, contexts).data == again.render(rows, contexts).data
        assert len(lines._groups) <= 4
        assert len(lines.store.caches) <= 90  # 22 a group, and two


def test_texts_in_structures_that_are_not_utf_8_have_their_bytes_beside_them() -> None:
    name = b"\xff" + b"a" * 5
    data = name.ljust(16, b"\0")
    found = details(Record(157, args=(15, 0x10, 0, 0, 0), blobs=(Blob(1, data),)), "arg2")
    assert found["value"] == "\ufffdaaaaa"
    assert base64.b64decode(found["base64"]) == data
