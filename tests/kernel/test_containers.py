"""Containers by their control groups, on the live kernel: names of every runtime, and a real Docker Engine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from headrace.bpf.host import cgroups
from tests.engines import Containerd, Engine, Podman
from tests.live import Event, Running, arguments, in_process, trace, wait_for

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("only_containers")]
USER = "user.slice/user-1000.slice"
ROOTLESS = ("user.slice", USER, f"{USER}/user@1000.service", f"{USER}/user@1000.service/user.slice")
A, B, C = ("a1" * 32, "b2" * 32, "c3" * 32)
TASK = "d4" * 16
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schema.json").read_text())


@pytest.fixture
def below() -> Iterator[Path]:
    """A group of the test's own in the hierarchy that tells containers apart; what is in it is removed."""
    found = cgroups.hierarchy()
    assert found is not None
    path = found.path / f"hr-test-{os.getpid()}"
    path.mkdir()
    yield path
    for folder, _, _ in os.walk(path, topdown=False):
        Path(folder).rmdir()


GROUPS: list[tuple[tuple[str, ...], list[tuple[str, str]]]] = [
    (("docker", f"docker/{A}"), [("docker", A)]),
    ((f"docker-{A}.scope",), [("docker", A)]),
    ((f"cri-containerd-{A}.scope",), [("containerd", A)]),
    ((f"crio-{A}.scope",), [("crio", A)]),
    ((f"crio-{A}",), [("crio", A)]),
    ((f"libpod-{A}.scope",), [("podman", A)]),
    ((f"libpod-{A}",), [("podman", A)]),
    (("kubepods", "kubepods/pod12-34", f"kubepods/pod12-34/{A}"), [("containerd", A)]),
    (("other", f"other/{A}"), [("", A)]),
    # podman as another user than root
    (
        (*ROOTLESS, f"{ROOTLESS[-1]}/libpod-{A}.scope", f"{ROOTLESS[-1]}/libpod-{A}.scope/container"),
        [("podman", A)],
    ),
    (("app.service", f"app.service/libpod-payload-{A}"), [("podman", A)]),
    ((f"nerdctl-{A}.scope",), [("containerd", A)]),
    ((f"{A}.scope",), [("", A)]),
    ((f"system.slice:cri-containerd:{A}",), [("containerd", A)]),
    ((f"kubelet-kubepods-burstable-pod1_2.slice:cri-containerd:{A}",), [("containerd", A)]),
    ((f"system.slice:docker:{A}",), [("docker", A)]),
    ((f"machine.slice:libpod:{A}",), [("podman", A)]),
    (("ecs", f"ecs/{TASK}", f"ecs/{TASK}/{TASK}-1234567890"), [("ecs", f"{TASK}-1234567890")]),
    (("ecs", f"ecs/{TASK}", f"ecs/{TASK}/{A}"), [("", A)]),
    (("lxc.payload.web1",), [("lxc", "web1")]),
    (
        ("lxc.payload.web1", "lxc.payload.web1/init.scope", f"lxc.payload.web1/docker-{A}.scope"),
        [("lxc", "web1"), ("docker", A)],
    ),
    (("lxc", "lxc/web2"), [("lxc", "web2")]),
    (("lxc.payload", "lxc.payload/web3"), [("lxc", "web3")]),
    ((f"lxc.payload.{'n' * 40}",), [("lxc", "n" * 32)]),
    ((f"lxc.payload.{A}",), [("lxc", A[:32])]),
    (("buildkit", "buildkit/r1utjkwtxz3f1kyfjqe4r2gu7"), [("buildkit", "r1utjkwtxz3f1kyfjqe4r2gu7")]),
    # none of these is a container
    (
        (
            "lxc.monitor.web1",
            "lxc.pivot",
            "lxc.payload.",
            "lxc.payloads",
            f"{TASK}-",
            f"{TASK}-12x",
            f"{TASK[:-1]}-1",
        ),
        [],
    ),
    ((f"x:docker-{A}", f"xcri-containerd:{A}", f"libpod-payload-{A[:-1]}", f"nerdctl{A}", "buildkit"), []),
    ((f"crio-conmon-{A}.scope", f"libpod-conmon-{A}.scope", "kubepods-besteffort-pod12.slice"), []),
    ((f"docker-{A[:-1]}.scope", f"docker-{A}0.scope", f"docker-{A.upper()}.scope", f"docker-{A}.slice"), []),
    ((f"{A[:-1]}g", f"x-{A}.scope", "docker-", A[:63], f"{A}.scop"), []),
    # the innermost is told, and what is below belongs to it
    (("docker", f"docker/{A}", f"docker/{A}/docker", f"docker/{A}/docker/{B}"), [("docker", A), ("docker", B)]),
]
MAKES = """
import os, sys
for number, groups in enumerate(eval(sys.argv[2])):
    try:
        os.getpgid(number)
    except ProcessLookupError:
        pass
    below = os.path.join(sys.argv[1], f"case-{number}")
    made = [below, *(os.path.join(below, group) for group in groups)]
    for path in made:
        os.mkdir(path)
    for path in reversed(made):
        os.rmdir(path)
"""


