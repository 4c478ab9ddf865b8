"""Sinks: every line closes, done is called once a batch, and nothing blocks the caller."""

from __future__ import annotations

import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from headrace.bpf.layout import EVENTS
from headrace.config.outputs import parse
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.publish.endpoints import Listening
from headrace.pipeline.publish.sinks import (
    BACKLOG_BATCHES,
    BACKLOG_BYTES,
    Counts,
    FileSink,
    NoneSink,
    Offer,
    SinkError,
    open_target,
)
from headrace.pipeline.publish.sockets import ZmqSink
from headrace.pipeline.transport.gather import Gather

DEADLINE_S = 10
OPENAT, CLOSE = 257, 3


class Batches:
    """Makes offers and counts how often each is done."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def offer(self, *pieces: bytes, rows: int = 1, topic: int = ALL, covered: int = 0) -> Offer:
        at = len(self.done)
        self.done.append(0)

        def done() -> None:
            self.done[at] += 1

        return Offer(Gather.of(*(np.frombuffer(p, "u1") for p in pieces)), rows, topic, covered, done)


@pytest.fixture
def batches() -> Batches:
    return Batches()


def output(text: str) -> Any:
    return parse([text]).sinks[0]


def closes(counts: Counts) -> bool:
    return counts.offered == counts.written + counts.filtered + counts.dropped


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    until = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until, "deadline passed"
        pause.wait(0.001)


class Pipe:
    """A pipe whose write end goes to a sink."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self._open = True

    def close(self) -> None:
        if self._open:
            os.close(self.read_end)
        self._open = False


class Files:
    """Makes file sinks; closes those that a failed test has left, so that their threads end."""

    def __init__(self) -> None:
        self.pipes: list[Pipe] = []
        self.sinks: list[FileSink] = []

    def open(self, spec: str, fd: int) -> FileSink:
        sink = FileSink(output(spec), fd)
        self.sinks.append(sink)
        return sink

    def piped(self, spec: str) -> tuple[FileSink, Pipe]:
        pipe = Pipe()
        self.pipes.append(pipe)
        return self.open(spec, pipe.write_end), pipe

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for sink in self.sinks:
            if sink._thread.is_alive():
                sink.close()


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.close()


def test_counting_writes_every_row_once(batches: Batches) -> None:
    sink = NoneSink(output("none"))
    assert sink.try_offer(batches.offer(b"x", rows=5))
    assert sink.try_offer(batches.offer(rows=3, topic=OPENAT))
    assert (sink.counts.offered, sink.counts.written, batches.done) == (5, 5, [1, 1])
    sink.close()


def test_a_file_has_every_piece_in_order(batches: Batches, files: Files, tmp_path: Path) -> None:
    target = tmp_path / "out"
    sink = files.open("json:x", open_target(str(target), "output x"))
    for i in range(20):
        assert sink.try_offer(batches.offer(b"%d " % i, b"", b"line\n", rows=2))
    sink.close()
    assert target.read_bytes() == b"".join(b"%d line\n" % i for i in range(20))
    assert (sink.counts.offered, sink.counts.written, sink.counts.bytes) == (40, 40, target.stat().st_size)
    assert batches.done == [1] * 20


def test_a_file_that_breaks_ends_with_a_whole_line(batches: Batches, files: Files, tmp_path: Path) -> None:
    target = tmp_path / "out"
    sink = files.open("json:x", open_target(str(target), "output x"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, before[1]))
    try:
        for _ in range(3):
            sink.try_offer(batches.offer(b"0123456\n", b"0123456\n", rows=2))
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_bytes() == b"0123456\n" * 3
    assert (sink.counts.written, sink.counts.dropped, sink.counts.bytes, sink.broken) == (3, 3, 24, "EFBIG")


def test_more_pieces_than_writev_takes_are_written(batches: Batches, files: Files, tmp_path: Path) -> None:
    most = os.sysconf("SC_IOV_MAX")
    target = tmp_path / "out"
    sink = files.open("json:x", open_target(str(target), "output x"))
    pieces = [b"%d\n" % i for i in range(2 * most + 7)]
    sink.try_offer(batches.offer(*pieces))
    sink.close()
    assert target.read_bytes() == b"".join(pieces)


