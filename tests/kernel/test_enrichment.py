"""Names and images of containers, from real runtimes: while these are well, frozen, killed, and two at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench.rig.container_events import Summary, summary
from headrace.bpf.host import cgroups
from tests.engines import Containerd, Engine, Podman, Pods, output
from tests.live import Event, Running, arguments, details, headrace, in_process, wait_for

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("only_containers")]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schema.json").read_text())
FINDING = json.loads((Path(__file__).parents[2] / "docs" / "finding.schema.json").read_text())
LINE = ("-o", "option:parse-arguments", "-o", "option:detect-syscall", "--trace", "container")
"""Of Tracee's performance page."""


class Watch:
    """`headrace run --containers`, with its events in a file."""

    def __init__(self, path: Path, crs: list[str], *options: str) -> None:
        self.path = path
        named = [part for one in crs for part in ("--crs", one)]
        self.running = Running("--containers", *named, *LINE, "-o", f"json:{path}", *options)
        assert self.running.ready, self.running.end()

    def events(self) -> list[Event]:
        """All so far that are whole."""
        data = self.path.read_text()
        return [json.loads(line) for line in data[: data.rfind("\n") + 1].splitlines()]

    def states(self, container: str) -> list[str]:
        """What the events of a container said of it, the last at the end."""
        return [e["enrichment"] for e in self.events() if e["containerId"] == container]

    def wait(self, container: str, state: str) -> None:
        wait_for(lambda: (self.states(container) or [""])[-1] == state, f"{container} {state}")

    def end(self) -> dict[str, Any]:
        """Its ledger, which must be sound."""
        return self.running.stop()


@pytest.fixture(scope="module")
def pods(containerd: Containerd) -> Iterator[tuple[Pods, str]]:
    made = Pods(containerd.socket)
    yield made, containerd.socket
    made.close()


