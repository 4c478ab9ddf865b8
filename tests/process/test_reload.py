"""Signatures that are read again while events go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest

from headrace.pipeline.process.books import Ledger
from headrace.pipeline.run import live
from tests.live import Running, headrace, in_process, let_go, start_load, wait_for

pytestmark = pytest.mark.kernel
EXAMPLES = "examples: {match: [{event: getppid}], near_miss: [{event: getpid}]}"
STATEFUL = """
from headrace.signature import Event, Signature, State


class Pair(Signature):
    id, name, description, severity = "KEEP-1", "pair", "A second sysinfo after a first.", "low"
    events = {"sysinfo": None}
    state = "process"

    def on_event(self, event: Event, state: State) -> bool:
        state["times"] = state.get("times", 0) + 1
        return state["times"] == 2
"""
TWICE = "import ctypes, sys; l = ctypes.CDLL(None); b = bytes(512)\nfor _ in sys.stdin: l.sysinfo(b); print(flush=True)"
RATE, RELOADS = 20_000, 14
LOADED = {"loaded": 2, "left_out": 0, "not_covered": 0, "refused": 0}


def rule(name: str, event: str = "getppid") -> str:
    return f"id: {name}\nname: {name.lower()}\nseverity: low\nevents: {{{event}: null}}\n{EXAMPLES}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir()
    (made / "gen.yaml").write_text(rule("GEN-1"))
    (made / "pair.py").write_text(STATEFUL)
    return made


def started(folder: Path, *more: str) -> tuple[Running, Path]:
    found = folder.parent / "found"
    scope = ("-s", f"tree={os.getpid()}", "--signatures", str(folder), "--rules", "GEN-*", "--rules", "KEEP-*")
    running = Running(*scope, "--fold", "0", "--findings", f"json:{found}", *more)
    assert running.ready, running.end()
    return running, found


def findings(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def reloaded(running: Running) -> subprocess.CompletedProcess[str]:
    return headrace("reload", str(running.process.pid))


@pytest.fixture
def actor() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", TWICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.communicate()


def act(actor: subprocess.Popen[str]) -> None:
    assert actor.stdin is not None
    assert actor.stdout is not None
    actor.stdin.write("\n")
    actor.stdin.flush()
    actor.stdout.readline()


@pytest.mark.parametrize("kill", [False, True], ids=["alive", "a worker is killed"])
def test_each_event_is_looked_at_by_one_generation_while_they_change(
    folder: Path, binaries: dict[str, Path], actor: subprocess.Popen[str], kill: bool
) -> None:
    load = start_load(binaries["load"], "getppid", 0, rate=RATE)
    running, found = started(folder, "--workers", "2")
    act(actor)
    let_go(load)
    for generation in range(2, RELOADS + 2):
        (folder / "gen.yaml").write_text(rule(f"GEN-{generation}"))
        running.process.send_signal(signal.SIGHUP)
        if kill and generation % 7 == 0:
            os.kill(running.stage("worker-0"), signal.SIGKILL)
        wait_for(lambda g=generation: stat(running).signatures["generation"] == g, f"generation {generation}")
    wait_for(lambda: f"GEN-{RELOADS + 1}" in stat(running).by_rule, "an event for the last generation")
    calls = int(load.communicate()[0].split()[0])
    act(actor)
    running.process.send_signal(signal.SIGINT)
    _, ledger, errors = running.end()
    assert ledger["balanced"], errors
    assert (ledger["lost"], ledger["dropped"]) == (0, 0)
    assert ledger["signatures"] == LOADED | {"generation": RELOADS + 1, "reloads": RELOADS}
    latest = ledger["by_rule"][f"GEN-{RELOADS + 1}"]
    assert latest["matched"] <= latest["evaluated"]
    assert latest["time_ns"] > 0
    seen = findings(found)
    by_load = [f for f in seen if f["process"]["pid"] == load.pid]
    assert len(by_load) >= calls > 0
    assert all(f["signatureID"] == f"GEN-{f['generation']}" for f in by_load)
    called = Counter((f["timestamp"], f["process"]["tid"]) for f in by_load)
    assert max(called.values()) == 1
    assert len(ledger["restarts"]) == kill
    if kill:
        return  # what a signature has kept is gone with its worker
    # one that is followed at once by another may see nothing
    assert len({f["generation"] for f in by_load}) > RELOADS // 2
    pairs = [f for f in seen if f["signatureID"] == "KEEP-1"]
    assert ledger["by_rule"]["KEEP-1"]["matched"] == 1
    assert [(f["process"]["pid"], f["generation"], f["complete"]) for f in pairs] == [(actor.pid, RELOADS + 1, True)]


def stat(running: Running) -> Ledger:
    found = live.ask(live.directory() / f"{running.process.pid}.sock")
    assert found is not None
    return found


def test_a_set_with_a_mistake_is_refused_whole(folder: Path) -> None:
    running, found = started(folder)
    (folder / "gen.yaml").write_text(rule("GEN-2"))
    (folder / "more.yaml").write_text("id: GEN-3\nname: x\nevents: {getppid: {nothing: 1}}\n")
    done = reloaded(running)
    assert (done.returncode, done.stdout) == (65, "")
    assert "more.yaml:3: GEN-3: getppid has no field nothing" in done.stderr
    os.getppid()
    wait_for(lambda: found.read_text(), "a finding of the set before")
    (folder / "more.yaml").unlink()
    done = reloaded(running)
    told = "generation 2: 2 signatures\n  added: GEN-2\n  removed: GEN-1\n"
    assert (done.returncode, done.stdout) == (0, told), done.stderr
    os.getppid()
    wait_for(lambda: b"GEN-2" in found.read_bytes(), "a finding of the new set")
    wait_for(lambda: os.getppid() and "GEN-2" in stat(running).by_rule, "the counts of the new set")
    shown = headrace("stat", str(running.process.pid), "--rules").stdout.splitlines()
    assert shown[0].split() == ["SIGNATURE", "evaluated", "matched", "undecided", "ms", "ns", "each"]
    assert shown[1].split()[0] == "GEN-2"
    running.process.send_signal(signal.SIGINT)
    status, ledger, errors = running.end()
    assert status == 0
    assert "supervisor.signatures_refused" in errors
    assert ledger["signatures"] == LOADED | {"generation": 2, "reloads": 1, "refused": 1}
    assert {f["signatureID"] for f in findings(found)} == {"GEN-1", "GEN-2"}


def test_the_kernel_is_asked_for_what_the_new_set_looks_at_and_no_longer_for_what_only_the_old_one_did(
    folder: Path,
) -> None:
    running, found = started(folder)
    (folder / "gen.yaml").write_text(rule("GEN-2", "getpgrp"))
    assert reloaded(running).returncode == 0
    os.getpgrp()
    wait_for(lambda: b"GEN-2" in found.read_bytes(), "a finding of a call that nobody looked at before")

    def asked() -> int:
        os.getppid()
        return int(stat(running).by_event.get("getppid", {}).get("produced", 0))

    wait_for(lambda: asked() == asked(), "the kernel to leave out the other call")
    (folder / "gen.yaml").write_text(rule("GEN-3", "security_file_open"))
    done = reloaded(running)
    said = "generation 3: 2 signatures, 1 not covered (the run's log says why)\n  added: GEN-3\n  removed: GEN-2\n"
    assert (done.returncode, done.stdout) == (0, said)
    running.process.send_signal(signal.SIGINT)
    _, ledger, errors = running.end()
    assert ledger["balanced"], errors
    assert "id=GEN-3" in errors
    assert "this run has no program for it; start it again" in errors


def test_a_run_without_signatures_cannot_read_them_again(tmp_path: Path) -> None:
    running = Running("-s", f"tree={os.getpid()}", "-e", "getppid", "-o", f"json:{tmp_path / 'events'}")
    assert running.ready
    done = reloaded(running)
    assert (done.returncode, done.stderr) == (69, f"headrace: the run {running.process.pid} has no signatures\n")
    running.process.send_signal(signal.SIGINT)
    assert running.end()[1]["balanced"]
    done = in_process("reload", "1")
    assert done.returncode == 69


def opened(path: str, name: str) -> str:
    return f"id: {name}\nname: {name.lower()}\nseverity: low\nevents: {{security_file_open: {{pathname: {path}}}}}\n"


def test_the_kernel_keeps_back_what_none_can_match_while_the_set_is_the_first(folder: Path) -> None:
    one, other = folder.parent / "one", folder.parent / "other"
    (folder / "gen.yaml").write_text(opened(str(one), "GEN-1"))
    running, found = started(folder)
    for path in (one, other):
        path.touch()

    def told() -> int:
        """How many of these opens the kernel tells of."""
        before = stat(running).by_event.get("security_file_open", Counter())["produced"]
        for _ in range(10):
            other.read_bytes()
        return int(stat(running).by_event.get("security_file_open", Counter())["produced"] - before)

    assert told() == 0
    one.read_bytes()
    wait_for(lambda: "GEN-1" in found.read_text(), "a finding of the first set")
    (folder / "gen.yaml").write_text(opened(str(other), "GEN-2"))
    assert reloaded(running).returncode == 0
    assert told() == 10
    wait_for(lambda: "GEN-2" in found.read_text(), "a finding of the second set")
    (folder / "gen.yaml").write_text(opened(str(one), "GEN-1"))
    assert reloaded(running).returncode == 0
    wait_for(lambda: told() == 0, "the kernel to keep them back again")
    running.process.send_signal(signal.SIGINT)
    _, ledger, errors = running.end()
    assert ledger["balanced"], errors
    assert ledger["lost"] == ledger["dropped"] == 0
    assert {f["signatureID"]: f["data"] for f in findings(found)}.keys() == {"GEN-1", "GEN-2"}


IN_NO_WORKER = (
    STATEFUL.replace("KEEP-1", "KEEP-2")
    + """
