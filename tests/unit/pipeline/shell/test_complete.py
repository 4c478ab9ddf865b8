"""Completion, help and man pages: all from the commands themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from headrace.pipeline.command import cli
from headrace.pipeline.command.reference import commands


def completed(line: str) -> list[str]:
    """The words that bash would be offered."""
    words = line.split(" ")
    asked = {"_HEADRACE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    runner = CliRunner()
    result = runner.invoke(cli.main, [], prog_name="headrace", env=asked, complete_var="_HEADRACE_COMPLETE")
    return [item.partition(",")[2] for item in result.output.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("headrace run -e opena", ["openat", "openat2"]),
        ("headrace run -e close,opena", ["close,openat", "close,openat2"]),
        ("headrace run -e '!opena".replace("'", ""), ["!openat", "!openat2"]),
        ("headrace run -s com", ["comm="]),
        ("headrace run -o j", ["json:"]),
        ("headrace run --findings f", ["falco:"]),
        ("headrace list sets fs_l", ["fs_link_ops"]),
        ("headrace list events openat2", ["openat2"]),
        ("headrace help sum", ["summary"]),
        ("headrace summ", ["summary"]),
    ],
)
def test_words_are_offered(line: str, words: list[str]) -> None:
    assert completed(line) == words


def test_processes_and_signatures_are_offered() -> None:
    assert str(os.getpid()) in completed(f"headrace run -p {str(os.getpid())[:-1]}")
    assert f"pid={os.getpid()}" in completed(f"headrace run -s pid={os.getpid()}")
    assert {"TRC-105", "TRC-1010"} <= {*completed("headrace run --rules TRC-10")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_what_it_loads(shell: str) -> None:
    result = CliRunner().invoke(cli.main, ["completion", shell])
    assert result.exit_code == 0
    assert "_HEADRACE_COMPLETE" in result.output


def test_help_is_that_of_the_command() -> None:
    by_word = CliRunner().invoke(cli.main, ["help", "list", "events"]).output
    assert by_word.startswith("Usage: ")
    assert "headrace list events 'open*'" in CliRunner().invoke(cli.main, ["help", "list"]).output
    result = CliRunner().invoke(cli.main, ["help", "lst"])
    assert (result.exit_code, "did you mean list?" in result.output) == (2, True)


def test_the_version_is_a_command_too() -> None:
    told = CliRunner().invoke(cli.main, ["--version"]).output
    assert CliRunner().invoke(cli.main, ["version"]).output == told


def test_every_command_has_a_man_page(tmp_path: Path) -> None:
    pytest.importorskip("click_man")
    subprocess.run([sys.executable, "-m", "headrace.pipeline.command.manual", str(tmp_path)], check=True)
    pages = {path.name for path in tmp_path.iterdir()}
    assert pages == {"headrace.1", *(f"{name.replace(' ', '-')}.1" for name, _ in commands())}
    assert all(isinstance(command, click.Command) for _, command in commands())
    page = (tmp_path / "headrace-run.1").read_text()
    assert "kernel\\-checks" in page or "kernel-checks" in page
