"""`headrace.Subscriber` and its asynchronous form, against a real socket that sends what a publisher would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import headrace
from headrace.pipeline.api.subscriber import topic_of

TOPIC = b"event/openat/"


class Publisher:
    """Sends each subscriber what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/socket"
        self._context: Any = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.bind(self.endpoint)

    def subscribed(self) -> bytes:
        """The topic of a subscription that has come."""
        assert self._socket.poll(10_000)
        return bytes(self._socket.recv()[1:])

    def send(self, sequence: int, payload: bytes, topic: bytes = TOPIC, **about: object) -> None:
        header = {"publisher": "a-1", "sequence": sequence, "count": 1, "format": "json"} | about
        self._socket.send_multipart([topic, json.dumps(header).encode(), payload])

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    found = Publisher(tmp_path)
    yield found
    found.close()


def test_events_are_dictionaries_and_gaps_stand_between_them(publisher: Publisher) -> None:
    with headrace.Subscriber(publisher.endpoint, ["openat"], timeout_s=0.2) as events:
        assert publisher.subscribed() == TOPIC
        publisher.send(4, b'{"a":1}\n{"a":2}\n')
        publisher.send(7, b'{"a":3}\n')
        publisher.send(0, b'{"a":4}\n', publisher="a-2")
        found = list(events)
    assert found == [{"a": 1}, {"a": 2}, headrace.Gap("event/openat/", "a-1", 2), {"a": 3}, {"a": 4}]


def test_messages_are_whole_batches(publisher: Publisher) -> None:
    with headrace.Subscriber(publisher.endpoint, timeout_s=0.2) as subscriber:
        assert publisher.subscribed() == b"all/"
        publisher.send(0, b'{"a":1}\n{"a":2}\n', b"all/", count=2, repeated=True)
        (message,) = subscriber.messages()
    assert isinstance(message, headrace.Message)
    assert (len(message), message.topic, message.format, message.header.repeated) == (2, "all/", "json", True)
    assert message.data == [{"a": 1}, {"a": 2}]


def test_the_asynchronous_form_gives_the_same(publisher: Publisher) -> None:
    async def receive() -> list[object]:
        found: list[object] = []
        async with headrace.AsyncSubscriber(publisher.endpoint, ["openat"]) as events:
            await asyncio.to_thread(publisher.subscribed)
            publisher.send(0, b'{"a":1}\n')
            publisher.send(2, b'{"a":2}\n')
            async for event in events:
                found.append(event)
                if len(found) == 3:
                    break
        return found

    assert asyncio.run(receive()) == [{"a": 1}, headrace.Gap("event/openat/", "a-1", 1), {"a": 2}]


@pytest.mark.parametrize("payload", [b"no\n", b"[1]\n", b"\xff\n"])
def test_what_is_not_from_a_publisher_raises(publisher: Publisher, payload: bytes) -> None:
    with headrace.Subscriber(publisher.endpoint, ["openat"], timeout_s=5) as events:
        publisher.subscribed()
        publisher.send(0, payload)
        with pytest.raises(headrace.ProtocolError, match="not a publisher of headrace"):
            next(iter(events))


@pytest.mark.parametrize(
    ("endpoint", "options", "why"),
    [
        ("nonsense", {}, "nonsense: "),
        ("ipc:///tmp/x", {"key": "/nonexistent"}, "the publisher's public key is needed"),
        ("ipc:///tmp/x", {"server_key": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_what_cannot_be_used_raises(endpoint: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(headrace.Error, match=why):
        headrace.Subscriber(endpoint, **options)  # type: ignore[arg-type]


def test_names_of_events_are_short_for_topics() -> None:
    assert [topic_of(name) for name in ("all", "openat", "event/loss/", "finding/high/")] == [
        "all/", "event/openat/", "event/loss/", "finding/high/",
    ]  # fmt: skip


def test_a_loop_can_be_left_and_begun_again(publisher: Publisher) -> None:
    with headrace.Subscriber(publisher.endpoint, ["openat"], timeout_s=0.2) as events:
        publisher.subscribed()
        publisher.send(0, b'{"a":1}\n{"a":2}\n')
        publisher.send(3, b'{"a":3}\n')
        assert next(iter(events)) == {"a": 1}
        found = []
        for event in events:
            found.append(event)
            if isinstance(event, headrace.Gap):
                break
        assert [*found, *events] == [{"a": 2}, headrace.Gap("event/openat/", "a-1", 2), {"a": 3}]
        events.close()  # and once more at the end


@pytest.mark.parametrize("topics", [[1], [None], "all"])
def test_topics_that_are_none_are_refused_and_nothing_hangs(topics: Any) -> None:
    for kind in (headrace.Subscriber, headrace.AsyncSubscriber):
        with pytest.raises((headrace.Error, TypeError, AttributeError)):
            kind("ipc:///tmp/nobody", topics)


@pytest.mark.parametrize("count", [-1, 2**70])
def test_a_count_that_is_none_is_refused(publisher: Publisher, count: int) -> None:
    with headrace.Subscriber(publisher.endpoint, ["openat"], timeout_s=5) as events:
        publisher.subscribed()
        publisher.send(0, b'{"a":1}\n', count=count)
        with pytest.raises(headrace.ProtocolError):
            next(iter(events))