@contextlib.contextmanager
def frozen(engine: Engine) -> Iterator[None]:
    """It stands still meanwhile."""
    os.kill(engine.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def twin(container: str, letter: str) -> Iterator[Path]:
    """A control group like a container's of which nobody knows: its id begins like another's."""
    found = cgroups.hierarchy()
    assert found is not None
    group = found.path / f"docker-{container[:12]}{letter * 52}.scope"
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


LOOP = ("sh", "-c", "while :; do ls / >/dev/null; sleep 0.02; done")


@pytest.fixture
def looping(engine: Engine) -> Iterator[str]:
    """A container that makes a few events all the time."""
    name = engine.run("--label", "team=red", "--label", "other=1", "busybox", *LOOP)
    yield name
    engine("rm", "-f", name)


def test_the_line_of_the_performance_page_with_marked_containers(engine: Engine, tmp_path: Path) -> None:
    """The short form of bench/containers.py: each event has the id, name and image of the one whose marker it has."""
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"])
    loop = "for n in $(seq 60); do ps -o pid,args HR-MARK-{0} >/dev/null; done"
    ids = {f"HR-MARK-{n}": engine.run("busybox", "sh", "-c", loop.format(n)) for n in range(3)}
    for name in ids.values():
        engine("wait", name)
    names = {
        name: json.loads(engine("inspect", name))[0]["Name"].removeprefix("/") + " busybox" for name in ids.values()
    }
    engine("rm", *ids.values())
    ledger = watch.end()
    with watch.path.open("rb") as file:
        found: Summary = summary(file)
    assert (found.wrong, found.lines) == (0, ledger["delivered"])
    assert found.markers == {marker: [name] for marker, name in ids.items()}
    assert set(found.containers) == set(ids.values()), "no event of the host, and none of another container"
    for name, one in found.containers.items():
        assert set(one.names) <= {names[name], "pending"}
        assert one.names[names[name]] > 100
    for event in watch.events()[::50]:
        jsonschema.validate(event, SCHEMA)


def test_events_and_findings_carry_what_the_runtime_says(engine: Engine, looping: str, tmp_path: Path) -> None:
    found, rule = tmp_path / "found", tmp_path / "ls.yaml"
    rule.write_text("id: LS\nname: ls\nscope: container\nevents: {openat: {pathname: /}}\n")
    options = ["--container-label", "te*", "--signatures", str(rule), "--rules", "LS", "--findings", f"json:{found}"]
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"], "-e", "openat", *options, "--fold", "0")
    watch.wait(looping, "known")
    about = json.loads(engine("inspect", looping))[0]
    event = watch.events()[-1]
    assert event["container"] == {
        "id": looping,
        "runtime": "docker",
        "name": about["Name"].removeprefix("/"),
        "image": "busybox",
        "imageDigest": about["Image"],
        "labels": {"team": "red"},
    }
    assert (event["containerName"], event["containerImage"]) == (event["container"]["name"], "busybox")
    engine("rename", looping, "another-name")
    wait_for(lambda: watch.events()[-1]["containerName"] == "another-name", "the new name")
    wait_for(lambda: b"another-name" in found.read_bytes(), "a finding with it")
    ledger = watch.end()
    finding = json.loads(found.read_text().splitlines()[-1])
    jsonschema.validate(finding, FINDING)
    assert finding["container"]["name"] == "another-name"
    assert finding["container"]["enrichment"] == "known"
    assert ledger["containers"]["known"] >= 1


def test_a_frozen_engine_costs_no_event_and_blocks_no_stop(engine: Engine, looping: str, tmp_path: Path) -> None:
    with frozen(engine):
        watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"])
        watch.wait(looping, "failed:timeout")
        assert watch.states(looping)[0] == "pending"
        began = time.monotonic()
        ledger = watch.end()
        assert time.monotonic() - began < 10
        assert ledger["containers"]["timeouts"] >= 1
        assert ledger["delivered"] > 10
        again = Watch(tmp_path / "again", [f"docker:{engine.socket}"])
        again.wait(looping, "failed:timeout")
    again.wait(looping, "known")
    assert again.end()["containers"]["failed"] == 0


def test_an_output_that_waits_for_names(engine: Engine, looping: str, tmp_path: Path) -> None:
    """Beside one that does not: the same events, in the container's order, and all of them named."""
    waited = tmp_path / "waited"
    with frozen(engine):
        options = ["-o", f"json:{waited},enriched=20000", "--workers", "2"]
        watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"], *options)
        wait_for(lambda: len(watch.states(looping)) > 50, "events without a name")
        assert "pending" in watch.states(looping)
        assert waited.read_text() == ""
    watch.wait(looping, "known")
    wait_for(waited.read_text, "events with a name")
    ledger = watch.end()
    both = [list(map(json.loads, path.read_text().splitlines())) for path in (watch.path, waited)]
    times = [[e["timestamp"] for e in events if e["containerId"] == looping] for events in both]
    assert times[1] == sorted(times[0]), "none is missing, none is there twice"
    states = {e["enrichment"] for e in both[1] if e["containerId"] == looping}
    assert states <= {"known", "failed:timeout"}, "an answer that is none ends the waiting, too"
    assert [sink["offered"] for sink in ledger["sinks"]] == [ledger["delivered"]] * 2


def test_what_waits_leaves_in_time_even_if_nothing_else_happens(engine: Engine, tmp_path: Path) -> None:
    """A container that makes a few events and then none: its name comes later than these, or never."""
    waited, seen = tmp_path / "waited", tmp_path / "seen"
    options = ["-o", f"json:{waited},enriched=500", "--container-label", "x"]
    once = ("busybox", "sh", "-c", "ls / >/dev/null; read forever <>/dev/fd/2")
    with contextlib.ExitStack() as stack:
        watch = Watch(seen, [f"docker:{engine.socket}"], *options, "-e", "openat")
        stack.callback(watch.running.stop)
        first = engine.run("-i", *once)
        wait_for(lambda: watch.states(first), "its events")
        wait_for(
            lambda: len(waited.read_text().splitlines()) == len(watch.states(first)), "the same, with its name", 10
        )
        with frozen(engine):
            group = stack.enter_context(twin(first, "a"))
            subprocess.run(["sh", "-c", f"echo $$ >{group}/cgroup.procs; ls / >/dev/null"], check=True)
            mine = first[:12] + "a" * 52
            wait_for(lambda: watch.states(mine), "events of one that docker says nothing of")
            wait_for(lambda: mine in waited.read_text(), "the same, without a name", 10)
        engine("rm", "-f", first)


def test_a_worker_that_dies_with_a_full_ring_counts_what_waits_to_the_row(engine: Engine, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    looping = [engine.run("busybox", "sh", "-c", "while :; do ls / /bin >/dev/null; done") for _ in range(2)]
    small = os.environ | {"HEADRACE_RESULT_BYTES": str(1 << 22)}
    output = ("--ring-bytes", str(1 << 23), "-o", f"json:{pipe},enriched=2000")
    running = Running("--containers", "--crs", f"docker:{engine.socket}", *LINE, *output, env=small)
    assert running.ready, running.end()
    for n in range(3):
        wait_for(lambda: running.has_full_ring(1 << 22), "a full ring of results")
        before = running.stage("worker-0")
        os.kill(before, signal.SIGKILL)
        wait_for(lambda seen=before: running.stages().get("worker-0", seen) != seen, f"worker {n + 2}")
    engine("rm", "-f", *looping)
    os.set_blocking(reading, True)
    # what waits goes out before the end is asked for, which has its deadline
    with ThreadPoolExecutor() as pool, open(reading, "rb") as lines:
        data = pool.submit(lines.read)
        wait_for(lambda: not running.has_full_ring(1 << 22), "room in the ring")
        running.process.send_signal(signal.SIGINT)
        events = [json.loads(line) for line in data.result().splitlines()]
    status, ledger, errors = running.end()
    # on a slow machine, not all of a full ring goes out before the deadline
    assert status == (os.EX_SOFTWARE if ledger["abandoned"] else 0), errors
    assert (ledger["balanced"], ledger["restarts"]) == (True, {"worker-0": 3}), errors
    (sink,) = ledger["sinks"]
    told = Counter((e["timestamp"], e["hostThreadId"], e["eventName"]) for e in events if e["eventName"] != "loss")
    assert [one for one, count in told.items() if count > 1] == []
    assert sink["written"] == len(events) == ledger["delivered"] + ledger["announced"] - sink["dropped"]


def test_what_a_worker_held_back_when_it_died_is_counted(engine: Engine, looping: str, tmp_path: Path) -> None:
    waited = tmp_path / "waited"
    with frozen(engine):
        options = ["-o", f"json:{waited},enriched=20000", "--workers", "1"]
        watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"], *options)
        wait_for(lambda: len(watch.states(looping)) > 50, "events without a name")
        worker = watch.running.stage("worker-0")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: watch.running.stages().get("worker-0", worker) != worker, "another worker")
    watch.wait(looping, "known")
    watch.running.process.send_signal(signal.SIGINT)
    status, ledger, errors = watch.running.end()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {"worker-0": 1}), errors
    plain, named = sorted(ledger["sinks"], key=lambda sink: "enriched" in sink["name"] or str(waited) in sink["name"])
    assert (plain["offered"], plain["dropped"]) == (ledger["delivered"], 0)
    assert named["offered"] == ledger["delivered"]
    assert named["dropped"] > 50
    assert named["written"] == len(waited.read_text().splitlines()) == ledger["delivered"] - named["dropped"]


