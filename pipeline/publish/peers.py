"""Peers of a ZeroMQ publisher: access control, subscriptions per peer, and disconnection of peers that exceed limits.

Runs in the publisher. XPUB delivers the subscriptions of all peers in one stream. To distinguish peers, each connection
gets a number: ZeroMQ asks a handler on inproc://zeromq.zap.01 about every connection (RFC 27), and attaches the user id
that the handler returns to every message of that connection.

    a peer connects --ZAP--> Door: a number, or refused (in a thread, because the handshake waits for it)
    a peer subscribes --XPUB_VERBOSER--> Subscriptions: counted for that number
    a peer disconnects --XPUB--> one unsubscription per remaining (peer, topic) pair, without a number

`Subscriptions` mirrors the pairs that ZeroMQ keeps. A message of one peer never ends the subscription of another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from headrace.pipeline.process.logs import logger
from headrace.pipeline.publish.curve import ServerKeys

MAX_TOPICS, MAX_TOPIC_BYTES = 1024, 64 << 10
"""Limits per peer."""
MAX_ALL_TOPICS, MAX_ALL_TOPIC_BYTES = 16384, 4 << 20
"""Limits for all peers together."""
MAX_MESSAGES_PER_S = 4096
"""Maximum rate of one peer."""
MAX_MESSAGES_AT_ONCE = 8192
"""Maximum number of messages to read before the publisher continues with its other work."""
MAX_MESSAGE_BYTES = 1024
"""ZeroMQ disconnects a peer that sends a larger message."""
RECEIVE_BUFFER_BYTES = 64 << 10
"""Kernel receive buffer per connection. It bounds the data still to be read from a disconnected peer."""
ZAP, DOMAIN = "inproc://zeromq.zap.01", b"headrace"
LOG_S = 60.0


class Limited:
    """Logs a refusal at most once every LOG_S seconds, with the number of refusals suppressed in between."""

    def __init__(self, event: str) -> None:
        self._event, self._next_s, self._suppressed = event, 0.0, 0

    def warn(self, **facts: Any) -> None:
        """Log the refusal, or count it as suppressed."""
        now = time.monotonic()
        if now < self._next_s:
            self._suppressed += 1
            return
        logger("publisher").warning(self._event, suppressed=self._suppressed, **facts)
        self._next_s, self._suppressed = now + LOG_S, 0


class Door:
    """ZAP handler: answers ZeroMQ's query about every connection to the sockets of a context until the context ends."""

    def __init__(self, context: Any, keys: ServerKeys | None) -> None:
        self._clients = keys.clients if keys else None
        self.refused = 0
        """Number of refused connections, from clients that are not listed."""
        self._socket = context.socket(zmq.REP)
        self._socket.bind(ZAP)
        self._log = Limited("publisher.client_refused")
        self._thread = threading.Thread(target=self._answer_all, name="door")

    def guard(self, server: Any, keys: ServerKeys | None) -> None:
        """Configure a socket before it is bound. Peers that connect wait until `start`."""
        server.set(zmq.ZAP_DOMAIN, DOMAIN)
        server.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        server.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        server.set(zmq.RCVBUF, RECEIVE_BUFFER_BYTES)
        server.set(zmq.XPUB_VERBOSER, 1)
        if keys:
            server.set(zmq.CURVE_SERVER, 1)
            server.set(zmq.CURVE_SECRETKEY, keys.secret)

    def start(self) -> None:
        """Start the handler thread."""
        self._thread.start()

    def _answer_all(self) -> None:
        number = 0
        try:
            while True:
                version, request, _domain, address, _identity, mechanism, *credentials = self._socket.recv_multipart()
                number += 1
                allowed = self._clients is None or (mechanism == b"CURVE" and credentials[0] in self._clients)
                status, text = (b"200", b"OK") if allowed else (b"400", b"not a listed client")
                if not allowed:
                    self.refused += 1
                    self._log.warn(peer=address.decode(errors="replace"))
                self._socket.send_multipart([version, request, status, text, b"%d" % number, b""])
        except zmq.ContextTerminated:
            self._socket.close(linger=0)

    def join(self) -> None:
        """Wait for the handler thread. Call it after the context has ended."""
        self._thread.join()


