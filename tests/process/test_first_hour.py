"""What a person sees who tries headrace for the first time: on a terminal, in a pipe, with habits from other tools."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.live import HEADRACE

pytestmark = pytest.mark.kernel
STORY = """
cat /nono
echo text > written
exec 3<>/dev/tcp/127.0.0.1/9
kill -9 $$
"""


def on_terminal(columns: int, *arguments: str, cwd: Path | None = None) -> tuple[int, list[str]]:
    """(status, lines) of headrace on a terminal of that width. A line that is replaced is left out."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen([HEADRACE, *arguments], stdin=its, stdout=its, stderr=its, cwd=cwd, env=env) as running:
        os.close(its)
        said = b""
        while True:
            try:
                part = os.read(mine, 65536)
            except OSError:
                break
            if not part:
                break
            said += part
        os.close(mine)
        status = running.wait(60)
    lines = said.decode().replace("\r\n", "\n").split("\n")
    return status, [line.rpartition("\r\x1b[K")[2] for line in lines if line]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [HEADRACE, "run", *arguments], capture_output=True, text=True, check=False, timeout=90, **options
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("story")
    status, lines = on_terminal(80, "run", "--", "bash", "-c", STORY, cwd=folder)
    assert status == 137
    return lines


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_a_run_says_what_it_does_and_what_came_of_it(story: list[str]) -> None:
    said = [line for line in story if line.startswith("headrace: ")]
    assert said[0].startswith("headrace: tracing `bash -c")
    assert any(re.match(r"headrace: \d+ signatures", line) for line in said)
    assert any(re.fullmatch(r"headrace: ready in \d+\.\d s", line) for line in said)
    assert re.fullmatch(r"headrace: (no|\d+) findings?; [\d,]+ events looked at in \d+\.\d s; nothing lost", said[-1])
    assert story.index(said[-1]) < next(i for i, line in enumerate(story) if line.startswith("ledger: "))


def test_a_command_is_told_as_a_story(story: list[str]) -> None:
    told = [" ".join(line.split()[2:]) for line in plain(story) if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert "cat ran cat /nono" in told
    assert "cat failed ENOENT: /nono" in told
    assert "cat ended with status 1" in told
    assert any(re.match(r"bash wrote .*written|bash wrote /.*…", line) for line in told)
    assert "bash refused ECONNREFUSED: 127.0.0.1:9" in told
    assert "bash ended killed by SIGKILL" in told


def test_lines_fit_the_terminal(story: list[str]) -> None:
    told = [line for line in plain(story) if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert told
    assert max(map(len, told)) <= 80


@pytest.mark.parametrize(("columns", "begins"), [(80, "TIME         PID COMM"), (200, "TIME            USER")])
def test_a_table_shows_the_path_first(columns: int, begins: str, tmp_path: Path) -> None:
    _, lines = on_terminal(columns, "run", "-q", "-e", "openat", "--", "cat", "/etc/hostname")
    shown = plain(lines)
    assert any(line.startswith(begins) for line in shown)
    (line,) = (line for line in shown if "/etc/hostname" in line)
    assert len(line) <= columns
    assert "AT_FDCWD" not in line
    assert "mode=" not in line


def test_verbose_tables_have_everything() -> None:
    _, lines = on_terminal(200, "run", "-q", "-v", "-e", "openat", "--", "cat", "/etc/hostname")
    (line,) = (line for line in plain(lines) if "/etc/hostname" in line)
    assert "dirfd=AT_FDCWD, pathname=/etc/hostname" in line


def test_nothing_is_told_where_nobody_reads(tmp_path: Path) -> None:
    done = run("--", "true")
    assert not done.stdout
    assert done.stderr.startswith("ledger: ")
    assert not run("-q", "--", "true").stderr


def test_a_command_keeps_its_output_when_nothing_else_is_asked_for() -> None:
    done = run("--", "sh", "-c", "echo one; head -c1 /proc/sys/kernel/randomize_va_space")
    assert done.stdout.splitlines()[0] == "one"
    assert "TRC-109" in done.stderr
    assert "TRC-109" not in done.stdout


def test_json_on_standard_output_is_nothing_else() -> None:
    done = run("-o", "json", "-e", "execve", "--", "sh", "-c", "echo one; ls /nonexistent")
    assert {json.loads(line)["eventName"] for line in done.stdout.splitlines()} == {"execve"}
    assert done.stderr.startswith("one\n")


@pytest.mark.parametrize("output", ["json", "table", "fields=pid,args.pathname"])
def test_count_ends_the_run_with_so_many_lines(output: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    options = ("-q", "-e", "getppid", "-o", output, "--count", "7", "--ledger", str(ledger))
    done = run(*options, "--", sys.executable, "-S", "-c", "import os; [os.getppid() for _ in range(5000)]")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("TIME")]
    assert len(lines) == 7
    books = json.loads(ledger.read_text())
    assert books["balanced"]
    assert books["sinks"][0]["written"] == 7


def test_duration_ends_the_run_and_its_command() -> None:
    done = run("-q", "--duration", "500ms", "-e", "getppid", "-o", "none", "--", "sleep", "60")
    assert done.returncode == 143


def test_own_lines() -> None:
    done = run("-q", "-e", "openat", "-p", "%{comm} %{user}: %{args.pathname} %{error}", "--", "cat", "/nono")
    assert f"cat {os.environ.get('USER', 'root')}: /nono ENOENT" in done.stdout.splitlines()
    done = run("-q", "-e", "execve", "-o", "fields=comm,args.argv", "--", "true")
    assert done.stdout == "true\t[true]\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--",), "nothing follows --: there is no command to trace"),
        (("-e", "openat", "--"), "nothing follows --"),
        (("--duration", "soon", "--", "true"), "'soon' is not a duration such as 10, 500ms, 5m or 1h"),
        (("--count", "0", "--", "true"), "0 is not in the range"),
        (("-p", "abc"), "-p abc: neither process ids nor a format"),
        (("-p", "%{pids}", "--", "true"), "no such field: pids; did you mean pid?"),
        (("-p", "4194304"), "can never match"),
    ],
)
def test_what_it_cannot_do_is_said(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
