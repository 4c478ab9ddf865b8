"""What peers of a publisher may subscribe to, and what becomes of those that break a bound; on real sockets."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from headrace.bpf.layout import EVENTS
from headrace.config.outputs import parse
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.publish import peers
from headrace.pipeline.publish.sockets import ZmqSink

DEADLINE_S = 10
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""Of ZMTP 3.0, without security."""


class Raw:
    """A peer that writes ZMTP 3.0 itself: it says what no ZeroMQ would."""

    def __init__(self, path: str, **properties: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(path)
        self.socket.sendall(GREETING)
        body = b"\x05READY"
        for name, value in {"Socket-Type": b"SUB", **properties}.items():
            name = name.replace("_", "-")
            body += bytes([len(name)]) + name.encode() + len(value).to_bytes(4, "big") + value
        self.socket.sendall(b"\x04" + bytes([len(body)]) + body)
        self._read(len(GREETING))
        # the publisher's READY: nothing may be said before
        self._read(self._read(2)[1])

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self.socket.recv(size - len(found)) or pytest.fail("the publisher has ended the connection")
        return found

    def send(self, *messages: bytes) -> None:
        """Until it is disconnected."""
        data = b"".join(b"\x02" + len(m).to_bytes(8, "big") + m for m in messages)
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def ended(self) -> bool:
        """Whether the publisher has ended the connection."""
        self.socket.settimeout(0)
        try:
            while self.socket.recv(65536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True


class Published:
    """A sink and its peers."""

    def __init__(self, folder: Path) -> None:
        self.path = f"{folder}/s"
        self.interest = np.zeros(EVENTS + 1, "u1")
        self.sink = ZmqSink(parse([f"zmq:ipc://{self.path}"]).sinks[0], self.interest, "me")
        self.raw: list[Raw] = []
        self.honest: list[Any] = []
        self.context: Any = zmq.Context()

    def peer(self, **properties: bytes) -> Raw:
        self.raw.append(Raw(self.path, **properties))
        return self.raw[-1]

    def subscribed(self, topic: bytes) -> Any:
        """An honest subscriber."""
        found = self.context.socket(zmq.SUB)
        self.honest.append(found)
        found.subscribe(topic)
        found.connect(f"ipc://{self.path}")
        self.wait(lambda: self.topics[topic] > 0)
        return found

    @property
    def topics(self) -> Any:
        return self.sink._subscriptions.topics

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.sink.fd, selectors.EVENT_READ)
            while not until():
                assert time.monotonic() < deadline, "deadline passed"
                selector.select(0.01)
                self.sink.read_subscriptions()

    def close(self) -> None:
        for one in self.raw:
            one.socket.close()
        self.context.destroy(linger=0)
        self.sink.close()


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    made = Published(tmp_path)
    yield made
    made.close()


def test_a_peer_cannot_end_the_subscription_of_another(published: Published) -> None:
    honest = published.subscribed(b"all/")
    hostile = published.peer()
    hostile.send(b"\x00all/", b"\x00all/", b"\x01mark")
    published.wait(lambda: published.topics[b"mark"] == 1)
    assert published.topics[b"all/"] == 1
    assert published.interest[ALL]
    honest.unsubscribe(b"all/")
    published.wait(lambda: not published.interest[ALL])


def test_a_topic_of_two_peers_is_wanted_until_both_have_gone(published: Published) -> None:
    one, two = published.peer(), published.peer()
    for peer in (one, two):
        peer.send(b"\x01all/", b"\x01all/")
    published.wait(lambda: published.topics[b"all/"] == 2)
    one.socket.close()
    published.wait(lambda: published.topics[b"all/"] == 1)
    assert published.interest[ALL]
    two.send(b"\x00all/")
    published.wait(lambda: not published.interest[ALL])


def test_a_peer_with_too_many_subscriptions_is_disconnected_and_counted(published: Published) -> None:
    published.subscribed(b"all/")
    hostile = published.peer()
    hostile.send(*[b"\x01%d" % i for i in range(peers.MAX_TOPICS + 1)])
    published.wait(hostile.ended)
    published.wait(lambda: len(published.topics) == 1)
    assert published.sink.counts.refused == 1
    assert published.interest[ALL]


def test_as_many_as_are_allowed_are_kept(published: Published) -> None:
    peer = published.peer()
    peer.send(*[b"\x01%d" % i for i in range(peers.MAX_TOPICS)])
    published.wait(lambda: len(published.topics) == peers.MAX_TOPICS)
    assert not peer.ended()
    assert published.sink.counts.refused == 0


def test_a_peer_with_too_many_bytes_of_subscriptions_is_disconnected(published: Published) -> None:
    hostile = published.peer()
    hostile.send(*[b"\x01%900d" % i for i in range(peers.MAX_TOPIC_BYTES // 900 + 1)])
    published.wait(hostile.ended)
    published.wait(lambda: not published.topics)
    assert published.sink.counts.refused == 1


def test_a_peer_that_subscribes_again_and_again_is_disconnected(published: Published) -> None:
    hostile = published.peer()

    def ended() -> bool:
        if hostile.ended():
            return True
        hostile.socket.settimeout(DEADLINE_S)
        hostile.send(*[b"\x01x", b"\x00x"] * 500)
        return False

    published.wait(ended)
    published.wait(lambda: not published.topics)
    assert published.sink.counts.refused == 1


def test_all_peers_together_have_a_bound(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_ALL_TOPICS", 20)
    first, second = published.peer(), published.peer()
    first.send(*[b"\x01a%d" % i for i in range(15)])
    published.wait(lambda: len(published.topics) == 15)
    second.send(*[b"\x01b%d" % i for i in range(6)])
    published.wait(second.ended)
    published.wait(lambda: len(published.topics) == 15)
    assert not first.ended()


def test_a_message_that_is_too_long_disconnects(published: Published) -> None:
    hostile = published.peer()
    hostile.send(b"\x01" + bytes(peers.MAX_MESSAGE_BYTES))
    published.wait(hostile.ended)
    assert not published.topics


def test_a_peer_cannot_pass_for_another(published: Published) -> None:
    honest = published.peer()
    honest.send(b"\x01all/")
    published.wait(lambda: published.topics[b"all/"] == 1)
    (number,) = published.sink._subscriptions._peers
    hostile = published.peer(**{"User-Id": number.encode(), "__fd": b"0"})
    hostile.send(b"\x00all/", b"\x01mark")
    published.wait(lambda: published.topics[b"mark"] == 1)
    assert published.topics[b"all/"] == 1
    assert len(published.sink._subscriptions._peers) == 2


def test_what_is_no_subscription_is_left_alone(published: Published) -> None:
    peer = published.peer()
    peer.send(b"hello", b"", b"\x02all/", b"\x01mark")
    published.wait(lambda: published.topics[b"mark"] == 1)
    assert dict(published.topics) == {b"mark": 1}


def test_books_of_peers_come_to_nothing_when_all_have_gone(published: Published) -> None:
    for round_ in range(5):
        few = [published.peer() for _ in range(4)]
        for peer in few:
            peer.send(b"\x01all/", b"\x01%d" % round_)
        published.wait(lambda: published.topics[b"all/"] == 4)
        for peer in few:
            peer.socket.close()
        published.wait(lambda: not published.topics)
    subscriptions = published.sink._subscriptions
    assert (subscriptions._pairs, subscriptions._bytes) == (0, 0)
    assert len(subscriptions._peers) <= 20