def test_a_write_that_the_pipe_takes_in_parts_is_finished(batches: Batches, files: Files) -> None:
    sink, pipe = files.piped("json:x")
    data = os.urandom(1 << 20)
    sink.try_offer(batches.offer(data[:300_001], data[300_001:]))
    found = b""
    while len(found) < len(data):
        found += os.read(pipe.read_end, 1 << 16)
    sink.close()
    assert found == data
    assert sink.counts.bytes == len(data)


def fill(sink: FileSink, batches: Batches) -> int:
    """Offer until it takes no more; how many it took."""
    taken = 0
    while sink.try_offer(batches.offer(bytes(1 << 20), rows=2)):
        taken += 1
        assert taken <= BACKLOG_BATCHES + 1, "an unbounded queue"
    return taken


def test_a_reader_that_stands_still_blocks_the_batch_and_not_the_caller(batches: Batches, files: Files) -> None:
    sink, pipe = files.piped("json:x")
    taken = fill(sink, batches)
    assert sink.counts.offered == 2 * taken
    assert sink.counts.dropped == 0
    pipe.close()
    sink.close()
    assert (sink.broken, closes(sink.counts)) == ("EPIPE", True)
    assert sink.counts.dropped == 2 * taken
    assert batches.done == [1] * taken + [0]


def test_a_sink_that_may_drop_counts_what_it_drops(batches: Batches, files: Files) -> None:
    sink, pipe = files.piped("json:x,policy=drop")
    offered = 2 * BACKLOG_BATCHES
    for _ in range(offered):
        assert sink.try_offer(batches.offer(bytes(1 << 20), rows=2))
    assert sink.counts.dropped >= 2 * (offered - BACKLOG_BATCHES - 1)
    assert not sink.broken
    pipe.close()
    sink.close()
    assert sink.counts.offered == 2 * offered
    assert closes(sink.counts)
    assert batches.done == [1] * offered


def test_a_sink_that_may_drop_keeps_nobody_elses_memory(batches: Batches, files: Files) -> None:
    """Nobody reads: what is offered is free at once, and what is copied is bounded."""
    sink, pipe = files.piped("json:x,policy=drop")
    for n in range(1, 40):
        assert sink.try_offer(batches.offer(bytes([n]) * (1 << 20)))
        assert batches.done == [1] * n
    # one batch may be with the writer
    assert 40 - BACKLOG_BYTES // (1 << 20) - 3 <= sink.counts.dropped <= 39 - BACKLOG_BYTES // (1 << 20)
    pipe.close()
    sink.close()
    assert closes(sink.counts)


def test_what_a_predecessor_had_copied_is_counted_as_dropped(files: Files) -> None:
    sink, pipe = files.piped("json:x,policy=drop")
    sink.counts.offered, sink.counts.written, sink.counts.dropped = 10, 6, 1
    sink.take_up()
    assert (sink.counts.offered, sink.counts.written, sink.counts.dropped) == (10, 6, 4)
    pipe.close()
    sink.close()
    other, pipe = files.piped("json:x")
    other.counts.offered, other.counts.written, other.counts.dropped = 10, 6, 1
    other.take_up()
    assert other.counts.offered == 7, "the rest is offered again"
    pipe.close()
    other.close()


def test_a_closed_pipe_is_told_and_what_follows_is_dropped(batches: Batches, files: Files) -> None:
    sink, pipe = files.piped("table:x")
    pipe.close()
    sink.try_offer(batches.offer(b"x\n"))
    wait_until(lambda: bool(sink.broken))
    for _ in range(3 * BACKLOG_BATCHES):
        assert sink.try_offer(batches.offer(b"y\n"))
    sink.close()
    assert sink.broken == "EPIPE"
    assert (sink.counts.written, closes(sink.counts)) == (0, True)
    assert set(batches.done) == {1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_by_its_error(batches: Batches, files: Files) -> None:
    sink = files.open("json:x", open_target("/dev/full", "output x"))
    sink.try_offer(batches.offer(b"x\n", rows=4))
    sink.close()
    assert (sink.broken, sink.counts.dropped, sink.counts.written) == ("ENOSPC", 4, 0)


def test_a_file_that_cannot_be_opened_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="output x: No such file"):
        open_target("/nonexistent/x", "output x")
    with pytest.raises(SinkError, match="Is a directory"):
        open_target(str(tmp_path), "output x")


