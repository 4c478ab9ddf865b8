"""The sink that publishes over ZeroMQ."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import zmq

from headrace.bpf.layout import EVENTS
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.outputs import Output
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.process.progress import Progress
from headrace.pipeline.publish.curve import ServerKeys
from headrace.pipeline.publish.peers import Door, Subscriptions
from headrace.pipeline.publish.sinks import Counts, Offer, SinkError
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Array

LINGER_MS = 2000


class ZmqSink:
    """An XPUB socket. XPUB reports subscriptions; XPUB_NODROP reports a full queue instead of dropping silently.

    Message: topic | header (JSON) | payload. See docs/reference/wire.md.
    """

    has_enough = False

    def __init__(
        self,
        output: Output,
        interest: Array,
        publisher: str,
        shared: ZmqSink | None = None,
        listening: InheritedFd | None = None,
        keys: ServerKeys | None = None,
    ) -> None:
        """`shared` is the sink of events at the same endpoint, whose socket this sink uses for findings. `listening` is
        the socket that clients connect to (pipeline/publish/endpoints.py). Raises SinkError if binding fails.
        """
        self.output, self.counts, self.broken = output, Counts(), ""
        self._publisher, self._interest, self.progress = publisher, interest, Progress()
        self._sequences: dict[bytes, int] = {}
        self._shared, self._refused = shared, 0
        self._subscriptions: Subscriptions = shared._subscriptions if shared else Subscriptions()
        if shared is not None:
            self._socket: Any = shared._socket
            return
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.XPUB_NODROP, 1)
        self._socket.set(zmq.SNDHWM, output.queue)
        self._socket.set(zmq.LINGER, LINGER_MS)
        self._door = Door(self._context, keys)
        self._door.guard(self._socket, keys)
        self._topics = {e.id: f"event/{e.name}/".encode() for e in catalogue().by_id.values()}
        self._topics[ALL] = b"all/"
        if listening is not None:
            self._socket.set(zmq.USE_FD, os.dup(listening.fd))
        try:
            self._socket.bind(output.target)
        except zmq.ZMQError as error:
            raise SinkError(f"output zmq:{output.target}: {error.strerror}") from error
        self._door.start()

    @property
    def fd(self) -> int:
        """Descriptor that becomes readable when there may be subscriptions to read."""
        return int(self._socket.get(zmq.FD))

    def read_subscriptions(self) -> None:
        """Process changes of subscriptions. Updates `interest`, which decides what workers render."""
        if self._shared is not None:
            return
        changed = self._subscriptions.read(lambda: self._socket.recv(zmq.DONTWAIT, copy=False))
        refused = self._subscriptions.disconnected + self._door.refused
        self.counts.refused, self._refused = self.counts.refused + refused - self._refused, refused
        topics = self._subscriptions.topics
        if changed:
            for event in range(EVENTS):
                topic = self._topics.get(event)
                self._interest[event] = topic is not None and self._wanted(topic, 1)
            self._interest[ALL] = any(b"all/".startswith(s) or s.startswith(b"all/") for s in topics)

    def _wanted(self, topic: bytes, shortest: int = 0) -> bool:
        """Whether a subscription is a prefix of `topic`. The cost depends only on the length of the topic."""
        return any(topic[:n] in self._subscriptions.topics for n in range(shortest, len(topic) + 1))

    def try_offer(self, offer: Offer) -> bool:
        if offer.topic == ALL:
            self.counts.offered += offer.rows
        taken = self._send_wanted(offer)
        self.progress.end(self.counts.written, self.counts.filtered, self.counts.bytes)
        if taken:
            offer.done()
        elif offer.topic == ALL:
            self.counts.offered -= offer.rows
        return taken

    def _send_wanted(self, offer: Offer) -> bool:
        counts = self.counts
        if offer.name and not self._wanted(offer.name):
            counts.filtered += offer.rows
            return True
        if not len(offer.gather):
            counts.filtered += offer.rows - offer.covered
            return True
        counted = offer.rows if offer.topic == ALL else offer.covered
        self.progress.begin(counts.written + counted)
        sent = self._send(offer)
        if not sent and self.output.policy == "block":
            return False
        counts.written += counted * sent
        counts.dropped += counted * (not sent)
        return True

    def _send(self, offer: Offer) -> bool:
        topic = offer.name or self._topics[offer.topic]
        sequence = self._sequences.get(topic, 0)
        header = msgspec.json.encode(
            {
                "publisher": self._publisher,
                "sequence": sequence,
                "count": offer.rows,
                "format": self.output.render,
                "repeated": offer.repeated,
            }
        )
        payload = offer.gather.joined()
        try:
            self._socket.send_multipart([topic, header, payload], zmq.DONTWAIT)
        except zmq.Again:
            # skip the number, so that subscribers see a gap
            if self.output.policy == "drop":
                self._sequences[topic] = sequence + 1
            return False
        self._sequences[topic] = sequence + 1
        self.counts.bytes += len(payload)
        return True

    def take_up(self) -> None:
        self.counts.take_up()
        self.progress.end(self.counts.written, self.counts.filtered, self.counts.bytes)

    def close(self) -> None:
        if self._shared is not None:
            return
        self._socket.close()
        self._context.term()
        self._door.join()
