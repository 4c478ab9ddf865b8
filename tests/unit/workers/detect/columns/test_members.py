"""Members of structures as fields, in both ABIs, by command, from rows and from lines."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.detect.offline.flat import FlatEvent
from headrace.workers.detect.rules.fields import FieldError, field_of, names
from headrace.workers.detect.rules.values import TextValue
from tests.unit.frames import COMPAT, Blob, Record
from tests.unit.workers.conditions.test_filters import stays

BPF, FCNTL, PRCTL, UTIMENSAT, SIGACTION, UNAME = 321, 72, 157, 280, 13, 63
LOAD = struct.pack("<IIQQIIQII16s", 2, 2, 0, 0, 0, 0, 0, 0, 0, b"probe")
WRITE_LOCK = 1


def test_the_members_of_a_structure_are_numbers_words_and_texts() -> None:
    load = Record(BPF, args=(5, 0x1000, 64), blobs=(Blob(1, LOAD),))
    assert stays("bpf.attr.prog_type=BPF_PROG_TYPE_KPROBE", load) == [True]
    assert stays("bpf.args.attr.prog_type=2", load) == [True]
    assert stays("bpf.attr.prog_type!=BPF_PROG_TYPE_KPROBE", load) == [False]
    assert stays("bpf.attr.insn_cnt<3", load) == [True]
    assert stays("bpf.attr.prog_name=pro*", load) == [True]


def test_with_another_command_it_is_another_structure() -> None:
    create = Record(BPF, args=(0, 0x1000, 64), blobs=(Blob(1, LOAD),))
    assert stays("bpf.attr.prog_type=2", create) == [False]
    assert stays("bpf.attr.map_type=2", create) == [True]


def test_what_was_not_read_matches_nothing() -> None:
    short = Record(BPF, args=(5, 0x1000, 2), blobs=(Blob(1, b"\2\0"),))
    for condition in ("bpf.attr.prog_type=2", "bpf.attr.prog_type!=2"):
        assert stays(condition, short, Record(BPF, args=(5, 0, 0))) == [False, False]


def test_a_32_bit_call_has_its_own_layout() -> None:
    native = struct.pack("<QQQQ", 0x1234, 4, 0, 0)
    narrow = struct.pack("<IIIQ", 0x1234, 4, 0, 0)
    rows = [
        Record(SIGACTION, args=(10, 1, 0, 8), blobs=(Blob(1, native),)),
        Record(SIGACTION, args=(10, 1, 0, 8), blobs=(Blob(1, narrow),), flags=COMPAT),
    ]
    assert stays("rt_sigaction.act.sa_flags=SA_SIGINFO", *rows) == [True, True]


def test_elements_of_an_array_have_numbers() -> None:
    times = Record(UTIMENSAT, args=(0, 0, 1, 0), blobs=(Blob(2, struct.pack("<4q", 1, 2, 3, 4)),))
    assert stays("utimensat.utimes.tv_nsec=2", times) == [True]
    assert stays("utimensat.utimes.tv_nsec[1]=4", times) == [True]
    assert stays("utimensat.utimes.tv_nsec[2]=4", times) == [False]


def test_words_of_an_argument_are_those_of_its_command() -> None:
    drop, death = Record(PRCTL, args=(24, 21, 0, 0, 0)), Record(PRCTL, args=(1, 21, 0, 0, 0))
    assert stays("prctl.arg2=CAP_SYS_ADMIN", drop, death) == [True, False]
    assert stays("prctl.arg2=21", drop, death) == [True, True]
    assert stays("fcntl.arg=FD_CLOEXEC", Record(FCNTL, args=(1, 2, 1)), Record(FCNTL, args=(1, 0, 1))) == [True, False]


@pytest.mark.parametrize("name", ["attr.nothing", "attr.prog_type.more", "cmd.prog_type", "attr"])
def test_what_is_no_member_is_no_field(name: str) -> None:
    with pytest.raises(FieldError):
        field_of(catalogue().by_name["bpf"], name)


def test_every_name_is_a_field() -> None:
    for event in catalogue().by_id.values():
        for name in names(event):
            assert field_of(event, name).name == name


def test_lines_have_the_same_fields() -> None:
    event = catalogue().by_name["bpf"]
    line = FlatEvent(event, {"cmd": 5, "attr": {"prog_type": "BPF_PROG_TYPE_KPROBE", "prog_name": "probe"}})
    assert line.value(field_of(event, "attr.prog_type")) == 2
    assert line.value(field_of(event, "attr.prog_name")) == TextValue((b"probe",))
    assert line.value(field_of(event, "attr.insn_cnt")) is None
    times = FlatEvent(catalogue().by_name["utimensat"], {"utimes": [{"tv_nsec": 2}, {"tv_nsec": 4}]})
    assert times.value(field_of(times.event, "utimes.tv_nsec[1]")) == 4
    assert np.isscalar(times.value(field_of(times.event, "utimes.tv_nsec")))
    name = FlatEvent(catalogue().by_name["prctl"], {"option": "PR_SET_NAME", "arg2": b"renamed".ljust(16, b"\0")})
    assert name.value(field_of(name.event, "arg2.text")) == TextValue((b"renamed",))
