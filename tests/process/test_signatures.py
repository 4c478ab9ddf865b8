"""Signatures as users meet them: the tutorial of the documentation, what is refused, and findings on every sink."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import zmq

from headrace.workers.conditions.narrowing import MAX_MEASURED, MAX_PATTERNS
from tests.live import HEADRACE, Running, headrace, in_process, wait_for

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "finding.schema.json").read_text())
ONLY = ("--rules", "BAD", "--rules", "TRC-109")
"""What is not looked at need not be loaded into the kernel."""
TUTORIAL = (ROOT / "docs" / "reference" / "signatures.md").read_text()


def block(title: str, language: str) -> str:
    """The first block of that language below a heading of the tutorial."""
    part = TUTORIAL.split(f"\n## {title}\n", 1)[1]
    found = re.search(rf"```{language}\n(.*?)```", part, re.S)
    assert found
    return found[1]


@pytest.fixture
def my(tmp_path: Path) -> Path:
    """The folder that the tutorial has made."""
    folder = tmp_path / "my"
    folder.mkdir()
    (folder / "shells.yaml").write_text(block("A signature in YAML", "yaml"))
    (folder / "again.py").write_text(block("A signature in Python", "python"))
    return folder


def test_what_the_tutorial_writes_holds_its_examples(my: Path) -> None:
    done = headrace("signatures", "test", str(my))
    assert (done.returncode, done.stdout) == (0, "4 examples hold, 0 do not; 0 signatures have none\n"), done.stderr
    done = headrace("signatures", "check", "--json", str(my))
    assert done.returncode == 0
    assert {json.loads(line)["id"]: json.loads(line)["coverage"] for line in done.stdout.splitlines()} == {
        "MY-1": "full",
        "MY-2": "partial",  # io_uring opens files unseen
    }


@pytest.mark.kernel
def test_what_the_tutorial_writes_fires(my: Path, tmp_path: Path) -> None:
    shell = Path(f"/tmp/hr-tutorial-{os.getpid()}") / "sh"
    shell.parent.mkdir()
    sigma = tmp_path / "sigma"
    sigma.mkdir()
    (sigma / "rule.yml").write_text(
        "title: A listing\nid: 00000000-0000-4000-8000-00000000000a\nauthor: Somebody\nlevel: low\nstatus: test\n"
        "logsource: {product: linux, category: process_creation}\n"
        "detection:\n  selection:\n    Image|endswith: /ls\n    CommandLine|contains: ' -d '\n  condition: selection\n"
    )
    try:
        shell.write_bytes(Path("/bin/sh").read_bytes())
        shell.chmod(0o700)
        found = tmp_path / "found"
        script = f"exec 3</etc/passwd 4</etc/passwd 5</etc/passwd; {shell} -c :; ls -d /"
        options = ["--signatures", str(my), "--sigma", str(sigma), "--rules", "MY-*", "--rules", "0000*"]
        options += ["--workers", "2", "--before", "5", "--findings", f"json:{found}"]
        done = headrace("run", *options, "--", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
    finally:
        shell.unlink()
        shell.parent.rmdir()
    findings = [json.loads(line) for line in found.read_text().splitlines()]
    assert [f["signatureID"] for f in findings] == ["MY-2", "MY-1", "00000000-0000-4000-8000-00000000000a"]
    for finding in findings:
        jsonschema.validate(finding, SCHEMA)
        assert {event["hostProcessId"] for event in finding["before"]} <= {finding["process"]["pid"]}
        times = [event["timestamp"] for event in finding["before"]]
        assert times == sorted(times)
        assert all(time <= finding["timestamp"] for time in times)
    assert {"security_file_open"} <= {event["eventName"] for event in findings[0]["before"]}
    assert findings[0]["data"] == {"times": 2}
    first, second = findings[0]["events"]
    assert first["eventName"] == second["eventName"] == "security_file_open"
    assert first["timestamp"] < second["timestamp"] == findings[0]["timestamp"]
    assert findings[1]["data"]["argv"] == [str(shell), "-c", ":"]
    assert (findings[2]["author"], findings[2]["level"], findings[2]["title"]) == ("Somebody", "low", "A listing")
    assert findings[2]["process"]["commandLine"] == "ls -d /"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("id: [", "not YAML"),
        ("id: X\nname: x", "the key events is missing"),
        ("id: X\nname: x\nevents: [ptrace]\nsevrity: low", "no such key: sevrity; did you mean severity?"),
        ("id: X\nname: x\nevents: [ptrac]", "no such event: ptrac; did you mean ptrace?"),
        ("id: X\nname: x\nevents: {ptrace: {reqest: 0}}", "ptrace has no field reqest; did you mean request?"),
        ("id: X\nname: x\nevents: {ptrace: {request: PTRACE_TRACEM}}", "did you mean PTRACE_TRACEME?"),
        ("id: X\nname: x\nevents: {ptrace: {request|contains: a}}", "request is a number: contains does not apply"),
        ("id: X\nname: x\nevents: {openat: {pathname|re: '(?=x)'}}", "not a regular expression of RE2"),
        ("id: X\nname: x\nevents: {openat: {pathname: {list: shells}}}", "no such list: shells"),
        ("id: X\nname: x\nevents: {openat: {pathname: yes}}", "put it in quotes"),
        ("lists: {a: [{list: b}], b: [{list: a}]}", "contains itself: a -> b -> a"),
        ("- {id: X, name: x, events: [ptrace]}\n- {id: X, name: y, events: [ptrace]}", "another rule has this id"),
        ("id: X\nid: Y\nname: x\nevents: [ptrace]", "the key id stands twice"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    done = in_process("signatures", "check", str(path))
    assert done.returncode == 1
    assert why in done.stdout
    run = in_process("run", "--signatures", str(path), "--", "true")
    assert run.returncode == 2
    assert f"{path}:" in run.stderr
    assert why in run.stderr


def test_paths_of_sigma_rules_that_are_not_there_end_a_run(tmp_path: Path) -> None:
    plain, windows = tmp_path / "plain.yml", tmp_path / "rules" / "windows.yml"
    plain.write_text("a: 1\n")
    windows.parent.mkdir()
    windows.write_text(
        "title: x\nid: 00000000-0000-4000-8000-00000000000a\nlogsource: {product: windows}\n"
        "detection:\n  a:\n    Image: x\n  condition: a\n"
    )
    for path, why in ((tmp_path / "none", "No such file"), (plain, "not a Sigma rule")):
        for command in (("run", "--sigma", str(path), "--", "true"), ("analyze", "--sigma", str(path), "/dev/null")):
            done = headrace(*command)
            assert (done.returncode, done.stdout) == (2, "")
            assert why in done.stderr
    done = headrace("analyze", "--sigma", str(windows.parent), "/dev/null")
    assert done.returncode == 0
    assert "left out" in done.stderr
    assert "a rule for windows" in done.stderr


def test_what_is_off_is_shown_and_tested(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    examples = "examples: {match: [{event: ptrace}], near_miss: [{event: getpid}]}"
    path.write_text(f"id: OFF-1\nname: dormant\nenabled: false\nevents: [ptrace]\n{examples}\n")
    assert in_process("signatures", "test", str(path)).stdout.startswith("2 examples hold")
    assert "(off)" in in_process("signatures", "list", str(path)).stdout
    assert "not enabled" in in_process("signatures", "show", "OFF-1", str(path)).stdout
    event = json.dumps({"eventName": "ptrace", "args": [{"name": "request", "type": "int", "value": 16}]})
    for more, found in (((), 0), (("--rules", "OFF-*,TRC-1"), 1)):
        done = headrace("analyze", "--signatures", str(path), *more, "-", stdin=None, input=event)
        assert len(done.stdout.splitlines()) == found, done.stderr


def test_ids_that_are_taken_are_said_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- {id: X, name: x, events: [ptrace]}\n- {id: TRC-107, name: z, events: [ptrace]}\n")
    done = in_process("signatures", "check", str(path))
    assert done.returncode == 1
    assert f"{path}: TRC-107: " in done.stdout
    assert "another rule has this id: " in done.stdout
    assert "full 1 " in done.stdout
    assert in_process("signatures", "list", str(tmp_path / "none")).returncode == 1
    own = in_process("signatures", "check", str(ROOT / "config" / "signatures"))
    assert (own.returncode, own.stdout) == (0, in_process("signatures", "check").stdout)


def test_exceptions_of_signatures_that_are_not_on_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "exceptions.yaml"
    for text, why in (
        ("- {id: TRC-109, unless: {process.name: a}}", ""),
        ("- {id: TRC-10999, unless: {process.name: a}}", "no signature has the id TRC-10999; did you mean TRC-109?"),
        ("- {id: TRC-109, unless: {process.nam: a}}", "no event of it has process.nam"),
    ):
        path.write_text(text)
        done = headrace("analyze", "--rules", "TRC-107", "--exceptions", str(path), "/dev/null")
        assert (done.returncode, why in done.stderr) == (2 if why else 0, True), done.stderr


def test_state_that_forked_children_may_not_have_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    code = (
        "from headrace.signature import Signature\n\n\nclass Mine(Signature):\n    id, name = 'MINE', 'mine'\n"
        "    state = 'fork'\n    events = {'openat': None, 'ptrace': None}\n"
    )
    path.write_text(code)
    done = in_process("signatures", "check", str(path))
    assert done.returncode == 1
    assert "openat goes to one worker" in done.stdout
    assert "state fork shares all of its events" in done.stdout
    path.write_text(code + "    shared = ['ptrace']\n")
    done = in_process("signatures", "check", "--json", str(path))
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["coverage"], told["reason"].split(":")[0]) == ("partial", "openat")


def test_a_pipe_that_is_closed_ends_other_commands_as_well() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([HEADRACE, "signatures", "list"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import nothing_like_this", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_code_that_cannot_be_loaded_is_refused(tmp_path: Path, code: str, why: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(code + "\n")
    done = in_process("signatures", "check", str(path))
    assert done.returncode == 1
    assert why in done.stdout
    assert "line 1" in done.stdout


@pytest.mark.kernel
def test_code_that_fails_is_counted_and_switched_off_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from headrace.signature import Signature\n\n\nclass Bad(Signature):\n"
        "    id, name, events = 'BAD', 'bad', {'getppid': None}\n\n"
        "    def on_event(self, event, state):\n        raise ValueError('no')\n"
    )
    script = "import os\nfor _ in range(50): os.getppid()\nopen('/proc/sys/kernel/randomize_va_space')"
    found = tmp_path / "found"
    done = headrace(
        *("run", "--signatures", str(tmp_path), *ONLY, "--findings", f"json:{found}"),
        *("--", sys.executable, "-S", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["signatureID"] for line in found.read_text().splitlines()] == ["TRC-109"]
    assert done.stderr.count("bad.py:8: BAD: ValueError: no") == 10
    assert "it is off now" in done.stderr
    assert "balanced" in done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("body", "what"), [("__import__('os')._exit(7)", "ended its worker"), ("while True: pass", "did not return")]
)
def test_code_that_ends_or_holds_its_worker_is_switched_off_and_nothing_is_lost(
    tmp_path: Path, body: str, what: str
) -> None:
    (tmp_path / "bad.py").write_text(
        "from headrace.signature import Signature\n\n\nclass Bad(Signature):\n"
        "    id, name, events = 'BAD', 'bad', {'getppid': None}\n\n"
        f"    def on_event(self, event, state):\n        {body}\n"
    )
    script = "import os\nfor _ in range(50): os.getppid()\nopen('/proc/sys/kernel/randomize_va_space')"
    found, ledger = tmp_path / "found", tmp_path / "ledger"
    options = ["--signatures", str(tmp_path), *ONLY, "--findings", f"json:{found}", "--ledger", str(ledger)]
    options += ["-e", "getppid", "-o", f"json:{tmp_path / 'events'}"]
    done = headrace("run", *options, "--", sys.executable, "-S", "-c", script)
    assert done.returncode == 0, done.stderr
    assert f'reason="{what}"' in done.stderr
    assert [json.loads(line)["signatureID"] for line in found.read_text().splitlines()] == ["TRC-109"]
    assert len((tmp_path / "events").read_text().splitlines()) == 50
    books = json.loads(ledger.read_text())
    assert books["balanced"]
    assert sum(books["restarts"].values()) == 1


@pytest.mark.kernel
def test_the_kernel_takes_as_many_paths_as_may_be_told_apart_there(tmp_path: Path) -> None:
    measured = [f"/opt/{i}/a*{i}.sh" for i in range(MAX_MEASURED)]
    exact = [f"/opt/folder{i}/and/a/file/{i}" for i in range(MAX_PATTERNS - MAX_MEASURED - 1)]
    rule, ledger = tmp_path / "many.yaml", tmp_path / "ledger"
    events = {"security_file_open": {"pathname|glob": [*measured, *exact, str(tmp_path / "it")]}}
    rule.write_text(json.dumps({"id": "MANY", "name": "many", "events": events}))
    (tmp_path / "it").touch()
    options = ("--signatures", str(rule), "--rules", "MANY", "--ledger", str(ledger), "--findings", "json:-")
    done = headrace("run", *options, "--", "cat", "/etc/passwd", str(tmp_path / "it"))
    assert done.returncode == 0, done.stderr
    assert "not_narrowed" not in done.stderr
    books = json.loads(ledger.read_text())
    assert books["by_event"]["security_file_open"]["produced"] == books["findings"]["found"] == 1


NOT_DECIDED = """
import headrace.bpf.load.loader as l
load = l.Programs._load
def refused(self, found):
    if self.wanted.tests:
        raise l.RefusedError("for a test")
    load(self, found)