def test_a_control_groups_name_says_whether_it_is_a_container(below: Path) -> None:
    """Groups are made, and removed again; getpgid() says which case it is."""
    given = repr([groups for groups, _ in GROUPS])
    events = "container_create,container_remove,getpgid"
    done = trace([sys.executable, "-S", "-c", MAKES, str(below), given], "-e", events)
    assert (done.status, done.ledger["balanced"]) == (0, True), done.errors
    starts = [i for i, e in enumerate(done.events) if e["eventName"] == "getpgid"]
    assert len(starts) == len(GROUPS)
    for (groups, expected), start, end in zip(GROUPS, starts, [*starts[1:], len(done.events)], strict=True):
        told = {"container_create": [], "container_remove": []}
        for event in done.events[start + 1 : end]:
            told[event["eventName"]].append((arguments(event)["runtime"], arguments(event)["container_id"]))
        assert told["container_create"] == expected, groups
        assert [name for _, name in reversed(told["container_remove"])] == [name for _, name in expected], groups


MOVES = """
import os, sys
def enter(path):
    with open(path + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
    os.getppid()
home = sys.argv[1]
for path in sys.argv[2:]:
    os.makedirs(path, exist_ok=True)
    enter(path)
enter(home)
"""


def test_a_process_belongs_to_the_container_that_its_group_is_in(below: Path) -> None:
    inner = below / f"docker-{A}.scope" / "init.scope" / "deep"
    nested = below / f"docker-{A}.scope" / "docker" / B
    plain = below / "plain"
    done = trace(
        [sys.executable, "-S", "-c", MOVES, str(below), *map(str, (plain, inner, nested, inner.parents[1], plain))],
        *("-e", "getppid"),
    )
    assert done.status == 0, done.errors
    seen = [e["containerId"] for e in done.events]
    assert seen == ["", A, B, A, "", ""]
    assert [e["container"] for e in done.events[:2]] == [{}, {"id": A, "runtime": "docker"}]
    assert done.events[1]["cgroupId"] == inner.stat().st_ino


