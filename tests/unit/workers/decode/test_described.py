"""docs/reference/arguments.md is what the tables say."""

from __future__ import annotations

from click.testing import CliRunner

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.command import cli
from headrace.workers.decode.described import DOCUMENT, by_command, document, of_argument


def test_the_page_is_generated_from_the_tables() -> None:
    assert DOCUMENT.read_text() == document(), "python -m headrace.workers.decode.described"


def test_what_stands_behind_a_pointer_is_said() -> None:
    bpf, fcntl = catalogue().by_name["bpf"], catalogue().by_name["fcntl"]
    assert of_argument(bpf, 1) == "structure by cmd"
    assert dict(by_command(bpf, 1))["BPF_PROG_LOAD"].startswith("{prog_type, insn_cnt")
    assert dict(by_command(fcntl, 2))["F_SETFD"] == "flags of fd_flags"
    assert of_argument(catalogue().by_name["epoll_wait"], 1).startswith("written: list, as many as result: {events")


def test_list_events_shows_members() -> None:
    shown = CliRunner().invoke(cli.main, ["list", "events", "rt_sigaction"])
    assert shown.exit_code == 0
    assert "{sa_handler, sa_flags, sa_restorer, sa_mask}" in shown.output
    assert "int signum  (s32; signal)" in shown.output