if open("/proc/self/comm").read().startswith("hr-worker"):
    raise RuntimeError("not in this process")
"""
)


def test_a_set_that_a_worker_cannot_load_is_refused_and_the_set_before_holds_again(folder: Path) -> None:
    running, found = started(folder, "--workers", "2")
    (folder / "gen.yaml").write_text(rule("GEN-2"))
    (folder / "odd.py").write_text(IN_NO_WORKER)
    done = reloaded(running)
    assert (done.returncode, done.stdout) == (65, "")
    assert "could not load them" in done.stderr
    os.getppid()
    wait_for(lambda: b"GEN-1" in found.read_bytes(), "a finding of the set before")
    (folder / "odd.py").unlink()
    assert reloaded(running).returncode == 0
    os.getppid()
    wait_for(lambda: b"GEN-2" in found.read_bytes(), "a finding of the new set")
    running.process.send_signal(signal.SIGINT)
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {}), errors
    assert "not in this process" in errors
    assert ledger["signatures"] == LOADED | {"generation": 4, "reloads": 1, "refused": 1}


def test_broken_sigma_files_beside_good_ones_are_named_and_a_live_run_goes_on(folder: Path) -> None:
    sigma, calls = folder.parent / "sigma", "logsource: {product: linux, category: process_creation}"
    sigma.mkdir()

    def write(name: str, detection: str) -> None:
        (sigma / name).write_text(f"title: {name}\nid: {uuid5(NAMESPACE_DNS, name)}\n{calls}\ndetection: {detection}\n")

    def run_true(word: str) -> None:
        subprocess.run(["true", word], check=True)

    write("good.yml", "{s: {CommandLine|contains: first-word}, condition: s}")
    running, found = started(folder, "--sigma", str(sigma), "--rules", "*", "--exclude", "TRC-*,HR-*")
    run_true("first-word")
    wait_for(lambda: b"first-word" in found.read_bytes(), "a finding of the Sigma rule")
    write("more.yml", "{s: {CommandLine|contains: second-word}, condition: s}")
    write("empty.yml", "{s: {CommandLine: x}, condition: }")
    write("port.yml", "{s: {CommandLine|gt: 79.5.1}, condition: s}")
    write("surrogate.yml", r'{s: {CommandLine: "a\ud800b"}, condition: s}')
    (sigma / "bytes.yml").write_bytes(b"\xff\x00title")
    os.mkfifo(sigma / "pipe.yml")
    (sigma / "folder.yml").mkdir()
    (sigma / "gone.yml").symlink_to("nowhere")
    done = reloaded(running)
    told = "generation 2: 4 signatures, 6 left out (the run's log says why)\n"
    assert (done.returncode, done.stdout.startswith(told)) == (0, True), done.stdout
    for word in ("first-word", "second-word"):
        run_true(f"{word}-again")
        wait_for(lambda word=word: f"{word}-again".encode() in found.read_bytes(), f"a finding of {word}")
    running.process.send_signal(signal.SIGINT)
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {}), errors
    for name in ("empty", "port", "surrogate", "bytes", "pipe", "gone"):
        assert f"left out: {sigma / name}.yml: " in errors or f"left out: {sigma / name}.yml:" in errors, errors


def test_the_configuration_is_read_again_whole_and_taken_whole(folder: Path) -> None:
    config, found = folder.parent / "headrace.yaml", folder.parent / "found"
    (folder / "gen.yaml").write_text(f"---\n{rule('GEN-1')}---\n{rule('GEN-2')}")

    def write(more: str) -> None:
        config.write_text(f"signatures: {folder}\nfindings: json:{found}\nfold_s: 0\n{more}")

    write("rules: [GEN-*]\n")
    running = Running("-c", str(config), "-s", f"tree={os.getpid()}")
    assert running.ready, running.end()
    write("rules: [GEN-*]\nexclude: [GEN-1]\nworkers: 3\n")
    done = reloaded(running)
    assert done.returncode == 65
    assert f"workers ({config}:6)" in done.stderr
    assert "start the run again" in done.stderr
    assert stat(running).signatures["generation"] == 1
    write("rules: [GEN-*]\nexclude: [GEN-1]\nworkrs: 3\n")
    done = reloaded(running)
    assert (done.returncode, f"{config}:6: no such key: workrs" in done.stderr) == (65, True)
    write("rules: [GEN-*]\nexclude: [GEN-1]\n")
    done = reloaded(running)
    assert (done.returncode, done.stdout) == (0, "generation 2: 1 signatures\n  removed: GEN-1\n"), done.stderr
    os.getppid()
    wait_for(lambda: b"GEN-2" in found.read_bytes(), "a finding of the set that is left")
    after = len(findings(found))
    os.getppid()
    wait_for(lambda: len(findings(found)) > after, "another finding")
    assert {f["signatureID"] for f in findings(found)[after:]} == {"GEN-2"}
    running.process.send_signal(signal.SIGINT)
    _, ledger, errors = running.end()
    assert ledger["balanced"], errors


def test_a_policy_that_only_moved_in_its_file_has_not_changed(folder: Path) -> None:
    config = folder.parent / "headrace.yaml"
    policy = f"policy:\n  - name: mine\n    scope: tree={os.getpid()}\n    signatures: [GEN-*]\n"
    config.write_text(f"signatures: {folder}\nfindings: none\n{policy}")
    running = Running("-c", str(config))
    assert running.ready, running.end()
    config.write_text(f"signatures: {folder}\nexceptions: ''\nmin_severity: info\nfindings: none\n{policy}")
    done = reloaded(running)
    assert (done.returncode, done.stdout) == (0, "generation 2: 1 signatures\n"), done.stderr
    running.process.send_signal(signal.SIGINT)
    assert running.end()[1]["balanced"] is True


def test_policies_get_the_signatures_that_a_reload_brings(folder: Path) -> None:
    policy, found = folder.parent / "policy.yaml", folder.parent / "found"
    text = f"name: mine\nscope: tree={os.getpid()}\nsignatures: [GEN-*]\n"
    policy.write_text(text)
    running = Running(
        *("--policy", str(policy), "--signatures", str(folder), "--findings", f"json:{found}", "--fold", "0")
    )
    assert running.ready, running.end()
    (folder / "more.yaml").write_text(rule("GEN-2", "getpgid"))
    done = reloaded(running)
    assert (done.returncode, done.stdout) == (0, "generation 2: 2 signatures\n  added: GEN-2\n"), done.stderr
    os.getpgid(0)
    wait_for(lambda: b"GEN-2" in found.read_bytes(), "a finding of the new signature")
    assert [f["matchedPolicies"] for f in findings(found) if f["signatureID"] == "GEN-2"] == [["mine"]]
    policy.write_text(text.replace("mine", "ours"))
    done = reloaded(running)
    assert (done.returncode, "the policies; start the run again" in done.stderr) == (65, True), done.stderr
    running.process.send_signal(signal.SIGINT)
    _, ledger, errors = running.end()
    assert ledger["balanced"], errors
