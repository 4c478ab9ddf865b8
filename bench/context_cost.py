"""What a traced program keeps of the speed that the same programs leave it without process context.

    load (CPU 0): getppid -> programs, with context or without -> perf ring -> drain in this process (last CPU)
    baseline: the same load untraced; all three alternating

`without` is the same C source with the call of context_cell() compiled out and the context's room
kept, so that frames hold as many events. The drain gives the ring back unread. Nothing may be lost:
a run that loses is made again, a few times.

    python -m bench.context_cost [--seconds 5] [--rounds 5]
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.rig import harness
from headrace.bpf.host.btf import Btf
from headrace.bpf.load import loader
from headrace.bpf.programs import scope, source
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.settings import Settings
from headrace.pipeline.transport import perf, watermark

CALL = "u16 context = context_cell(f, s);"
WITHOUT = "if (!f->used) f->used = sizeof(struct context); u16 context = 0;"
DRAIN_S = 0.002
TRIES = 5


@contextlib.contextmanager
def compiled(with_context: bool) -> Iterator[None]:
    """Inside, programs compile as they are, or without the context step."""
    joined = source.joined

    def patched(*arguments: Any) -> str:
        text = joined(*arguments)
        if text.count(CALL) != 1:
            raise harness.Void(f"the programs have changed: {CALL!r} stands there {text.count(CALL)} times")
        return text.replace(CALL, WITHOUT)

    source.joined = joined if with_context else patched
    try:
        yield
    finally:
        source.joined = joined


class Drain:
    """The perf rings of all CPUs, given back as they fill, by a thread."""

    def __init__(self, programs: loader.Programs) -> None:
        pages = Settings()
        self.fds: list[int] = []
        self.rings: list[perf.PerfRing] = []
        for cpu in range(programs.cpus):
            for name, count in (("bulk", pages.perf_pages), ("urgent", pages.urgent_pages)):
                fd = perf.open_output(cpu, count * perf.PAGE // 4)
                self.fds.append(fd)
                self.rings.append(perf.PerfRing(fd, count))
                perf.enable(fd)
                programs.set_perf_fd(name, cpu, fd)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(DRAIN_S):
            for ring in self.rings:
                ring.release(ring.head)

    def close(self) -> None:
        """End the thread, unmap, close."""
        self._stop.set()
        self._thread.join()
        for ring in self.rings:
            ring.close()
        for fd in self.fds:
            os.close(fd)


def _counts(programs: loader.Programs) -> tuple[int, int]:
    """(events produced, events lost) as the programs counted them."""
    produced = watermark.produced(programs.map_fd("produced"), programs.cpus)
    marks = watermark.Watermarks(programs.map_fd("marks"), programs.cpus, programs.slots)
    counts = int(produced.array["events"].sum()), int(marks.lost().sum())
    produced.close()
    marks.close()
    return counts


def rate(binary: Path, btf: Btf, with_context: bool, seconds: float) -> float | None:
    """Calls a second under the programs; None if events were lost."""
    span = scope.Scope(condition="(s->flags & GROUP_TREE)")
    wanted = source.WantedPrograms(events=tuple(catalogue().select("getppid")), scope=span, shards=1)
    with contextlib.ExitStack() as stack:
        with compiled(with_context):
            programs = loader.Programs(wanted, btf)
        stack.callback(programs.close)
        drain = Drain(programs)
        stack.callback(drain.close)
        load = harness.Load.start(binary, "getppid")
        programs.set_group(load.pid, loader.GROUP_TREE)
        programs.attach()
        load.go()
        calls, took = load.finish(seconds)
        programs.detach()
        produced, lost = _counts(programs)
    if produced != calls:
        raise harness.Void(f"{calls} calls made, {produced} events produced")
    return None if lost else calls / took


def lossless(binary: Path, btf: Btf, with_context: bool, seconds: float) -> float:
    """Calls a second of a run that lost nothing."""
    for _ in range(TRIES):
        found = rate(binary, btf, with_context, seconds)
        if found is not None:
            return found
    raise harness.Void(f"events were lost in {TRIES} runs of {TRIES}")


def one(binary: Path, btf: Btf, seconds: float) -> dict[str, float]:
    """One round: untraced, without context, with it."""
    base = harness.untraced(binary, "getppid", seconds)
    without = lossless(binary, btf, False, seconds)
    full = lossless(binary, btf, True, seconds)
    return {
        "ratio": full / without,
        "kept_with_context": full / base,
        "kept_without_context": without / base,
        "ns_with_context": 1e9 / full - 1e9 / base,
        "ns_without_context": 1e9 / without - 1e9 / base,
        "untraced_per_s": base,
    }


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=5).parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as folder:
        binary = harness.build(Path(folder))
        btf = Btf.of_kernel()
        rounds = [one(binary, btf, options.seconds) for _ in range(options.rounds)]
    figures = harness.spreads(rounds, list(rounds[0]))
    harness.save("context_cost", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
