"""The acceptance run of containers: a real Docker Engine, eight containers that list /proc, and Tracee's own line.

    python -m bench.containers [--seconds 60] [--rounds 5] [--churn 200]

containers-loops     that load over the set `default`: nothing lost, each event's id, name and image right, memory, CPU
containers-frozen    the same with the engine frozen for ten seconds, then killed and started again
containers-churn     containers that are started and removed as fast as the engine can
containers-flood     a program that opens and closes a file, in a container: the rate with enrichment, and without
containers-slow      a reader that takes 1 MB a second, beside one that takes all

Containers are on CPU 0, and the eight take all of it; the engine and headrace are on the last. The events' file is in
memory (/dev/shm) where there is room: the disk is not measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.memory import rollup_mb
from bench.rig import harness
from bench.rig.container_events import Summary, summary
from tests.engines import Engine

CONTAINERS = 8
LOOP = "while :; do ps -o pid,args HR-MARK-{0} >/dev/null; done"
LINE = ("-o", "option:parse-arguments", "-o", "option:detect-syscall", "--trace", "container")
"""Of Tracee's performance page, behind `--containers -o format:json`; and `--crs` with the engine's socket."""
ON_LOAD_CPU = (f"--cpuset-cpus={harness.LOAD_CPU}",)
SETTLED_S, FREEZE_S = 10, 10
SUSTAINED_PAIRS = 50_000
MAX_BYTES_PER_S = 150 << 20
LARGE = ("--ring-bytes", str(1 << 28))
"""An engine that starts takes the CPU that it shares with headrace: what comes meanwhile must have a place."""
SLOW = "import sys, time\nwith open(sys.argv[1], 'rb') as f:\n while f.read(1 << 16): time.sleep(1 / 16)"


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """A Docker Engine."""
    running = Engine()
    try:
        yield running
    finally:
        running.close()


class Run:
    """`headrace run` with the line of the performance page, its events summed up by a reader."""

    def __init__(self, folder: Path, docker: Engine, *options: str, output: str = "", asks: bool = True) -> None:
        """`output`: in place of standard output, which goes to a file."""
        self._ledger = folder / "ledger.json"
        self._ledger.unlink(missing_ok=True)
        line = ["--ledger", str(self._ledger), *LINE, *options, "-o", output or "format:json"]
        line += ["--containers", "--crs", f"docker:{docker.socket}"] if asks else []
        self._events = folder / "events.json"
        with self._events.open("wb") as out:
            self.process = harness.started(line, stdout=out)
        self._began = time.monotonic()

    def memory_mb(self) -> float:
        """What all its processes take, what they share divided among them."""
        return sum(map(rollup_mb, harness.descendants(self.process.pid)))

    def end(self) -> tuple[dict[str, Any], Summary]:
        """Stop it: its ledger, and what its events said."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=120)
        self.seconds = time.monotonic() - self._began
        if not self._ledger.exists():
            raise harness.Void(f"headrace failed: {errors}")
        with self._events.open("rb") as file:
            return json.loads(self._ledger.read_text()), summary(file)


def require_sound(ledger: dict[str, Any]) -> None:
    """Void if something was lost, or the books do not close."""
    if not ledger["balanced"] or harness.lost(ledger):
        raise harness.Void(f"lost {harness.lost(ledger)}, balanced {ledger['balanced']}: {ledger['lost_by_reason']}")


def require_identity(found: Summary, markers: dict[str, str], names: dict[str, str]) -> dict[str, float]:
    """Void unless every event is of a container that there is, under its own name or, at first, none. `markers`:
    the id of each; `names`: name and image by id.
    """
    if found.wrong or "" in found.containers:
        raise harness.Void(f"{found.wrong} lines that are no event; of the host: {found.containers.get('')}")
    for marker, container in markers.items():
        if found.markers.get(marker) != [container]:
            raise harness.Void(f"{marker} is of {container}, and was seen in {found.markers.get(marker)}")
    slowest, not_known = 0, 0
    for container, one in found.containers.items():
        others = {name for name in one.names if " " in name} - {names.get(container)}
        if others:
            raise harness.Void(f"{container} is {names.get(container)}, and was called {others}")
        not_known += sum(count for name, count in one.names.items() if " " not in name)
        if one.not_known_until_ns:
            slowest = max(slowest, one.not_known_until_ns - one.first_ns)
    return {"events_without_a_name": not_known, "longest_without_a_name_ms": slowest / 1e6}


