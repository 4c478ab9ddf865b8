"""Commands of the README and of the documentation do what they are shown for: blocks marked `sh` are run, page by page.

A file that a page asks its reader to save is saved first. Blocks in Python of some pages are run, too. Blocks without a
mark are output, or trace the whole host, which no test does.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from headrace.pipeline.command.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
WITH_PYTHON = ("README.md", "who-opens-a-file.md")
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>sh|python|yaml)\n(?P<text>.*?)^```$", re.M | re.S)
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```$", re.M | re.S)
SAVED = re.compile(r"Save this as `(?P<name>[a-z.]+)`")
DEADLINE_S = 90


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """What stands before each block, its kind, and its text."""
    return [(found["before"], found["kind"], found["text"]) for found in BLOCK.finditer(page.read_text())]


def shown() -> list[tuple[str, str]]:
    """Every line of the documentation that begins with `headrace`, with its page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [(page.name, block) for page in pages for block in FENCE.findall(page.read_text().replace("\\\n", ""))]
    lines = [(name, line.removeprefix("$ ")) for name, block in texts for line in block.splitlines()]
    return sorted({(name, line) for name, line in lines if line.startswith("headrace ")})


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_command_that_is_shown_exists_with_its_options(page: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if word != "headrace"]
    command: click.Command = main
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    known = {each for option in command.params for each in (*option.opts, *option.secondary_opts)} | {"-h", "--help"}
    if command is main:
        return  # what the ledger and usage lines begin with
    for word in words:
        if word in ("--", "|", ">", "<", "&", "&&", "||"):
            break
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"{page}: {line}"


@pytest.mark.kernel
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(kind == "sh" for _, kind, _ in blocks(p))], ids=lambda p: p.name
)
def test_the_commands_of_a_page_succeed(page: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for before, kind, text in blocks(page):
        if kind == "yaml":
            if saved := SAVED.search(before):
                (tmp_path / saved["name"]).write_text(text)
            continue
        if kind == "python" and page.name not in WITH_PYTHON:
            continue
        line = ["sh", "-e", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "NOT BALANCED" not in done.stderr


def test_the_two_commands_are_those_of_ci() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "\nmake demo " in readme
    assert "\nmake test " in readme
    assert "\nmake test\n" in ci