def test_an_engine_that_is_killed_and_started_again(engine: Engine, looping: str, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"])
    watch.wait(looping, "known")
    engine.restart()
    later = engine.run("busybox", *LOOP)
    watch.wait(later, "known")
    assert set(watch.states(looping)) <= {"pending", "known"}, "what was known stays so"
    engine("rm", "-f", later)
    watch.end()


def test_an_enricher_that_dies_is_replaced(engine: Engine, looping: str, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"])
    watch.wait(looping, "known")
    before = watch.running.stage("enricher")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: watch.running.stages().get("enricher", before) != before, "another enricher")
    later = engine.run("busybox", *LOOP)
    watch.wait(later, "known")
    engine("rm", "-f", later)
    ledger = watch.end()
    assert ledger["restarts"] == {"enricher": 1}
    assert set(watch.states(looping)) <= {"pending", "known"}


def test_a_container_from_before_is_told_with_its_name_where_an_output_waits(
    engine: Engine, looping: str, tmp_path: Path
) -> None:
    waited = tmp_path / "waited"
    options = ("-s", "container", "-e", "existing_container", "-o", f"json:{waited},enriched=10000")
    running = Running("--crs", f"docker:{engine.socket}", *options)
    assert running.ready, running.end()

    def told() -> list[Event]:
        lines = waited.read_text().splitlines() if waited.exists() else []
        return [e for e in map(json.loads, lines) if arguments(e)["container_id"] == looping]

    wait_for(told, "the container")
    running.stop()
    (event,) = told()
    name = json.loads(engine("inspect", looping))[0]["Name"].removeprefix("/")
    assert (arguments(event)["container_name"], arguments(event)["container_image"]) == (name, "busybox")


def test_podmans_service_beside_docker(engine: Engine, looping: str, podman: Podman, tmp_path: Path) -> None:
    podman.serve()
    limits = [f"--ulimit={name}=1024:1024" for name in ("nofile", "nproc")]
    line = [*podman.line, "run", "-d", "--name", "from-podman", "--network=none", *limits, "busybox", *LOOP]
    own = output(line)
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}", f"podman:{podman.socket}"])
    watch.wait(own, "known")
    watch.wait(looping, "known")
    last = [e for e in watch.events() if e["containerId"] == own][-1]
    assert (last["containerName"], last["container"]["runtime"]) == ("from-podman", "podman")
    assert last["containerImage"] == "localhost/busybox:latest"
    watch.end()
    output([*podman.line, "rm", "-f", own])