def test_counts_keep_through_the_journal() -> None:
    from headrace.pipeline.process.books import publisher_journal

    state = np.zeros(1, publisher_journal(1, 1))
    counts = Counts(1, 2, 3, 4, 5, 6)
    counts.store(state["sinks"][0, 0])
    again = Counts()
    again.load(state["sinks"][0, 0])
    assert again == counts


# -- ZeroMQ


class Subscriber:
    """A SUB socket of a context of its own."""

    def __init__(self, endpoint: str, *topics: bytes) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.set(zmq.RCVTIMEO, DEADLINE_S * 1000)
        self.socket.set(zmq.LINGER, 0)
        for topic in topics:
            self.socket.subscribe(topic)
        self.socket.connect(endpoint)

    def receive(self) -> tuple[bytes, dict[str, Any], bytes]:
        topic, header, payload = self.socket.recv_multipart()
        return topic, msgspec.json.decode(header), payload

    def close(self) -> None:
        self.socket.close()
        self.context.term()


class Published:
    """A sink, its interest, and its subscribers."""

    def __init__(self, folder: Path, options: str = "") -> None:
        self.endpoint = f"ipc://{folder}/s"
        self.interest = np.zeros(EVENTS + 1, "u1")
        self.listening = Listening(self.endpoint)
        made = output(f"zmq:{self.endpoint}{options}")
        self.sink = ZmqSink(made, self.interest, "me", None, self.listening.target)
        self.subscribers: list[Subscriber] = []

    def subscribe(self, *topics: bytes, until: Callable[[], bool]) -> Subscriber:
        one = Subscriber(self.endpoint, *topics)
        self.subscribers.append(one)
        self.wait(until)
        return one

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.sink.fd, selectors.EVENT_READ)
            self.sink.read_subscriptions()
            while not until():
                assert time.monotonic() < deadline, "deadline passed"
                # the descriptor is edge-triggered: it is looked at again in any case
                selector.select(0.01)
                self.sink.read_subscriptions()

    def close(self) -> None:
        for one in self.subscribers:
            one.close()
        self.sink.close()
        self.listening.close()


@pytest.fixture
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Published]:
    made = Published(tmp_path, getattr(request, "param", ""))
    yield made
    made.close()


def test_subscriptions_turn_rendering_on_and_off(published: Published) -> None:
    interest = published.interest
    one = published.subscribe(b"event/openat/", until=lambda: bool(interest[OPENAT]))
    assert interest.sum() == 1, "openat, and neither openat2 nor everything"
    one.socket.unsubscribe(b"event/openat/")
    published.wait(lambda: not interest.any())
    published.subscribe(b"", until=lambda: bool(interest[ALL]))
    assert interest.sum() == 1


def test_a_prefix_of_events_asks_for_all_of_them(published: Published) -> None:
    interest = published.interest
    published.subscribe(b"event/open", until=lambda: bool(interest[OPENAT]))
    assert set(np.flatnonzero(interest).tolist()) >= {2, 257, 437}
    assert not interest[CLOSE]


def test_messages_carry_topic_header_and_payload_and_are_numbered(batches: Batches, published: Published) -> None:
    one = published.subscribe(b"all/", until=lambda: bool(published.interest[ALL]))
    for i in range(3):
        assert published.sink.try_offer(batches.offer(b"pay", b"load%d" % i, rows=2))
    for i in range(3):
        topic, header, payload = one.receive()
        assert (topic, payload) == (b"all/", b"payload%d" % i)
        assert header == {"publisher": "me", "sequence": i, "count": 2, "format": "json", "repeated": False}
    counts = published.sink.counts
    assert (counts.offered, counts.written, counts.bytes) == (6, 6, 24)
    assert batches.done == [1, 1, 1]


def test_what_nobody_asked_for_is_filtered(batches: Batches, published: Published) -> None:
    published.sink.try_offer(batches.offer(rows=5))
    assert (published.sink.counts.filtered, closes(published.sink.counts), batches.done) == (5, True, [1])


