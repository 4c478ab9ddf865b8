"""`--exec-hash`: the SHA-256 of what is run, from a process of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.live import Running, Traced, arguments, details, headrace, trace, wait_for

pytestmark = pytest.mark.kernel
EXEC = "sched_process_exec"


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def by_path(traced: Traced) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for event in traced.events:
        found.setdefault(arguments(event)["pathname"], []).append(arguments(event)["sha256"])
    return found


@pytest.mark.parametrize("workers", ["1", "3"])
def test_each_file_has_its_own(tmp_path: Path, workers: str) -> None:
    mine = tmp_path / "mine"
    shutil.copy("/bin/true", mine)
    script = f"{mine}; ls / >/dev/null; printf x >>{mine}; {mine}; cat /etc/hostname"
    before = digest(mine)
    traced = trace(["/bin/sh", "-c", script], "-e", EXEC, "--exec-hash", "--workers", workers)
    found = by_path(traced)
    # the file was changed in between: the first may be known too late, but never by the other's digest
    first, second = found.pop(str(mine))
    assert first in (before, None)
    assert second == digest(mine) != before
    assert {path: set(values) for path, values in found.items()} == {path: {digest(path)} for path in found}
    assert len(found) == 3
    assert details(traced.events[-1], "sha256")["source"] == "hash"


def test_what_was_removed_says_why(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copy("/bin/true", mine)
    # the shell's own image goes away while it runs: only /proc/PID/exe still leads there
    shell = tmp_path / "shell"
    shutil.copy("/bin/dash", shell)
    kept = digest(shell)
    script = f"rm {shell}; read line; exit 0"
    traced = trace([str(shell), "-c", script], "-e", EXEC, "--exec-hash", stdin="\n")
    assert by_path(traced)[str(shell)] in ([kept], [None])
    gone = trace(["/bin/sh", "-c", f"{mine}; rm {mine}"], "-e", EXEC, "--exec-hash")
    shown = details(next(e for e in gone.events if arguments(e)["pathname"] == str(mine)), "sha256")
    assert shown["value"] == digest("/bin/true") or shown["reason"] in ("gone", "changed", "pending")


def test_nothing_is_shown_or_started_unless_asked_for() -> None:
    traced = trace(["/bin/true"], "-e", EXEC)
    assert "sha256" not in arguments(traced.events[-1])


def test_the_hasher_may_die_and_has_one_right(tmp_path: Path) -> None:
    output = tmp_path / "events"
    running = Running(
        "-e",
        EXEC,
        "--exec-hash",
        "-o",
        f"json:{output}",
        "--",
        "/bin/sh",
        "-c",
        "read x; ls /; read y; cat /dev/null",
        stdin=-1,
    )
    assert running.ready
    hasher = running.stages()["hasher"]
    status = Path(f"/proc/{hasher}/status").read_text()
    rights = int(status.partition("CapEff:")[2].split()[0], 16)
    assert rights & ~(1 << 2 | 1 << 19) == 0
    os.kill(hasher, signal.SIGKILL)
    wait_for(lambda: running.stages().get("hasher", hasher) != hasher, "another hasher")
    assert running.process.stdin is not None
    running.process.stdin.write("\n\n")
    running.process.stdin.flush()
    status_, ledger, _ = running.end()
    assert (status_, ledger["balanced"], ledger["restarts"]) == (0, True, {"hasher": 1})
    assert f'"value":"{digest("/bin/cat")}"' in output.read_text()


def test_a_replay_hashes_nothing(tmp_path: Path) -> None:
    recording = tmp_path / "r.hrc"
    trace(["/bin/true"], "-e", EXEC, "--exec-hash", "--record", str(recording))
    done = headrace("replay", str(recording), "-o", "json:-")
    assert '"sha256"' not in done.stdout
    refused = headrace("replay", str(recording), "-o", "option:exec-hash")
    assert (refused.returncode, "on the host that runs them" in refused.stderr) == (2, True)


def test_a_condition_on_it_is_refused() -> None:
    done = headrace("run", "-e", f"{EXEC}.args.sha256=00", "--", "true")
    assert (done.returncode, "computed behind the conditions" in done.stderr) == (2, True)
