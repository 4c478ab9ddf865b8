"""`--capture`: what it takes, and what it says of anything else."""

from __future__ import annotations

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.capture import KINDS, Capture, parse
from headrace.config.settings import SettingsError


def test_kinds_and_filters() -> None:
    assert parse([]) is None
    assert parse(["exec"]) == Capture(frozenset({"exec"}))
    assert parse(["exec,mem", "write=/tmp/*", "write=/etc/*,write.type=elf"]) == Capture(
        frozenset({"exec", "mem", "write"}), ("/tmp/*", "/etc/*"), ("elf",)
    )


def test_the_names_of_newer_tracees_are_taken() -> None:
    named = parse(["executable,file-write,kernel-modules,bpf-programs,memory-regions"])
    assert named == Capture(frozenset(KINDS))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("exe", "no such kind: exe (there are: exec, write, module, bpf, mem); did you mean exec?"),
        ("exec=/bin/*", "only write takes a filter"),
        ("write=", "a value is missing"),
        ("write=tmp/x", "the path of a file is absolute"),
        ("write.type=elfs", "no such type: elfs (there are: elf, script, archive); did you mean elf?"),
        ("write.size=3", "only write takes a filter: write=GLOB or write.type=TYPE"),
        ("", "no such kind"),
    ],
)
def test_what_it_cannot_take(spec: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse([spec])
    assert says in str(error.value)
    assert str(error.value).startswith(f"--capture {spec}: ")


def test_filters_of_written_files() -> None:
    capture = Capture(frozenset({"write"}), ("/tmp/*",), ("script",))
    assert capture.has_path(b"/tmp/a/b")
    assert not capture.has_path(b"/var/tmp")
    assert capture.has_path(b"/tmp/\xff")
    assert capture.has_type(b"#!/bin/sh")
    assert not capture.has_type(b"\x7fELF")
    assert Capture(frozenset({"write"})).has_type(b"")


def test_every_event_that_is_needed_exists() -> None:
    for name in Capture(frozenset(KINDS)).events:
        assert name in catalogue().by_name