@dataclass
class Peer:
    """One connection. `inode` identifies its socket, because descriptor numbers are reused after close()."""

    fd: int
    inode: int
    topics: set[bytes] = field(default_factory=set)
    bytes: int = 0
    second: int = 0
    messages: int = 0
    """Messages received in `second`."""
    gone: bool = False


class Subscriptions:
    """The subscriptions of all peers. `topics` counts the peers per topic."""

    def __init__(self) -> None:
        self.topics: Counter[bytes] = Counter()
        self.disconnected = 0
        """Number of peers that were disconnected because they exceeded a limit."""
        self._pairs = self._bytes = 0
        self._peers: dict[str, Peer] = {}
        self._by_fd: dict[int, str] = {}
        self._log = Limited("publisher.peer_disconnected")

    def read(self, receive: Callable[[], Any]) -> bool:
        """Process messages from peers until zmq.Again or MAX_MESSAGES_AT_ONCE. Returns whether there were any."""
        for done in range(MAX_MESSAGES_AT_ONCE):
            try:
                frame = receive()
            except zmq.Again:
                return done > 0
            self._take(frame)
        return True

    def _take(self, frame: Any) -> None:
        message = bytes(frame.buffer)
        kind, topic = message[:1], message[1:]
        try:
            number, fd = frame.get("User-Id"), frame.get(zmq.SRCFD)
        except zmq.ZMQError:  # generated by ZeroMQ: the peer has disconnected and had this topic
            self._forget(topic)
            return
        peer = self._peer(number, fd)
        if kind == b"\x01" and topic not in peer.topics:
            peer.topics.add(topic)
            peer.bytes += len(topic)
            self.topics[topic] += 1
            self._pairs, self._bytes = self._pairs + 1, self._bytes + len(topic)
        elif kind == b"\x00" and topic in peer.topics:
            peer.topics.discard(topic)
            peer.bytes -= len(topic)
            self._forget(topic)
        if not peer.gone and (reason := self._broken(peer)):
            self._disconnect(peer, reason)

    def _forget(self, topic: bytes) -> None:
        if self.topics[topic] > 1:
            self.topics[topic] -= 1
        elif not self.topics.pop(topic, 0):
            return
        self._pairs, self._bytes = self._pairs - 1, self._bytes - len(topic)

    def _peer(self, number: str, fd: int) -> Peer:
        found = self._peers.get(number)
        if found is None:
            # the peer that used this descriptor before has disconnected
            self._peers.pop(self._by_fd.get(fd, ""), None)
            self._by_fd[fd] = number
            found = self._peers[number] = Peer(fd, _inode(fd))
        return found

    def _broken(self, peer: Peer) -> str:
        """The limit that the peer exceeds, or ""."""
        second = int(time.monotonic())
        peer.messages = peer.messages + 1 if second == peer.second else 1
        peer.second = second
        if peer.messages > MAX_MESSAGES_PER_S:
            return f"over {MAX_MESSAGES_PER_S} messages in a second"
        if len(peer.topics) > MAX_TOPICS or peer.bytes > MAX_TOPIC_BYTES:
            return f"over {MAX_TOPICS} subscriptions or {MAX_TOPIC_BYTES} bytes of them"
        if self._pairs > MAX_ALL_TOPICS or self._bytes > MAX_ALL_TOPIC_BYTES:
            return f"all peers have over {MAX_ALL_TOPICS} subscriptions or {MAX_ALL_TOPIC_BYTES} bytes of them"
        return ""

    def _disconnect(self, peer: Peer, reason: str) -> None:
        """Shut down the peer's connection. ZeroMQ notices and cleans up as after any disconnect."""
        peer.gone = True
        self.disconnected += 1
        self._log.warn(reason=reason)
        with contextlib.suppress(OSError):
            if peer.inode and _inode(peer.fd) == peer.inode:
                with socket.fromfd(peer.fd, socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.shutdown(socket.SHUT_RDWR)


def _inode(fd: int) -> int:
    """Inode of an open descriptor; 0 if it is closed."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return 0