def test_containers_that_are_there_already_are_told_and_count_as_started(below: Path) -> None:
    group = below / f"libpod-{C}.scope" / "container"
    group.mkdir(parents=True)
    done = trace(
        [sys.executable, "-S", "-c", MOVES, str(below), str(group)],
        *("-e", "getppid,existing_container", "-s", f"container={C[:13]}"),
    )
    told = [e for e in done.events if e["eventName"] == "existing_container"]
    assert [(arguments(e)["runtime"], arguments(e)["container_id"]) for e in told] == [("podman", C)]
    assert [(e["containerId"], e["contextFlags"]["containerStarted"]) for e in done.events if e not in told] == [
        (C, True)
    ]


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        ("container", [A, B]),
        ("!container", ["", ""]),
        ("not-container", ["", ""]),
        (f"container={A[:5]}", [A]),
        (f"container={A[:2]},{B}", [A, B]),
        (f"container!={A[:40]}", ["", B, ""]),
        ("container=new", [B]),
        ("container!=new", ["", A, ""]),
        # nothing was run in the new one
        ("container=started", [A]),
    ],
)
def test_scopes_of_containers(below: Path, scope: str, seen: list[str]) -> None:
    old, new = below / f"docker-{A}.scope", below / f"docker-{B}.scope"
    old.mkdir()
    done = trace(
        [sys.executable, "-S", "-c", MOVES, str(below), *map(str, (below, old, new))], "-e", "getppid", "-s", scope
    )
    assert (done.status, done.ledger["balanced"]) == (0, True), done.errors
    assert [e["containerId"] for e in done.events] == seen
    assert done.ledger["produced"] == len(seen), "decided in the kernel"


def test_scopes_of_containers_whose_ids_are_names(below: Path) -> None:
    lxc, ecs = below / "lxc.payload.web1", below / "ecs" / f"{TASK}-1234"
    for scope, seen in {
        "container=web": ["web1"],
        f"container={TASK}-12": [f"{TASK}-1234"],
        f"container={TASK[:9]}": [f"{TASK}-1234"],
        "container!=web1": ["", f"{TASK}-1234", ""],
    }.items():
        command = [sys.executable, "-S", "-c", MOVES, str(below), *map(str, (below, lxc, ecs))]
        done = trace(command, "-e", "getppid", "-s", scope)
        assert [e["containerId"] for e in done.events] == seen
        for event in done.events:
            jsonschema.validate(event, SCHEMA)


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        ((f"container={'x' * 33}",), f"{'x' * 33!r} is neither new, started, nor the beginning of a container's id"),
        (("container", "!container"), "contradict"),
        (("!container", "container=abc"), "nothing can match"),
        (("container=abc", "!container"), "nothing can match"),
        (("container<abc",), "takes = or !="),
        (("contaner=abc",), "did you mean container?"),
    ],
)
def test_scopes_of_containers_that_make_no_sense_are_refused(scopes: tuple[str, ...], message: str) -> None:
    options = [part for scope in scopes for part in ("-s", scope)]
    done = in_process("run", *options, "--", "true")
    assert done.returncode == 2
    assert message in done.stderr


# -- a real engine