def test_a_pod_of_containerd(pods: tuple[Pods, str], tmp_path: Path) -> None:
    cri, socket = pods
    watch = Watch(tmp_path / "events", [f"containerd:{socket}"])
    pod, own = cri.run("web", "/bin/sh", *LOOP[1:])
    watch.wait(own, "known")
    events = [e for e in watch.events() if e["containerId"] == own]
    about = {"podName": "web", "podNamespace": "tests", "podUID": "uid-web"}
    assert events[-1]["kubernetes"] == about
    assert {key: events[-1][key] for key in about} == about
    assert events[-1]["containerName"] == "main"
    assert events[-1]["containerImage"] == "example.org/pause:1"
    assert {e["containerId"] for e in watch.events()} <= {own, pod}
    cri.remove(pod)
    watch.end()


def test_containers_that_no_runtime_knows(engine: Engine, tmp_path: Path) -> None:
    """Groups with ids that share 12 characters with a real container's: neither takes its name, nor the other's."""
    real = engine.run("--name", "real", "busybox", *LOOP)
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"], "-e", "getppid,openat")
    with contextlib.ExitStack() as stack:
        for letter in "ab":
            group = stack.enter_context(twin(real, letter))
            script = f"echo $$ > {group}/cgroup.procs; exec perl -e 'getppid, select undef, undef, undef, 0.01 while 1'"
            child = stack.enter_context(subprocess.Popen(["sh", "-c", script]))
            stack.callback(child.kill)
        for letter in "ab":
            watch.wait(real[:12] + letter * 52, "unknown")
        watch.wait(real, "known")
        assert {e["containerName"] for e in watch.events() if e["containerId"] != real} == {""}
        assert {e["containerName"] for e in watch.events() if e["containerId"] == real} <= {"", "real"}
    engine("rm", "-f", real)
    watch.end()


