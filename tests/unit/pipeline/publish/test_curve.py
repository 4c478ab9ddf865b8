"""CURVE keys: their files, and who gets in with them, on real sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from headrace.bpf.layout import EVENTS
from headrace.config.outputs import parse
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.publish.curve import (
    CurveError,
    ServerKeys,
    client_keys,
    read_clients,
    read_pair,
    read_public,
    server_keys,
)
from headrace.pipeline.publish.sinks import Offer, nothing
from headrace.pipeline.publish.sockets import ZmqSink
from headrace.pipeline.transport.gather import Gather

DEADLINE_MS = 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("server", "alice", "mallory"):
        _, secret = zmq.auth.create_certificates(tmp_path, name)
        os.chmod(secret, 0o600)
    public = zmq.auth.load_certificate(tmp_path / "alice.key")[0]
    (tmp_path / "clients").write_bytes(b"# who may\n\n" + public + b"  alice\n")
    return tmp_path


def message(function: Any, *args: Any) -> str:
    with pytest.raises(CurveError) as raised:
        function(*args)
    return str(raised.value)


# -- files


def test_files_of_pyzmq_are_read(folder: Path) -> None:
    public, secret = zmq.auth.load_certificate(folder / "server.key_secret")
    pair = read_pair(f"{folder}/server.key_secret")
    assert (pair.public, pair.secret) == (public, secret)
    assert read_public(f"{folder}/server.key") == public
    assert secret is not None
    assert secret.decode() not in repr(pair)


def test_clients_are_a_key_a_line(folder: Path) -> None:
    alice = read_public(f"{folder}/alice.key")
    assert read_clients(f"{folder}/clients") == {z85.decode(alice)}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_secret_key_that_others_can_read_or_write_is_refused(folder: Path, mode: int) -> None:
    path = folder / "server.key_secret"
    path.chmod(mode)
    assert "chmod 600" in message(read_pair, str(path))


def test_a_secret_key_that_somebody_else_owns_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "server.key_secret"
    found = path.stat()
    other = os.stat_result((found.st_mode, 0, 0, 1, 4711, 0, 0, 0, 0, 0))
    monkeypatch.setattr("headrace.pipeline.publish.curve.os.fstat", lambda _: other)
    assert "uid 4711" in message(read_pair, str(path))


def test_what_is_wrong_with_a_key_file_is_said(folder: Path) -> None:
    secret = folder / "server.key_secret"
    assert "No such file" in message(read_pair, f"{folder}/nowhere")
    assert "Is a directory" in message(read_pair, str(folder))
    public = folder / "server.key"
    public.chmod(0o600)
    assert "no secret key" in message(read_pair, str(public))
    key = read_public(str(public)).decode()
    secret.write_text("hello\n")
    assert "not a key file" in message(read_pair, str(secret))
    secret.write_text('secret-key = "short"\n')
    assert "its secret key is not one" in message(read_pair, str(secret))
    secret.write_text(f'public-key = "{key}"\nsecret-key = "{zmq.curve_keypair()[1].decode()}"\n')
    assert "do not belong together" in message(read_pair, str(secret))
    secret.write_text('secret-key = "%s"\n' % ("#" * 40))
    assert "not valid" in message(read_pair, str(secret))
    secret.write_text(f'secret-key = "{zmq.curve_keypair()[1].decode()}"\n')
    assert "no public key" in message(read_public, str(secret))


def test_what_is_wrong_with_a_file_of_clients_is_said(folder: Path) -> None:
    path = folder / "clients"
    path.write_text("# nobody yet\n")
    assert "nobody could subscribe" in message(read_clients, str(path))
    path.write_text(f"{zmq.curve_keypair()[0].decode()}\nalice\n")
    assert "line 2: not a public key" in message(read_clients, str(path))
    path.write_text("$" * 40)
    assert "line 1: not a public key" in message(read_clients, str(path)), "more than 32 bits in five characters"
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    assert "over" in message(read_clients, str(path))


def test_a_fifo_is_no_key_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a file" in message(read_pair, f"{tmp_path}/fifo")


@given(st.binary(max_size=120) | st.sampled_from([b"secret-key = ", b"public-key=\xff", b"secret-key = '\n'"]))
def test_anything_else_is_a_curve_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    path.chmod(0o600)
    assert message(read_pair, str(path))
    assert message(read_public, str(path))
    assert message(read_clients, str(path))


def test_no_key_begins_as_a_comment_does() -> None:
    assert z85.encode(b"\xff" * 32).startswith(b"%")


def test_an_output_has_its_keys_read(folder: Path) -> None:
    def keys(options: str) -> ServerKeys | None:
        return server_keys(parse([f"zmq:ipc:///x{options}"]).sinks[0])

    secret = read_pair(f"{folder}/server.key_secret").secret
    assert keys("") is None
    assert keys(f",key={folder}/server.key_secret") == ServerKeys(secret, None)
    both = keys(f",key={folder}/server.key_secret,clients={folder}/clients")
    assert both == ServerKeys(secret, read_clients(f"{folder}/clients"))


def test_a_subscriber_takes_the_servers_key_or_a_file_that_has_it(folder: Path) -> None:
    public = read_public(f"{folder}/server.key")
    secret = f"{folder}/alice.key_secret"
    assert client_keys(public.decode(), secret) == client_keys(f"{folder}/server.key", secret)
    assert client_keys(public.decode(), "").own != client_keys(public.decode(), "").own
    assert "No such file" in message(client_keys, "nowhere", "")


# -- sockets


class Reached:
    """A publisher, and clients that try to be its subscribers."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        self.interest = np.zeros(EVENTS + 1, "u1")
        self.endpoint = f"ipc://{folder}/socket"
        output = parse([f"zmq:{self.endpoint}{options}"]).sinks[0]
        self.sink = ZmqSink(output, self.interest, "me", keys=server_keys(output))
        self.context: Any = zmq.Context()
        self.kept: list[Any] = []

    def client(self, name: str, topic: bytes = b"all/", server: str = "server") -> tuple[Any, Any]:
        """A SUB socket and its monitor. `name`: whose key; "" for none."""
        socket = self.context.socket(zmq.SUB)
        socket.set(zmq.RCVTIMEO, DEADLINE_MS)
        if name:
            keys = client_keys(f"{self.folder}/{server}.key", f"{self.folder}/{name}.key_secret")
            socket.set(zmq.CURVE_SERVERKEY, keys.server)
            socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
            socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)
        failed = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        monitor = socket.get_monitor_socket(
            failed | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        monitor.set(zmq.RCVTIMEO, DEADLINE_MS)
        self.kept += [socket, monitor]
        socket.subscribe(topic)
        socket.connect(self.endpoint)
        return socket, monitor

    def gets_in(self, name: str, **more: Any) -> bool:
        """Whether the first thing that its handshake comes to is success."""
        from zmq.utils.monitor import recv_monitor_message

        monitor = self.client(name, **more)[1]
        event = recv_monitor_message(monitor)["event"]
        return bool(event == zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.sink.close()


@pytest.fixture
def reached(request: pytest.FixtureRequest, folder: Path) -> Iterator[Reached]:
    made = Reached(folder, request.param.format(folder))
    yield made
    made.close()


KEY = ",key={0}/server.key_secret"
LISTED = KEY + ",clients={0}/clients"


@pytest.mark.parametrize("reached", [LISTED], indirect=True)
def test_a_listed_client_subscribes_and_gets_what_is_published(reached: Reached) -> None:
    socket, monitor = reached.client("alice")
    while not reached.interest[ALL]:
        monitor.poll(10)
        reached.sink.read_subscriptions()
    gather = Gather.of(np.frombuffer(b"line\n", "u1"))
    assert reached.sink.try_offer(Offer(gather, 1, ALL, 0, nothing))
    assert socket.recv_multipart()[2] == b"line\n"


@pytest.mark.parametrize("reached", [LISTED], indirect=True)
def test_others_are_refused_and_counted(reached: Reached) -> None:
    assert reached.gets_in("alice")
    assert not reached.gets_in("mallory")
    assert not reached.gets_in("")
    assert not reached.gets_in("alice", server="mallory")
    reached.sink.read_subscriptions()
    assert reached.sink.counts.refused >= 1


@pytest.mark.parametrize("reached", [KEY], indirect=True)
def test_without_a_list_whoever_knows_the_servers_key_is_let_in(reached: Reached) -> None:
    assert reached.gets_in("mallory")
    assert not reached.gets_in("")
    assert not reached.gets_in("alice", server="mallory")


@pytest.mark.parametrize("reached", [""], indirect=True)
def test_without_keys_a_plain_client_is_let_in_and_one_with_keys_is_not(reached: Reached) -> None:
    assert reached.gets_in("")
    assert not reached.gets_in("alice")