def test_topics_are_numbered_apart_and_the_line_closes(batches: Batches, published: Published) -> None:
    interest = published.interest
    one = published.subscribe(
        b"event/openat/", b"event/close/", until=lambda: bool(interest[OPENAT] and interest[CLOSE])
    )
    # a turn of ten rows, as a worker writes it: its topics, then a record that says how many they cover
    published.sink.try_offer(batches.offer(b"o", rows=3, topic=OPENAT, covered=3))
    published.sink.try_offer(batches.offer(b"c", rows=2, topic=CLOSE, covered=2))
    published.sink.try_offer(batches.offer(rows=10, covered=5))
    received = [one.receive() for _ in range(2)]
    assert [(t, h["sequence"], h["count"]) for t, h, _ in received] == [
        (b"event/openat/", 0, 3),
        (b"event/close/", 0, 2),
    ]
    counts = published.sink.counts
    assert (counts.offered, counts.written, counts.filtered) == (10, 5, 5)


def test_a_topic_beside_everything_does_not_open_the_line(batches: Batches, published: Published) -> None:
    interest = published.interest
    published.subscribe(b"event/openat/", b"all/", until=lambda: bool(interest[OPENAT] and interest[ALL]))
    # a turn of ten rows, three of them openat: its topic, whose rows count with everything, then everything
    published.sink.try_offer(batches.offer(b"o", rows=3, topic=OPENAT))
    published.sink.try_offer(batches.offer(b"everything", rows=10))
    assert published.sink.counts.offered == 10
    assert closes(published.sink.counts)


@pytest.mark.parametrize("published", [",queue=1"], indirect=True)
def test_a_subscriber_that_stands_still_costs_counted_batches(batches: Batches, published: Published) -> None:
    one = published.subscribe(b"all/", until=lambda: bool(published.interest[ALL]))
    sink = published.sink
    while not sink.counts.dropped:
        assert len(batches.done) < 10_000
        assert sink.try_offer(batches.offer(bytes(1 << 16)))
    received = [one.receive()[1]["sequence"] for _ in range(sink.counts.written)]
    # the next that goes out shows the gap
    wait_until(lambda: sink.try_offer(batches.offer(b"after")) and sink.counts.written > len(received))
    received.append(one.receive()[1]["sequence"])
    offered = len(batches.done)
    assert received[-1] == offered - 1
    assert len(set(range(offered)) - set(received)) == sink.counts.dropped
    assert (sink.counts.offered, closes(sink.counts)) == (offered, True)
    assert set(batches.done) == {1}


@pytest.mark.parametrize("published", [",queue=1,policy=block"], indirect=True)
def test_a_sink_that_must_not_drop_hands_the_batch_back(batches: Batches, published: Published) -> None:
    published.subscribe(b"all/", until=lambda: bool(published.interest[ALL]))
    offers = 0
    while published.sink.try_offer(batches.offer(bytes(1 << 16))):
        offers += 1
        assert offers < 10_000
    assert batches.done == [1] * offers + [0]
    assert (published.sink.counts.offered, published.sink.counts.dropped) == (offers, 0)
    assert closes(published.sink.counts)


def test_an_endpoint_in_use_is_refused_and_stays_usable(published: Published) -> None:
    with pytest.raises(SinkError, match="already in use"):
        Listening(published.endpoint)
    published.subscribe(b"all/", until=lambda: bool(published.interest[ALL]))


def test_a_file_in_the_way_of_a_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(SinkError, match="not a socket"):
        Listening(f"ipc://{path}")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("endpoint", ["tcp://nowhere", "tcp://127.0.0.1:70000", "tcp://127.0.0.1:x", "udp://1:2"])
def test_an_endpoint_that_makes_no_sense_is_named(endpoint: str) -> None:
    with pytest.raises(SinkError, match=f"zmq:{endpoint}"):
        Listening(endpoint)


def test_a_socket_that_nobody_listens_at_is_taken_over(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    first = Listening(endpoint)
    assert first.target
    first.target.close()
    first.target = None
    second = Listening(endpoint)
    # the file is the second's by now
    first.close()
    assert (tmp_path / "s").exists()
    second.close()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", "tcp://[::1]:*", "tcp://lo:*", "ipc://@headrace-test-name"])
def test_other_endpoints_listen_as_well(endpoint: str) -> None:
    listening = Listening(endpoint)
    assert listening.target
    with socket.socket(fileno=os.dup(listening.target.fd)) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    listening.close()


def test_a_socket_is_its_owners_alone(published: Published) -> None:
    mode = os.stat(published.endpoint.removeprefix("ipc://")).st_mode
    assert mode & 0o077 == 0