l.Programs._load = refused
from headrace.pipeline.command.cli import main
main()
"""


@pytest.mark.kernel
def test_conditions_that_the_kernel_does_not_take_are_decided_in_user_space(tmp_path: Path) -> None:
    """Older kernels have no room for some on the stack of a program."""
    wanted, ledger = tmp_path / "wanted", tmp_path / "ledger"
    wanted.touch()
    events = f"security_file_open,security_file_open.args.pathname={tmp_path}/*"
    options = ("-e", events, "-o", "json:-", "--ledger", str(ledger), "--", "cat", str(wanted), "/dev/null")
    line = [sys.executable, "-c", NOT_DECIDED, "run", *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "supervisor.not_narrowed" in done.stderr
    [event] = map(json.loads, done.stdout.splitlines())
    assert {a["name"]: a["value"] for a in event["args"]}["pathname"] == str(wanted)
    assert json.loads(ledger.read_text())["filtered"] > 1


@pytest.mark.kernel
def test_a_run_goes_on_if_the_kernel_does_not_take_them(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    code = "import headrace.workers.conditions.narrowing as n; n.MAX_MEASURED = n.MAX_PATTERNS = 1000;"
    code += "from headrace.pipeline.command.cli import main; main()"
    rule = tmp_path / "many.yaml"
    events = {"security_file_open": {"pathname|startswith": [f"/opt/{i}/x" for i in range(3 * MAX_PATTERNS)]}}
    rule.write_text(json.dumps({"id": "MANY", "name": "many", "events": events}))
    options = ("--signatures", str(rule), "--rules", "MANY", "--ledger", str(ledger), "--", "cat", "/dev/null")
    done = subprocess.run([sys.executable, "-c", code, "run", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "supervisor.not_narrowed" in done.stderr
    assert "the kernel refused the program on_walk" in done.stderr
    assert json.loads(ledger.read_text())["by_event"]["security_file_open"]["produced"] > 1


@pytest.mark.kernel
def test_repeats_are_folded_and_counted(tmp_path: Path) -> None:
    found, ledger = tmp_path / "found", tmp_path / "ledger"
    script = "for _ in range(30): open('/proc/sys/kernel/randomize_va_space').close()"
    done = headrace(
        *("run", "--rules", "TRC-109", "--findings", f"json:{found}", "--ledger", str(ledger)),
        *("--", sys.executable, "-S", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    first, last = [json.loads(line) for line in found.read_text().splitlines()]
    for finding in (first, last):
        jsonschema.validate(finding, SCHEMA)
    assert "count" not in first
    assert (last["signatureID"], last["count"]) == ("TRC-109", 29)
    assert last["firstTime"] < last["lastTime"]
    assert last["pids"] == [first["process"]["pid"]]
    assert json.loads(ledger.read_text())["findings"] == {"found": 30, "published": 1, "folded": 29, "below": 0}


@pytest.mark.kernel
@pytest.mark.parametrize("workers", [1, 3])
def test_a_threshold_counts_over_all_workers(tmp_path: Path, workers: int) -> None:
    found, ledger, rule = tmp_path / "found", tmp_path / "ledger", tmp_path / "many.yaml"
    rule.write_text(
        "id: MANY\nname: many\nthreshold: {count: 3, within: 60, by: [argv]}\ndata: [argv]\n"
        "events: {sched_process_exec: {process.name: 'true'}}\n"
    )
    script = "; ".join(f"/bin/true {word}" for word in "ababaaacb")
    done = headrace(
        *("run", "--signatures", str(rule), "--rules", "MANY", "--workers", str(workers), "--fold", "0"),
        *("--findings", f"json:{found}", "--ledger", str(ledger), "--", "sh", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    findings = [json.loads(line) for line in found.read_text().splitlines()]
    for finding in findings:
        jsonschema.validate(finding, SCHEMA)
    assert [(f["data"]["argv"], f["threshold"]["count"]) for f in findings] == [
        (["/bin/true", "a"], 3),
        (["/bin/true", "b"], 3),
    ]
    assert all(f["threshold"]["firstTime"] < f["threshold"]["lastTime"] for f in findings)
    books = json.loads(ledger.read_text())
    assert (books["balanced"], books["findings"]) == (True, {"found": 9, "published": 2, "folded": 0, "below": 7})


UNTIL_INPUT = """
import select, sys
while not select.select([sys.stdin], [], [], 0.01)[0]:
    open('/proc/sys/kernel/randomize_va_space').close()
