"""`headrace.Subscriber`: events and findings of a publisher, as they come."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from headrace.pipeline.api.errors import Error, RefusedError
from headrace.pipeline.api.messages import Gap, Message, Sequences, read_message
from headrace.pipeline.publish.curve import ClientKeys, CurveError, client_keys

MAX_MESSAGE_BYTES = 1 << 30
"""A publisher sends less: a record of its result ring."""
FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
PLAIN = "the publisher requires keys (server_key, key; --server-key, --key)"
KEYED = "the publisher has no keys, or does not accept this client's key"


def topic_of(name: str) -> str:
    """A topic prefix: `all` and names of events are short for `all/` and `event/NAME/`."""
    if "/" in name or not name:
        return name
    return "all/" if name == "all" else f"event/{name}/"


class _Connection:
    """What both kinds of subscribers have: the sockets, the sequence numbers, and what was received and not taken."""

    def __init__(self, context: Any, endpoint: str, topics: Sequence[str], server_key: str, key: str) -> None:
        """Closes `context` if it fails."""
        self.endpoint, self._context = endpoint, context
        self._sequences = Sequences()
        self.waiting: deque[Message | Gap] = deque()
        self.rows: deque[dict[str, Any]] = deque()
        self.socket, self.monitor = context.socket(zmq.SUB), context.socket(zmq.PAIR)
        try:
            self._keys = _keys(server_key, key)
            self._connect(topics)
        except zmq.ZMQError as error:
            self.close()
            raise Error(f"{endpoint}: {error.strerror}") from error
        except BaseException:
            self.close()  # a context with an open socket never ends
            raise

    def _connect(self, topics: Sequence[str]) -> None:
        if isinstance(topics, str):
            raise Error(f"topics: a list of names, not {topics!r}")
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        name = f"inproc://headrace-{id(self.socket)}"
        self.socket.monitor(name, FAILED)
        self.monitor.connect(name)
        if self._keys:
            self.socket.set(zmq.CURVE_SERVERKEY, self._keys.server)
            self.socket.set(zmq.CURVE_PUBLICKEY, self._keys.own.public)
            self.socket.set(zmq.CURVE_SECRETKEY, self._keys.own.secret)
        self.socket.connect(self.endpoint)
        for topic in topics:
            self.socket.set(zmq.SUBSCRIBE, topic_of(topic).encode())

    def failed(self, parts: list[bytes], doubt: Callable[[], None]) -> None:
        """Handle a message of the monitor: RefusedError if another try is of no use; else `doubt` is called."""
        event = parse_monitor_message(parts)
        mismatch = event["value"] == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
        if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH or mismatch:
            raise RefusedError(f"{self.endpoint}: refused: {KEYED if self._keys else PLAIN}")
        doubt()  # it may have been the publisher's end: ZeroMQ tries again

    def received(self, parts: list[bytes]) -> None:
        """Queue a message, after what is missing before it."""
        self.waiting.extend(self._sequences.with_gap(read_message(parts)))

    def close(self) -> None:
        """Close both sockets and the context. A second call does nothing."""
        if not self.socket.closed:
            self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)
        if not self._context.closed:
            self._context.term()


def _keys(server_key: str, key: str) -> ClientKeys | None:
    if key and not server_key:
        raise Error("key: the publisher's public key is needed too: server_key")
    try:
        return client_keys(server_key, key) if server_key else None
    except CurveError as error:
        raise Error(str(error)) from error


class Subscriber:
    """Receives from `headrace run -o zmq:ENDPOINT` or `--findings zmq:ENDPOINT`.

        with headrace.Subscriber("ipc:///run/headrace.sock", ["openat", "execve"]) as events:
            for event in events:
                print(event["processName"])

    Iterating yields a dictionary for each event or finding, as the JSON lines have them (docs/schema.json), and a
    `headrace.Gap` where messages were missed. `messages()` yields whole batches. It ends when nothing has come for
    `timeout_s`; by default it never does.

    `topics`: names of events, `all`, or topic prefixes such as `finding/high/` (docs/reference/wire.md). `server_key`:
    the publisher's public key, or a file that has it; `key`: a file with this client's secret key; without one, a new
    key is used. `on_doubt` is called once if a handshake fails and is tried again.

    Raises `headrace.Error` if the endpoint or a key cannot be used, `headrace.RefusedError` if the publisher refuses
    this client, `headrace.ProtocolError` if what comes is not from a publisher of headrace.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str] = ("all",),
        *,
        server_key: str = "",
        key: str = "",
        timeout_s: float | None = None,
        on_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self._timeout_s, self._doubt = timeout_s, functools.cache(on_doubt)
        self._connection = _Connection(zmq.Context(), endpoint, topics, server_key, key)

    def messages(self) -> Iterator[Message | Gap]:
        """Each message as a batch (`message.data`: dictionaries, a structured array or a pyarrow.Table, as the
        publisher's format is), and the gaps between them.
        """
        waiting = self._connection.waiting
        while True:
            while waiting:
                yield waiting.popleft()
            if (parts := self._receive()) is None:
                return
            self._connection.received(parts)

    def __iter__(self) -> Iterator[dict[str, Any] | Gap]:
        """What was received and not taken before goes first: a loop may be left and begun again."""
        messages, rows = self.messages(), self._connection.rows
        while True:
            while rows:
                yield rows.popleft()
            if (message := next(messages, None)) is None:
                return
            if isinstance(message, Gap):
                yield message
            else:
                rows.extend(message.rows())

    def _receive(self) -> list[bytes] | None:
        """The parts of the next message; None if none came in time."""
        socket, monitor = self._connection.socket, self._connection.monitor
        until = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while not socket.poll(0):
            rest_ms = -1 if until is None else max(0, int((until - time.monotonic()) * 1000))
            ready = dict(zmq.zmq_poll([(socket, zmq.POLLIN), (monitor, zmq.POLLIN)], rest_ms))
            if monitor in ready:
                self._connection.failed(monitor.recv_multipart(), self._doubt)
            elif not ready and until is not None and time.monotonic() >= until:
                return None
        return list(socket.recv_multipart())

    def close(self) -> None:
        """End the subscription. What was received and not taken yet is gone."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncSubscriber:
    """The same for asyncio: `async with`, `async for`, and `messages()` is an asynchronous iterator. It is made within
    a running event loop. Options and errors are those of `Subscriber`.
    """

    def __init__(self, endpoint: str, topics: Sequence[str] = ("all",), *, server_key: str = "", key: str = "") -> None:
        self._connection = _Connection(zmq.asyncio.Context(), endpoint, topics, server_key, key)
        self._poller = zmq.asyncio.Poller()
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.monitor, zmq.POLLIN)

    async def messages(self) -> AsyncIterator[Message | Gap]:
        """Each message as a batch, and the gaps between them."""
        socket, monitor, waiting = self._connection.socket, self._connection.monitor, self._connection.waiting
        while True:
            while waiting:
                yield waiting.popleft()
            ready = dict(await self._poller.poll())
            if socket in ready:
                self._connection.received(await socket.recv_multipart())
            elif monitor in ready:
                self._connection.failed(await monitor.recv_multipart(), lambda: None)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any] | Gap]:
        messages, rows = self.messages(), self._connection.rows
        while True:
            while rows:
                yield rows.popleft()
            message = await anext(messages)
            if isinstance(message, Gap):
                yield message
            else:
                rows.extend(message.rows())

    def close(self) -> None:
        """End the subscription."""
        self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()
