"""The process tree from lifecycle records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.bpf.layout import STREAM_FACTS
from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.core import Core
from headrace.workers.enrich import tree as tree_module
from headrace.workers.enrich.tree import Process
from tests.unit.frames import Blob, Record, Who, frame, view

FORK, EXEC, EXIT = (catalogue().by_name[f"sched_process_{name}"] for name in ("fork", "exec", "exit"))
KERNEL = 1 << 4


def who(tgid: int, start: int, inode: int = 0, dev: int = 1) -> Who:
    return Who(tgid=tgid, tid=tgid, process_start_ns=start, exe_inode=inode, exe_dev=dev)


def forked(time: int, creator: Who, child: int, child_start: int) -> Record:
    values = [0] * 10
    values[FORK.index("child_pid") or 0], values[FORK.index("child_process_start_time") or 0] = child, child_start
    values[FORK.index("parent_pid") or 0] = creator.tgid
    return Record(FORK.id, time, tuple(values), who=creator)


def executed(time: int, by: Who, path: bytes, argv: bytes = b"x\0", cwd: bytes = b"/") -> Record:
    values = [0] * EXEC.cells
    values[EXEC.index("dev") or 0], values[EXEC.index("inode") or 0] = by.exe_dev, by.exe_inode
    blobs = tuple(
        Blob(EXEC.index(name) or 0, data, KERNEL)
        for name, data in (("pathname", walked(path)), ("interp", path), ("argv", argv), ("pwd", walked(cwd)))
    )
    return Record(EXEC.id, time, tuple(values), who=by, blobs=blobs)


def walked(path: bytes) -> bytes:
    """As the kernel side carries it: leaf first, then the root."""
    parts = [part for part in path.split(b"/") if part]
    return b"".join(part + b"\0" for part in reversed(parts)) + b"/\0"


def ended(time: int, by: Who, last: int = 1) -> Record:
    return Record(EXIT.id, time, (0, last), who=by)


def core(*records: Record, workers: int = 1) -> Core:
    made = Core(catalogue(), 0, workers)
    made.feed(view(frame(list(records), stream=STREAM_FACTS)))
    batch = made.advance(2**62)
    assert (len(batch.rows), batch.rejected, batch.facts) == (0, 0, len(records)), "facts are no events"
    return made


def shown(made: Core, by: Who) -> bytes:
    made.contexts.intern(by.packed())
    return made.tree.executable(made.contexts.table[made.contexts.intern(by.packed())])


def process(made: Core, tgid: int, start: int) -> Process:
    found = made.tree.get((tgid, start))
    assert found is not None
    return found


def test_an_exec_says_what_a_process_runs() -> None:
    made = core(executed(10, who(5, 100, 7), b"/usr/bin/tool", b"tool\0-x\0", b"/srv"))
    image = process(made, 5, 100).image
    assert image is not None
    assert (image.path, image.asked, image.argv, image.cwd) == (
        b"/usr/bin/tool",
        b"/usr/bin/tool",
        b"tool\0-x\0",
        b"/srv",
    )
    assert shown(made, who(5, 100, 7)) == b"/usr/bin/tool"


def test_a_pid_that_is_used_again_is_another_process() -> None:
    made = core(executed(10, who(5, 100, 7), b"/a"), ended(11, who(5, 100)), executed(12, who(5, 900, 8), b"/b"))
    assert shown(made, who(5, 100, 7)) == b"/a"
    assert shown(made, who(5, 900, 8)) == b"/b"
    assert shown(made, who(5, 500, 7)) == b""


def test_events_of_before_an_exec_keep_the_image_of_before() -> None:
    made = core(executed(10, who(5, 100, 7), b"/sh"), executed(20, who(5, 100, 8), b"/ls"))
    assert shown(made, who(5, 100, 7)) == b"/sh"
    assert shown(made, who(5, 100, 8)) == b"/ls"
    # a task that is ending has no executable any more
    assert shown(made, who(5, 100, 0)) == b"/ls"


def test_a_child_runs_its_creators_image_until_its_own_exec() -> None:
    parent, child = who(5, 100, 7), who(6, 200, 7)
    made = core(executed(10, parent, b"/sh"), forked(20, parent, 6, 200), executed(30, who(6, 200, 9), b"/ls"))
    assert shown(made, child) == b"/sh"
    assert shown(made, who(6, 200, 9)) == b"/ls"


def test_the_creator_is_remembered_with_what_it_ran_then() -> None:
    parent = who(5, 100, 7)
    made = core(
        executed(10, parent, b"/sh"),
        forked(20, parent, 6, 200),
        executed(30, who(5, 100, 8), b"/other"),
        ended(40, parent),
    )
    found = process(made, 6, 200)
    assert found.creator == (5, 100)
    assert found.creator_image is not None
    assert found.creator_image.path == b"/sh"


def test_records_are_taken_in_the_order_of_their_time_whatever_frame_they_come_in() -> None:
    parent = who(5, 100, 7)
    made = Core(catalogue(), 0, 1)
    # the exec by facts, the fork, which was asked for, by an urgent frame
    made.feed(view(frame([executed(30, who(6, 200, 9), b"/ls")], stream=STREAM_FACTS)))
    made.feed(view(frame([executed(10, parent, b"/sh"), forked(20, parent, 6, 200)], stream=1)))
    made.advance(2**62)
    assert shown(made, who(6, 200, 9)) == b"/ls"
    assert shown(made, who(6, 200, 7)) == b"/sh"


def test_a_fork_that_comes_after_its_childs_exec_takes_nothing_away() -> None:
    parent = who(5, 100, 7)
    made = core(executed(10, parent, b"/sh"), executed(30, who(6, 200, 9), b"/ls"))
    made.feed(view(frame([forked(20, parent, 6, 200)], stream=STREAM_FACTS)))
    made.advance(2**62)
    assert shown(made, who(6, 200, 9)) == b"/ls"
    assert shown(made, who(6, 200, 7)) == b"/sh"
    assert process(made, 6, 200).creator == (5, 100)


def test_threads_are_no_processes() -> None:
    made = core(
        executed(10, who(5, 100, 7), b"/sh"), forked(20, who(5, 100, 7), 5, 100), ended(30, who(5, 100), last=0)
    )
    assert len(made.tree) == 1
    assert process(made, 5, 100).ended_ns == 0


def test_lifecycle_events_of_other_workers_are_taken_too() -> None:
    made = Core(catalogue(), 0, 2)
    made.feed(view(frame([executed(10, who(5, 100, 7), b"/sh"), executed(11, who(6, 100, 8), b"/ls")], stream=1)))
    batch = made.advance(2**62)
    assert [int(made.contexts.table["tgid"][w]) for w in batch.rows.who] == [6]
    assert shown(made, who(5, 100, 7)) == b"/sh"


def test_a_path_that_was_cut_is_not_known() -> None:
    record = executed(10, who(5, 100, 7), b"/x")
    cut = Record(record.event, 10, record.args, who=record.who, blobs=(Blob(1, walked(b"/x"), KERNEL | 1),))
    made = core(cut)
    assert process(made, 5, 100).image is not None
    assert shown(made, who(5, 100, 7)) == b""


def test_the_tree_is_bounded_and_those_that_ended_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_PROCESSES", 10)
    monkeypatch.setattr(tree_module, "MAX_ENDED", 4)
    made = core(
        *(executed(i, who(i, 1, 7), b"/x") for i in range(1, 9)), *(ended(20 + i, who(i, 1)) for i in range(1, 7))
    )
    assert [key[0] for key in made.tree._processes] == [3, 4, 5, 6, 7, 8]
    made.feed(view(frame([executed(50 + i, who(50 + i, 1, 7), b"/x") for i in range(12)], stream=STREAM_FACTS)))
    made.advance(2**62)
    assert len(made.tree) == 10
    assert made.tree.take_evicted() == 4, "7, 8 and two of the new ones lived"


def test_the_tree_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_BYTES", 20_000)
    made = core(*(executed(i, who(i, 1, 7), b"/x", bytes(4000)) for i in range(1, 7)))
    assert len(made.tree) == 4
    for i in range(3, 7):
        made.tree._forget((i, 1))
    assert made.tree._bytes == 0


def test_a_process_that_runs_again_and_again_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made = core(*(executed(i, who(5, 1, i % 7 + 1), b"/x%d" % (i % 7)) for i in range(1, 60)))
    held = process(made, 5, 1)
    assert made.tree._bytes == sum(image.bytes for image in (held.image, *held.earlier) if image)


def test_broken_records_are_left_to_the_books(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Core(catalogue(), 0, 1)
    short: Any = bytearray(frame([executed(10, who(5, 100, 7), b"/sh")], stream=STREAM_FACTS))
    short[184 + 224 + 20 : 184 + 224 + 22] = (2).to_bytes(2, "little")  # fewer cells than its arguments take
    made.feed(np.frombuffer(bytes(short), "u1"))
    assert made.advance(2**62).facts == 0
    assert len(made.tree) == 0