"""


@pytest.mark.kernel
def test_findings_go_out_under_topics_beside_events(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/socket"
    running = Running(
        *(
            "-e",
            "getppid",
            "-o",
            f"zmq:{endpoint}",
            "--findings",
            f"zmq:{endpoint}",
            "--rules",
            "TRC-109",
            "--fold",
            "0",
        ),
        *("--", sys.executable, "-S", "-c", UNTIL_INPUT),
        stdin=-1,
    )
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.connect(endpoint)
    socket.setsockopt(zmq.SUBSCRIBE, b"finding/info/")
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    try:
        wait_for(lambda: running.ready, "the run")
        topic, header, payload = socket.recv_multipart()
    finally:
        assert running.process.stdin is not None
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        context.destroy(linger=0)
    status, ledger, errors = running.end()
    assert status == 0, errors
    assert topic == b"finding/info/TRC-109/"
    assert json.loads(header)["count"] == len(payload.splitlines())
    assert json.loads(payload.splitlines()[0])["signatureID"] == "TRC-109"
    assert ledger["balanced"]


LONG = """
from headrace.signature import Signature


class Long(Signature):
    id, name, description, severity = "LONG", "long", "Says much.", "low"
    events = {"sched_process_exec": {"process.name": "true"}}
    fields = ("argv",)

    def on_event(self, event, state):
        return {"said": "x" * (9 << 20)} if event["argv"][1] == "long" else True