def loops(docker: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """Start the eight: their ids by marker, and their names and images by id."""
    markers, names = {}, {}
    for n in range(CONTAINERS):
        name = docker.run(*ON_LOAD_CPU, "--name", f"loop-{n}", "busybox", "sh", "-c", LOOP.format(n))
        markers[f"HR-MARK-{n}"] = name
        found = json.loads(docker("inspect", name))[0]
        names[found["Id"]] = f"{found['Name'].removeprefix('/')} {found['Config']['Image']}"
    return markers, names


def end_loops(docker: Engine, markers: dict[str, str]) -> None:
    """Remove them."""
    docker("rm", "-f", *markers.values())


def looped(docker: Engine, folder: Path, meanwhile: Callable[[Run], object], *options: str) -> dict[str, Any]:
    """One run over the eight."""
    run = Run(folder, docker, *options)
    markers, names = loops(docker)
    memory = meanwhile(run)
    ledger, found = run.end()
    took = run.seconds
    end_loops(docker, markers)
    require_sound(ledger)
    identity = require_identity(found, markers, names)
    cpu = ledger["cpu_seconds"]
    return {
        "seconds": took,
        "events": found.lines,
        "events_per_second": found.lines / took,
        "json_mb_per_second": found.bytes / took / 1e6,
        "lost": harness.lost(ledger),
        "cpu_us_per_event": sum(cpu.values()) / found.lines * 1e6,
        "cores_of_user_space": sum(cpu.values()) / took,
        "containers": ledger["containers"],
        "memory_mb": memory,
        **identity,
    }


def steady(seconds: float) -> Callable[[Run], list[float]]:
    """Only wait: the memory of all processes after ten seconds, and at the end, in MB."""

    def wait(run: Run) -> list[float]:
        time.sleep(min(SETTLED_S, seconds / 2))
        settled = run.memory_mb()
        time.sleep(max(seconds - SETTLED_S, seconds / 2))
        return [settled, run.memory_mb()]

    return wait


def frozen(docker: Engine, seconds: float) -> Callable[[Run], None]:
    """Freeze the engine, then kill it and start it again."""

    def harm(run: Run) -> None:
        time.sleep(2)
        os.kill(docker.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(docker.process.pid, signal.SIGCONT)
        time.sleep(2)
        docker.restart()
        time.sleep(3)

    return harm


def churn(docker: Engine, folder: Path, count: int) -> dict[str, Any]:
    """Containers that are there for a moment: a create and a remove of each, in order, and nothing left over."""
    events = folder / "churn.json"
    run = Run(folder, docker, "-e", "container_create,container_remove,sched_process_exec", output=f"json:{events}")
    began = time.monotonic()
    script = f"for n in $(seq {count}); do echo $n; done | xargs -P 4 -I N docker -H unix://{docker.socket} run --rm"
    script += " --network none --name churn-N busybox ps HR-MARK-N"
    subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - began
    ledger, _ = run.end()
    require_sound(ledger)
    told: dict[str, list[str]] = {}
    for line in events.read_text().splitlines():
        event = json.loads(line)
        if event["eventName"] in ("container_create", "container_remove"):
            args = {a["name"]: a["value"] for a in event["args"]}
            told.setdefault(args["container_id"], []).append(event["eventName"])
    wrong = [name for name, order in told.items() if order != ["container_create", "container_remove"]]
    with events.open("rb") as file:
        found = summary(file)
    seen = {name for ids in found.markers.values() for name in ids}
    if wrong or len(told) != count or len(found.markers) != count or seen != set(told):
        raise harness.Void(f"{count} containers: {len(told)} told of, {len(wrong)} of them not in order")
    if any(len(ids) != 1 for ids in found.markers.values()):
        raise harness.Void("an event was shown under another container")
    names = {word for one in found.containers.values() for word in one.names}
    return {
        "containers": count,
        "containers_per_second": count / took,
        "without_a_name": sum("churn" not in " ".join(found.containers[name].names) for name in told),
        "states_that_events_had": sorted({name for name in names if " " not in name}),
        "left_in_the_kernels_table": ledger["cross_checks"]["containers"],
        "counters": ledger["containers"],
    }


def flood(
    docker: Engine, folder: Path, binary: Path, seconds: float, asks: bool, rate: int = 0
) -> tuple[float, dict[str, Any]]:
    """A program that opens and closes a file, in a container, asking for names or not: (JSON events a second, ledger).
    `rate`: pairs a second, 0 as many as it can.
    """
    run = Run(folder, docker, "-e", "openat,close", "--workers", "1", output="json:/dev/null", asks=asks)
    place = (*ON_LOAD_CPU, "-v", f"{binary}:/load:ro", "--network", "none", "--rm", "-i")
    what = ("openat", "0", "-1", "1", str(rate))
    load = harness.Load.of(["docker", "-H", f"unix://{docker.socket}", "run", *place, "busybox", "/load", *what])
    load.go()
    calls, took = load.finish(seconds)
    ledger, _ = run.end()
    harness.require_produced(ledger, "openat,close", calls)
    return ledger["delivered"] / took, ledger


def floods(docker: Engine, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """The flood as fast as it goes, with enrichment and without, alternating; and at a rate that loses nothing."""
    binary = harness.build(folder, "-static")
    pairs = []
    for _ in range(rounds):
        (on, ledger), (off, _) = (flood(docker, folder, binary, seconds, asks) for asks in (True, False))
        kept, steady_ledger = flood(docker, folder, binary, seconds, True, SUSTAINED_PAIRS)
        require_sound(steady_ledger)
        dropped = harness.lost(ledger) / (harness.lost(ledger) + ledger["delivered"])
        figures = {"json_events_per_second": on, "on_of_off": on / off, "dropped_of_a_flood": dropped}
        pairs.append(figures | {"json_events_per_second_with_nothing_lost": kept})
    return harness.spreads(pairs, list(pairs[0]))


def slow(docker: Engine, folder: Path, seconds: float) -> dict[str, Any]:
    """The eight again, to a reader that takes 1 MB a second by `drop`, and to a file that misses nothing."""
    aside, fifo = folder / "all.json", folder / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen([sys.executable, "-c", SLOW, str(fifo)])
    run = Run(folder, docker, "-o", f"json:{aside}", output=f"json:{fifo},policy=drop")
    markers, names = loops(docker)
    time.sleep(seconds)
    ledger, _ = run.end()
    end_loops(docker, markers)
    reader.wait()
    dropping, whole = sorted(ledger["sinks"], key=lambda sink: sink["name"] == f"json:{aside}")
    with aside.open("rb") as file:
        found = summary(file)
    if not ledger["balanced"] or whole["dropped"] or ledger["dropped"] or ledger["lost"] or not dropping["dropped"]:
        raise harness.Void(f"lost {harness.lost(ledger)}, balanced {ledger['balanced']}: {ledger['sinks']}")
    if found.lines != whole["written"]:
        raise harness.Void(f"{found.lines} lines of {whole['written']}")
    require_identity(found, markers, names)
    return {"events": whole["written"], "dropped_by_the_slow_one": dropping["dropped"], "missed_by_the_other": 0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, check and write the results."""
    parser = harness.options(str(__doc__), 60)
    parser.add_argument("--churn", type=int, default=200, help="containers; default 200")
    parser.add_argument("--only", default="", metavar="NAMES", help="some of loops,frozen,churn,flood,slow")
    given = parser.parse_args(arguments)
    harness.pin()
    place = harness.place_for(int(given.seconds * MAX_BYTES_PER_S))
    with engine() as docker, tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        runs = {
            "loops": lambda: looped(docker, folder, steady(given.seconds)),
            "frozen": lambda: looped(docker, folder, frozen(docker, FREEZE_S), *LARGE),
            "churn": lambda: churn(docker, folder, given.churn),
            "flood": lambda: floods(docker, folder, given.seconds / 10, given.rounds),
            "slow": lambda: slow(docker, folder, given.seconds / 6),
        }
        for each in given.only.split(",") if given.only else runs:
            found = runs[each]()
            numbers = {k: harness.spread([v]) for k, v in found.items() if isinstance(v, int | float)}
            rest = {k: v for k, v in found.items() if k not in numbers}
            harness.save(f"containers-{each}", {"figures": rest | numbers})


if __name__ == "__main__":
    main()
