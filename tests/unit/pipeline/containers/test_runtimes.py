"""Clients of runtimes against real sockets, whose other end says whatever it likes."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.config.runtimes import Info
from headrace.pipeline.containers import cri as cri_client
from headrace.pipeline.containers import cri_pb2
from headrace.pipeline.containers import docker as engine
from headrace.pipeline.containers.cri import CriClient
from headrace.pipeline.containers.docker import MAX_LINE_BYTES, DockerClient
from headrace.pipeline.containers.runtimes import MAX_BYTES, Unavailable

ID, OTHER = "a1" * 32, "b2" * 32
LABELS = {"team": "red", "io.kubernetes.pod.name": "pod"}
LISTED = {"Id": ID, "Names": ["/other/alias", "/web"], "Image": "nginx:1", "ImageID": "sha256:12", "Labels": LABELS}
IMAGE = {"RepoDigests": ["nginx@sha256:34"]}
Say = Callable[[bytes], bytes]
cri: Any = cri_pb2


class Server:
    """A Unix socket of HTTP: what `say` makes of the first line of a request is written, and the connection closed."""

    def __init__(self, path: Path, say: Say) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._say = say
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(1 << 16)
                try:
                    connection.sendall(self._say(request.split(b"\r\n", 1)[0]))
                except OSError:  # it has heard enough
                    continue

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Callable[[Say], Info | None]]:
    """What the client makes of a container that a server says this of."""
    servers: list[Server] = []

    def ask(say: Say) -> Info | None:
        servers.append(Server(tmp_path / "sock", say))
        client = DockerClient(str(tmp_path / "sock"), ("te*",))
        try:
            return client.look(ID)
        finally:
            client._api.close()

    yield ask
    for server in servers:
        server.close()


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


def says(**changed: Any) -> Say:
    """A Docker Engine that knows ID, with some of what it says changed."""

    def say(request: bytes) -> bytes:
        if b"/images/" in request:
            return answer(json.dumps(IMAGE).encode())
        if b"/json?" in request:
            return answer(json.dumps([LISTED | changed]).encode())
        return answer(json.dumps({"Config": {"Image": "nginx:0"}}).encode())

    return say


def body(data: bytes, status: str = "200 OK", headers: str = "") -> Say:
    return lambda request: answer(data, status, headers)


def chunks(*pieces: bytes) -> Say:
    lead = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = lead + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return lambda request: found


def test_docker_says_what_a_container_is(look: Callable[[Say], Info | None]) -> None:
    assert look(says()) == Info("web", "nginx:1", "sha256:34", pod="pod", labels={"team": "red"})


def test_an_image_whose_name_is_another_ones_by_now_is_called_as_it_was(look: Callable[[Say], Info | None]) -> None:
    found = look(says(Image="sha256:12"))
    assert found is not None
    assert found.image == "nginx:0"


def test_what_docker_does_not_know_is_unknown(look: Callable[[Say], Info | None]) -> None:
    assert look(body(b"[]")) is None


def test_what_is_no_character_is_replaced(look: Callable[[Say], Info | None]) -> None:
    found = look(says(Names=["/\ud800web"], Labels={"te\udfffst": "\ud801"}))
    assert found is not None
    assert (found.name, found.labels) == ("?web", {"te?st": "?"})


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (body(b"no JSON"), "nonsense"),
        (body(b"\xff\xfe"), "nonsense"),
        (body(b"{}"), "nonsense"),
        (body(b"null"), "nonsense"),
        (body(b"[1]"), "nonsense"),
        (body(b"[{}]"), "nonsense"),
        (body(b'[{"Id": 7' + b"7" * 5000 + b"}]"), "nonsense"),
        (body(b"[" * 100_000), "nonsense"),
        (body(json.dumps([LISTED, LISTED]).encode()), "nonsense"),
        (says(Id=OTHER), "nonsense"),
        (says(Names=None), "nonsense"),
        (says(Names=7), "nonsense"),
        (body(b" " * (MAX_BYTES + 1)), "nonsense"),
        (body(gzip.compress(b" " * (64 << 20)), headers="Content-Encoding: gzip\r\n"), "nonsense"),
        (body(b"not gzip", headers="Content-Encoding: gzip\r\n"), "no connection"),
        (body(b'{"message": "it burns"}', "500 Burning"), "status 500"),
        (body(b"<html>", "403 No"), "status 403"),
        (lambda request: b"", "no connection"),
        (lambda request: b"SSH-2.0\r\n" * 1000, "no connection"),
        (lambda request: answer(b"[]")[:-1], "no connection"),
    ],
)
def test_whatever_docker_says_there_is_a_word_for_it(look: Callable[[Say], Info | None], say: Say, reason: str) -> None:
    with pytest.raises(Unavailable) as caught:
        look(say)
    assert caught.value.reason == reason


def test_who_does_not_answer_in_time_is_left(
    look: Callable[[Say], Info | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TIMEOUT_S", 0.05)
    asked = threading.Event()

    def say(request: bytes) -> bytes:
        asked.wait(30)
        return b""

    with pytest.raises(Unavailable) as caught:
        look(say)
    asked.set()
    assert caught.value.reason == "timeout"


def test_a_socket_that_is_none(tmp_path: Path) -> None:
    for client in (DockerClient(str(tmp_path / "none"), ()), CriClient(str(tmp_path / "none"), ())):
        with pytest.raises(Unavailable) as caught:
            client.look(ID)
        assert caught.value.reason == "no socket"


def test_events_of_docker_that_make_no_sense(tmp_path: Path) -> None:
    happened = [{"Action": "start", "Actor": {"ID": ID}}, {"Action": "destroy", "id": OTHER}, {"Action": ["x"]}, {}]
    good = b"".join(json.dumps(one).encode() + b"\n" for one in happened)
    for bad in (b"no JSON\n", b"[1]\n", b'{"Actor": 7}\n', b"[" * 60_000 + b"\n", b"x" * (MAX_LINE_BYTES + 4097)):
        path = tmp_path / "sock"
        server = Server(path, chunks(good, bad))
        events = DockerClient(str(path), ()).events()
        assert [tuple(next(events)) for _ in range(3)] == [("", "listening"), (ID, "changed"), (OTHER, "gone")]
        with pytest.raises(Unavailable):
            list(events)
        server.close()
        path.unlink()


Handler = Callable[[bytes, grpc.ServicerContext], bytes]


class CriServer(grpc.GenericRpcHandler):
    """A real server of gRPC, whose methods say bytes."""

    def __init__(self, path: Path, methods: dict[str, Handler]) -> None:
        self._methods = methods
        self.server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
        self.server.add_generic_rpc_handlers([self])
        self.server.add_insecure_port(f"unix://{path}")
        self.server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        said = self._methods.get(details.method.rpartition("/")[2])
        return said and grpc.unary_unary_rpc_method_handler(said)


@pytest.fixture
def status(tmp_path: Path) -> Iterator[Callable[..., Info | None]]:
    """What the client makes of a container that a runtime says this of."""
    servers: list[CriServer] = []

    def ask(**methods: Handler) -> Info | None:
        path = tmp_path / f"cri-{len(servers)}"
        servers.append(CriServer(path, methods))
        return CriClient(str(path), ("te*",)).look(ID)

    yield ask
    for one in servers:
        one.server.stop(0)


def refuses(code: grpc.StatusCode) -> Handler:
    def say(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "no")

    return say


def container(name: str = ID) -> Handler:
    status = cri.ContainerStatus(id=name, image_ref="nginx@sha256:34", labels=LABELS)
    status.metadata.name, status.image.image = "web", "nginx:1"
    found: bytes = cri.ContainerStatusResponse(status=status).SerializeToString()
    return lambda request, context: found


def pod(request: bytes, context: grpc.ServicerContext) -> bytes:
    status = cri.PodSandboxStatus(id=ID)
    status.metadata.name, status.metadata.uid, status.metadata.namespace = "pod", "12-34", "shop"
    return cri.PodSandboxStatusResponse(status=status).SerializeToString()  # type: ignore[no-any-return]


UNKNOWN = refuses(grpc.StatusCode.NOT_FOUND)


def test_the_cri_says_what_a_container_or_a_sandbox_is(status: Callable[..., Info | None]) -> None:
    assert status(ContainerStatus=container()) == Info("web", "nginx:1", "sha256:34", "pod", labels={"team": "red"})
    assert status(ContainerStatus=UNKNOWN, PodSandboxStatus=pod) == Info("", "", "", "pod", "shop", "12-34")
    assert status(ContainerStatus=UNKNOWN, PodSandboxStatus=UNKNOWN) is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (container(OTHER), "nonsense"),
        (lambda request, context: b"", "nonsense"),
        (lambda request, context: b"\xff" * 100, "internal"),
        (lambda request, context: bytes(MAX_BYTES + 1), "nonsense"),
        (refuses(grpc.StatusCode.PERMISSION_DENIED), "permission denied"),
        (refuses(grpc.StatusCode.UNAVAILABLE), "no connection"),
        (refuses(grpc.StatusCode.DEADLINE_EXCEEDED), "timeout"),
    ],
)
def test_whatever_a_cri_says_there_is_a_word_for_it(
    status: Callable[..., Info | None], said: Handler, reason: str
) -> None:
    with pytest.raises(Unavailable) as caught:
        status(ContainerStatus=said)
    assert caught.value.reason == reason


def test_who_speaks_no_cri_says_so(status: Callable[..., Info | None]) -> None:
    with pytest.raises(Unavailable) as caught:
        status()
    assert caught.value.reason == "no CRI"


def test_who_speaks_no_grpc_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cri_client, "TIMEOUT_S", 0.5)
    server = Server(tmp_path / "sock", lambda request: b"220 mail\r\n")
    with pytest.raises(Unavailable) as caught:
        CriClient(str(tmp_path / "sock"), ()).look(ID)
    server.close()
    assert caught.value.reason in ("no connection", "timeout")
