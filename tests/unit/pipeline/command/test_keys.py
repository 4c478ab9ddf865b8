"""`headrace keys` and `headrace subscribe` with keys, from the command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq.auth
from click.testing import CliRunner, Result

from headrace.bpf.layout import EVENTS
from headrace.config.outputs import parse
from headrace.pipeline.command import cli
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.publish.curve import read_pair, read_public, server_keys
from headrace.pipeline.publish.sinks import Offer, nothing
from headrace.pipeline.publish.sockets import ZmqSink
from headrace.pipeline.transport.gather import Gather

ROOT = Path(__file__).parents[4]
DEADLINE_S = 20


def headrace(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


def test_keys_are_made_for_pyzmq_and_for_headrace(tmp_path: Path) -> None:
    result = headrace("keys", tmp_path / "new", "alice")
    assert result.exit_code == 0
    secret = tmp_path / "new/alice.key_secret"
    public, private = zmq.auth.load_certificate(secret)
    assert result.output.encode() == public + b"\n"
    assert read_pair(str(secret)).secret == private
    assert read_public(f"{tmp_path}/new/alice.key") == public
    assert zmq.auth.load_certificate(tmp_path / "new/alice.key") == (public, None)
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_key_is_called_headrace_if_it_has_no_name(tmp_path: Path) -> None:
    assert headrace("keys", tmp_path).exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["headrace.key", "headrace.key_secret"]


@pytest.mark.parametrize("there", ["a.key", "a.key_secret"])
def test_nothing_is_overwritten_and_no_half_pair_is_left(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    result = headrace("keys", tmp_path, "a")
    assert result.exit_code == os.EX_IOERR
    assert f"{there}: File exists" in result.output
    assert os.listdir(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["../a", "", ".a", "a/b", "a\n"])
def test_a_name_is_one(tmp_path: Path, name: str) -> None:
    assert headrace("keys", tmp_path, name).exit_code == 2
    assert not os.listdir(tmp_path)


def test_keys_of_a_subscriber_that_cannot_be_used_are_a_usage_error(tmp_path: Path) -> None:
    assert headrace("keys", tmp_path).exit_code == 0
    secret = tmp_path / "headrace.key_secret"
    alone = headrace("subscribe", "ipc:///x", "--key", secret)
    assert (alone.exit_code, "--server-key" in alone.output) == (2, True)
    missing = headrace("subscribe", "ipc:///x", "--server-key", tmp_path / "nowhere")
    assert (missing.exit_code, "No such file" in missing.output) == (2, True)


def test_keys_of_an_output_that_cannot_be_used_are_a_usage_error(tmp_path: Path) -> None:
    spec = f"zmq:ipc://{tmp_path}/s,key={tmp_path}/nowhere"
    result = headrace("replay", ROOT / "pipeline/command/demo.hrc", "-o", spec)
    assert (result.exit_code, "No such file" in result.output) == (2, True)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[tuple[str, ZmqSink]]:
    for name in ("server", "alice", "mallory"):
        assert headrace("keys", tmp_path, name).exit_code == 0
    (tmp_path / "clients").write_bytes(read_public(f"{tmp_path}/alice.key"))
    target = f"ipc://{tmp_path}/s"
    output = parse([f"zmq:{target},key={tmp_path}/server.key_secret,clients={tmp_path}/clients"]).sinks[0]
    sink = ZmqSink(output, np.zeros(EVENTS + 1, "u1"), "me", keys=server_keys(output))
    yield target, sink
    sink.close()


def ended(sink: ZmqSink, line: list[str | Path]) -> tuple[int, str, str]:
    """Status and outputs of a subscriber, which is sent lines until it has ended."""
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        deadline = time.monotonic() + DEADLINE_S
        while process.poll() is None and time.monotonic() < deadline:
            sink.read_subscriptions()
            if sink._interest[ALL]:
                sink.try_offer(Offer(Gather.of(np.frombuffer(b'{"a":1}\n', "u1")), 1, ALL, 0, nothing))
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        out, err = process.communicate()
    return process.returncode, out, err


def subscribe(endpoint: str, *more: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "headrace", "subscribe", endpoint, "-n", "1", *more]


def test_subscribe_with_a_listed_key_prints_and_with_others_says_why_not(
    endpoint: tuple[str, ZmqSink], tmp_path: Path
) -> None:
    target, sink = endpoint
    server = ["--server-key", tmp_path / "server.key"]
    status, out, err = ended(sink, subscribe(target, *server, "--key", tmp_path / "alice.key_secret"))
    assert (status, out) == (0, '{"a":1}\n'), err
    for more in ([*server, "--key", tmp_path / "mallory.key_secret"], server, []):
        status, out, err = ended(sink, subscribe(target, *more))
        assert (status, out) == (77, "")
        assert "refused" in err
    sink.read_subscriptions()
    assert sink.counts.refused == 2


def test_the_example_subscribes_with_keys(endpoint: tuple[str, ZmqSink], tmp_path: Path) -> None:
    target, sink = endpoint
    example: list[str | Path] = [sys.executable, ROOT / "examples/subscriber.py", target, "1"]
    status, out, err = ended(sink, [*example, tmp_path / "server.key", tmp_path / "alice.key_secret"])
    assert (status, out) == (0, '{"a":1}\n'), err
