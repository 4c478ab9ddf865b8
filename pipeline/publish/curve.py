"""Reads ZeroMQ CURVE keys from files.

Runs in the supervisor before the stages start. Stages may not read such files and receive keys instead of paths.

A key file is a certificate in the format of pyzmq's zmq.auth (`NAME.key`, `NAME.key_secret`). A clients file has one
public key per line, 40 characters (Z85), optionally followed by the name of its owner. Lines that begin with `#` are
comments. No key begins with `#`: the first of the five Z85 characters that encode four bytes is one of the first 83 of
the alphabet, and `#` is the last.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from headrace.config.outputs import Output

MAX_FILE_BYTES = 1 << 20
KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
LINE = re.compile(rb"\s*(public|secret)-key\s*=\s*[\"']?([^\s\"']*)[\"']?\s*")
REMEDY = "headrace keys makes such files"


class CurveError(Exception):
    """The keys cannot be used. The message names the file and the reason."""


@dataclass(frozen=True)
class Pair:
    """A public key and its secret key, in Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ServerKeys:
    """Keys of a publisher. `clients` are the public keys that may subscribe, 32 bytes each; None: any."""

    secret: bytes = field(repr=False)
    clients: frozenset[bytes] | None


@dataclass(frozen=True)
class ClientKeys:
    """Keys of a subscriber: the publisher's public key, and its own pair."""

    server: bytes
    own: Pair


def server_keys(output: Output) -> ServerKeys | None:
    """Read the keys of an output from its files; None if it has none. Raises CurveError."""
    if not output.key:
        return None
    pair = read_pair(output.key)
    return ServerKeys(pair.secret, read_clients(output.clients) if output.clients else None)


def client_keys(server: str, own: str) -> ClientKeys:
    """Read the keys of a subscriber. Raises CurveError.

    `server` is a public key or the path of a file that contains it. `own` is the path of a secret key file; ""
    generates a new pair.
    """
    given = os.fsencode(server)
    public = given if KEY.fullmatch(given) and not os.path.exists(server) else read_public(server)
    _raw(public, f"server key {server}")
    return ClientKeys(public, read_pair(own) if own else Pair(*zmq.curve_keypair()))


def read_pair(path: str) -> Pair:
    """Read both keys from a secret key file. Raises CurveError if they are missing, invalid, or do not match."""
    found = _certificate(path, secret=True)
    if "secret" not in found:
        raise CurveError(f"key {path}: there is no secret key in it; give the file NAME.key_secret ({REMEDY})")
    secret = found["secret"]
    try:
        public = zmq.curve_public(secret)
    except zmq.ZMQError:
        raise CurveError(f"key {path}: its secret key is not valid; {REMEDY}") from None
    if found.get("public", public) != public:
        raise CurveError(f"key {path}: its secret key and its public key do not belong together")
    return Pair(public, secret)


def read_public(path: str) -> bytes:
    """Read the public key from a file, in Z85. Raises CurveError if there is none."""
    found = _certificate(path, secret=False)
    if "public" not in found:
        raise CurveError(f"key {path}: there is no public key in it; {REMEDY}")
    return found["public"]


def read_clients(path: str) -> frozenset[bytes]:
    """Read the keys of a clients file, 32 bytes each. Raises CurveError if one is invalid or there are none."""
    found = set()
    for number, line in enumerate(_content(path, "clients").splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith(b"#"):
            found.add(_raw(words[0], f"clients {path}: line {number}"))
    if not found:
        raise CurveError(f"clients {path}: there is no key in it, so nobody could subscribe")
    return frozenset(found)


def _raw(key: bytes, what: str) -> bytes:
    """Decode a Z85 key to 32 bytes. Raises CurveError, with `what` in the message."""
    try:
        raw = z85.decode(key) if KEY.fullmatch(key) else b""
    except struct.error:  # five characters whose value exceeds four bytes
        raw = b""
    if not raw:
        raise CurveError(f"{what}: not a public key (40 characters, Z85)")
    return raw


def _certificate(path: str, secret: bool) -> dict[str, bytes]:
    """The `public` and `secret` keys that a key file contains."""
    found = {}
    for line in _content(path, "key", secret).splitlines():
        if match := LINE.fullmatch(line):
            name = match[1].decode()
            if not KEY.fullmatch(match[2]):
                raise CurveError(f"key {path}: its {name} key is not one (40 characters, Z85); {REMEDY}")
            found[name] = match[2]
    if not found:
        raise CurveError(f"key {path}: not a key file of ZeroMQ; {REMEDY}")
    return found


def _content(path: str, what: str, secret: bool = False) -> bytes:
    """Read a whole regular file of at most MAX_FILE_BYTES. Raises CurveError.

    With `secret`, the file must belong to root or this user, and only the owner may be able to read or write it.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CurveError(f"{what} {path}: not a file")
            if secret and status.st_mode & 0o077:
                raise CurveError(f"{what} {path}: others can read or write it: chmod 600, or make a new key")
            if secret and status.st_uid not in (0, os.geteuid()):
                raise CurveError(f"{what} {path}: belongs to uid {status.st_uid}, who knows this secret key")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CurveError(f"{what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise CurveError(f"{what} {path!r}: not a path") from error
    if len(content) > MAX_FILE_BYTES:
        raise CurveError(f"{what} {path}: over {MAX_FILE_BYTES} bytes")
    return content