NONSENSE = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
lead = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
while True:
    connection, _ = listener.accept()
    said = b"7\\r\\n{[nonse" if b"/events" in connection.recv(65536) else b"2\\r\\n{}"
    connection.sendall(lead + said + b"\\r\\n0\\r\\n\\r\\n")
    connection.close()
"""


def test_a_runtime_that_answers_nonsense_costs_nothing_but_names(tmp_path: Path, engine: Engine, looping: str) -> None:
    line = [sys.executable, "-c", NONSENSE, str(tmp_path / "sock")]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        watch = Watch(tmp_path / "events", [f"docker:{tmp_path}/sock"])
        watch.wait(looping, "failed:nonsense")
        wait_for(lambda: len(watch.states(looping)) > 50, "events")
        ledger = watch.end()
        server.kill()
    assert ledger["containers"]["failures"] >= 1
    assert ledger["restarts"] == {}


def test_a_name_is_known_while_docker_still_starts_the_container(tmp_path: Path, engine: Engine) -> None:
    """Docker holds back what it says of a single container meanwhile; nothing of its first second has no name."""
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"])
    made = engine.run("busybox", *LOOP)
    wait_for(lambda: len(watch.states(made)) > 50, "events")
    engine("rm", "-f", made)
    watch.end()
    events = [e for e in watch.events() if e["containerId"] == made]
    without = [e["timestamp"] for e in events if e["enrichment"] != "known"]
    assert max(without, default=0) - events[0]["timestamp"] < 200e6


def test_the_event_of_a_container_names_it(tmp_path: Path, engine: Engine) -> None:
    """A container that is started again is known by then; what is not known says why."""
    watch = Watch(tmp_path / "events", [f"docker:{engine.socket}"], "-e", "container_create,openat")
    made = engine.run("--name", "again", "busybox", *LOOP)
    watch.wait(made, "known")
    engine("restart", "-t", "0", made)

    def created() -> list[Event]:
        events = [e for e in watch.events() if e["eventName"] == "container_create"]
        return [e for e in events if arguments(e)["container_id"] == made]

    wait_for(lambda: len(created()) == 2, "another group of its")
    engine("rm", "-f", made)
    watch.end()
    first, second = created()
    said = {"container_image": "busybox", "container_name": "again", "pod_name": "", "pod_namespace": "", "pod_uid": ""}
    assert {name: arguments(second)[name] for name in said} == said
    assert details(second, "container_name")["source"] == "runtime"
    assert details(first, "container_name").get("reason", "pending") == "pending"
    for event in (first, second):
        jsonschema.validate(event, SCHEMA)


@pytest.mark.parametrize("spec", ["dcoker:/x", "docker:relative"])
def test_sockets_that_make_no_sense(spec: str) -> None:
    done = in_process("run", "--containers", "--crs", spec, "--", "true")
    assert done.returncode == 2
    assert f"--crs {spec}: " in done.stderr


@pytest.mark.parametrize("sockets", [1, 16])
def test_without_a_runtime_it_says_so_on_every_event(
    tmp_path: Path, engine: Engine, looping: str, sockets: int
) -> None:
    watch = Watch(tmp_path / "events", [f"docker:{tmp_path}/nobody-{n}" for n in range(sockets)])
    watch.wait(looping, "failed:no socket")
    assert arguments(watch.events()[-1]) is not None
    assert watch.end()["restarts"] == {}


def test_the_run_goes_on_without_an_enricher_that_cannot_be(tmp_path: Path) -> None:
    """A client that is there, and cannot be loaded: it is given up while everything else waits to begin."""
    (tmp_path / "docker.py").write_text("raise ImportError('broken')\n")
    line = ["run", "--containers", "--crs", f"docker:{tmp_path}/sock", "-e", "execve", "--", "/bin/true"]
    done = headrace(*line, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "supervisor.process_given_up" in done.stderr
    assert "/bin/true" in done.stdout
