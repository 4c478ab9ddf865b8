"""`--exec-hash`: the SHA-256 of what is run, from a process of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.fuse import OneFile, Unmountable
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
        "while read x; do cat /dev/null; done",
        stdin=-1,
    )
    assert running.ready
    hasher = running.stage("hasher")

    def other_rights() -> int:
        status = Path(f"/proc/{hasher}/status").read_text()
        return int(status.partition("CapEff:")[2].split()[0], 16) & ~(1 << 2 | 1 << 19)

    wait_for(lambda: not other_rights(), "the hasher to have one right")
    os.kill(hasher, signal.SIGKILL)
    wait_for(lambda: running.stages().get("hasher", hasher) != hasher, "another hasher")
    assert running.process.stdin is not None
    shown = f'"value":"{digest("/bin/cat")}"'

    def known() -> bool:
        # an event waits for a tenth of a second at most: the new hasher may have begun by then, or not
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        return shown in output.read_text()

    wait_for(known, "the digest in a line")
    status_, ledger, _ = running.end()
    assert (status_, ledger["balanced"], ledger["restarts"]) == (0, True, {"hasher": 1})


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


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_system_that_never_answers_holds_up_nothing(tmp_path: Path, remote: bool) -> None:
    """Its program has been run when it stops to answer. Asked for all the same, the hasher is left behind."""
    mount, output = tmp_path / "mount", tmp_path / "events"
    mount.mkdir()
    try:
        served = OneFile(mount, b"prog", Path("/bin/true").read_bytes() + os.urandom(1 << 20))
    except Unmountable as error:
        pytest.skip(f"FUSE cannot be mounted here: {error}")
    try:
        script = f"read x; {mount}/prog; : >{tmp_path}/done; read y; /bin/true"
        options = ["-e", EXEC, "--exec-hash", *(["--exec-hash-remote"] if remote else []), "-o", f"json:{output}"]
        running = Running(*options, "--", "/bin/sh", "-c", script, stdin=-1)
        hasher = running.stage("hasher")
        assert running.process.stdin
        os.kill(hasher, signal.SIGSTOP)
        print("x", file=running.process.stdin, flush=True)
        wait_for((tmp_path / "done").exists, "the program")
        served.freeze()
        os.kill(hasher, signal.SIGCONT)
        print("y", file=running.process.stdin, flush=True)
        status, ledger, errors = running.end()
        assert (status, ledger["balanced"]) == (0, True), errors
        assert ("supervisor.process_left_behind" in errors) is remote
    finally:
        served.close()


def test_what_others_serve_says_so_and_is_hashed_if_asked_for(tmp_path: Path) -> None:
    content = Path("/bin/true").read_bytes()
    try:
        served = OneFile(tmp_path, b"prog", content)
    except Unmountable as error:
        pytest.skip(f"FUSE cannot be mounted here: {error}")
    try:
        command = ["/bin/sh", "-c", f"{tmp_path}/prog; {tmp_path}/prog; sleep 0.3"]
        plain = trace(command, "-e", EXEC, "--exec-hash")
        asked = trace(command, "-e", EXEC, "--exec-hash", "--exec-hash-remote")
    finally:
        served.close()
    shown = [details(e, "sha256") for e in plain.events if arguments(e)["pathname"] == f"{tmp_path}/prog"]
    assert [d.get("reason") for d in shown] == ["file system"] * 2
    found = [arguments(e)["sha256"] for e in asked.events if arguments(e)["pathname"] == f"{tmp_path}/prog"]
    assert hashlib.sha256(content).hexdigest() in found