"""


def test_a_finding_that_is_too_long_is_shortened_and_counted(tmp_path: Path) -> None:
    """What signatures say, and what a process did before: 75 execs of 16 KiB of arguments and an environment."""
    found, ledger, rule = tmp_path / "found", tmp_path / "ledger", tmp_path / "long.py"
    rule.write_text(LONG)
    again = "import os, sys\nn = int(sys.argv[1])\nwords = ['w' * 1000] * 15\n"
    again += "if n: os.execve(sys.executable, [sys.executable, '-S', sys.argv[2], str(n - 1), sys.argv[2], *words], "
    again += "{f'V{i}': 'v' * 100 for i in range(60)})\nos.execv('/bin/true', ['true', 'after'])\n"
    (tmp_path / "again.py").write_text(again)
    script = f"/bin/true long; /bin/true short; {sys.executable} -S {tmp_path}/again.py 75 {tmp_path}/again.py"
    done = headrace(
        *("run", "--signatures", str(rule), "--rules", "LONG", "--fold", "0", "--before", "60", "--exec-env"),
        *(
            "-e",
            "execve",
            "-o",
            "none",
            "--findings",
            f"json:{found}",
            "--ledger",
            str(ledger),
            "--",
            "sh",
            "-c",
            script,
        ),
    )
    assert done.returncode == 0, done.stderr
    long, short, after = [json.loads(line) for line in found.read_text().splitlines()]
    for finding in (long, short, after):
        jsonschema.validate(finding, SCHEMA)
    assert (long["cut"], "cut" in short, after["cut"]) == (True, False, True)
    assert long["bytes"] > 9 << 20
    assert long["data"]["said"].startswith("xxx")
    assert after["events"][-1]["processName"] == "true"
    assert after["before"]
    assert max(map(len, found.read_bytes().splitlines())) <= 256 << 10
    books = json.loads(ledger.read_text())
    assert books["balanced"]
    assert books["findings"]["cut"] == 2
