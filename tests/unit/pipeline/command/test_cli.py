"""What commands say: of a host that lacks a hook, and when they quote what they were given."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from headrace.bpf.tables.catalogue import SYS_ENTER, Event
from headrace.pipeline.command import cli, listing
from headrace.pipeline.process import logs

LACKING = "not in this kernel"


@pytest.fixture
def without_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    def event_state(event: Event) -> tuple[bool, str]:
        lacks = event.hook in (None, SYS_ENTER)
        return not lacks, LACKING if lacks else ""

    monkeypatch.setattr(listing, "event_state", event_state)


def listed(*arguments: str) -> list[str]:
    result = CliRunner().invoke(cli.main, ["list", *arguments])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


@pytest.mark.usefixtures("without_entries")
def test_members_of_a_set_that_this_host_cannot_give_are_marked() -> None:
    assert [
        line
        for line in listed("sets", "proc_life")
        if line.split()[0].endswith(("process_exit", "exit_group")) or line.startswith("exit ")
    ] == [
        f"exit  (not on this host: {LACKING})",
        f"exit_group  (not on this host: {LACKING})",
        "sched_process_exit",
    ]
    assert next(line for line in listed("sets") if line.startswith("proc_life")).endswith(", 3 not on this host")


@pytest.mark.usefixtures("without_entries")
def test_events_that_this_host_cannot_give_are_marked() -> None:
    lines = listed("events")
    assert "exit(status)  (not on this host)" in lines
    assert "close(fd)" in lines
    assert listed("events", "exit")[-1] == f"  not on this host: {LACKING}"
    assert listed("events", "close")[-1] == "  provided: by raw_tracepoint:sys_exit"


HOSTILE = "x\nheadrace: all is well\x1b[2J\u2028\u202e\u200b"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "events", HOSTILE),
        (HOSTILE,),
        ("list", HOSTILE),
        ("run", f"--{HOSTILE}"),
        ("run", "-e", HOSTILE, "--", "true"),
        ("run", "-o", HOSTILE, "--", "true"),
        ("run", "--workers", HOSTILE, "--", "true"),
        ("run", "--signatures", f"/nonexistent/{HOSTILE}", "--", "true"),
        ("replay", f"/nonexistent/{HOSTILE}"),
        ("signatures", "show", HOSTILE),
        ("signatures", "check", f"/nonexistent/{HOSTILE}"),
        ("signatures", "explain", "TRC-1", HOSTILE),
        ("analyze", f"/nonexistent/{HOSTILE}"),
    ],
)
def test_an_error_that_quotes_what_was_given_stays_its_own_line(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.main, list(arguments))
    assert result.exit_code
    lines = result.output.split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("headrace: all is well") for line in lines)


@pytest.mark.parametrize("group", [(), ("list",), ("signatures",)])
def test_a_group_without_a_command_shows_its_help(group: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli.main, list(group)).output == CliRunner().invoke(cli.main, [*group, "--help"]).output


def test_a_log_line_stays_one_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logs.logger("test").info("test.said", what=HOSTILE, why=f'a"b{HOSTILE}')
    lines = capsys.readouterr().err.split("\n")
    assert lines[1:] == [""]
    assert lines[0].isprintable()