class Watch:
    """Containers traced until `end()`, whatever process they are of; the events of all that this test started."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self.running = Running("-s", "container", *options, "-o", f"json:{path}")
        assert self.running.ready, self.running.end()

    def wait(self, text: str) -> None:
        wait_for(lambda: text in self.path.read_text(), text)

    def end(self, *ids: str) -> list[Event]:
        self.running.stop()
        events = [json.loads(line) for line in self.path.read_text().splitlines()]
        mine = {*ids, ""}
        return [e for e in events if e["containerId"] in mine]


EVENTS = "container_create,container_remove,existing_container,sched_process_exec,sched_process_exit,openat"


def test_a_docker_containers_events_carry_its_id_from_the_first_to_the_last(engine: Engine, tmp_path: Path) -> None:
    watch = Watch(tmp_path / "events", "-e", EVENTS, "--workers", "2")
    name = engine.run("busybox", "sh", "-c", "cat /proc/self/cgroup; :")
    engine("wait", name)
    engine("rm", name)
    watch.wait("container_remove")
    events = watch.end(name)
    mine = [e for e in events if e["containerId"]]
    assert {e["containerId"] for e in mine} == {name}
    told = [(e["eventName"], arguments(e)["container_id"]) for e in events if e["eventName"].startswith("container_")]
    assert told == [("container_create", name), ("container_remove", name)]
    ran = [arguments(e)["argv"] for e in mine if e["eventName"] == "sched_process_exec"]
    assert ran == [["sh", "-c", "cat /proc/self/cgroup; :"], ["cat", "/proc/self/cgroup"]]
    started = [e["contextFlags"]["containerStarted"] for e in mine]
    assert started == sorted(started), "once started, it stays so"
    first = next(e for e in mine if e["contextFlags"]["containerStarted"])
    assert (first["eventName"], first["processName"], first["processId"]) == ("sched_process_exec", "sh", 1)
    before = [e["processName"] for e in mine if not e["contextFlags"]["containerStarted"]]
    assert all(comm.startswith("runc") for comm in before)


def test_exec_restart_and_processes_of_the_host_keep_their_identity(engine: Engine, tmp_path: Path) -> None:
    old = engine.run("busybox", "sleep", "1000")
    watch = Watch(tmp_path / "events", "-e", EVENTS)
    engine("exec", old, "true")
    engine("pause", old)
    engine("unpause", old)
    engine("restart", "-t", "0", old)
    engine("rename", old, "another")
    engine("exec", old, "ps")
    wait_for(lambda: '"ps"' in watch.path.read_text(), "ps")
    events = watch.end(old)
    existing = [arguments(e)["container_id"] for e in events if e["eventName"] == "existing_container"]
    assert old in existing
    ran = [
        (arguments(e)["argv"], e["containerId"], e["contextFlags"]["containerStarted"])
        for e in events
        if e["eventName"] == "sched_process_exec"
    ]
    assert [argv for argv, _, _ in ran] == [["true"], ["sleep", "1000"], ["ps"]]
    assert {(name, started) for _, name, started in ran} == {(old, True)}
    # the group of the restarted container is another one, of the same id
    assert [e["eventName"] for e in events if e["eventName"].startswith("container_")] == [
        "container_remove",
        "container_create",
    ]
    engine("rm", "-f", old)
    host = trace(["true"], "-e", EVENTS)
    assert {e["containerId"] for e in host.events} == {""}


POD = "/kubepods/burstable/pod0f2d6a4e-3e2b-4f1e-9a1b-0123456789ab"


@pytest.mark.parametrize(
    ("runtime", "name"), [("podman", "podman"), ("containerd", ""), ("containerd in a pod", "containerd")]
)
def test_other_runtimes_containers_have_their_id_from_the_first_event(
    podman: Podman, containerd: Containerd, tmp_path: Path, runtime: str, name: str
) -> None:
    watch = Watch(tmp_path / "events", "-e", EVENTS, "--workers", "2")
    command = ("sh", "-c", "cat /proc/self/cgroup; :")
    if runtime == "podman":
        own = podman.run(*command)
    else:
        own = containerd.run(*command, group=POD if "pod" in runtime else "")
    watch.wait("container_remove")
    events = watch.end(own)
    mine = [e for e in events if e["containerId"]]
    told = [(e["eventName"], arguments(e)["container_id"]) for e in events if e["eventName"].startswith("container_")]
    assert told == [("container_create", own), ("container_remove", own)]
    assert {(e["containerId"], e["container"]["runtime"]) for e in mine} == {(own, name)}
    # before it has started, it is the runtime that runs in it
    started = [e for e in mine if e["contextFlags"]["containerStarted"]]
    assert all(e["processName"].startswith(("runc", "exe")) for e in mine if e not in started)
    ran = [arguments(e)["argv"] for e in started if e["eventName"] == "sched_process_exec"]
    assert ran == [["sh", "-c", "cat /proc/self/cgroup; :"], ["cat", "/proc/self/cgroup"]]
    assert (started[0]["eventName"], started[0]["processName"], started[0]["processId"]) == (
        "sched_process_exec",
        "sh",
        1,
    )
