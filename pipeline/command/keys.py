"""`headrace keys`: creates a CURVE key pair in the two-file format of zmq.auth."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import click
import zmq

from headrace.pipeline.process.failure import EX_USAGE, Failure, say

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
PUBLIC = '#   ZeroMQ CURVE Public Certificate, made by headrace\n\nmetadata\ncurve\n    public-key = "{}"\n'
SECRET = (
    "#   ZeroMQ CURVE **Secret** Certificate, made by headrace\n"
    "#   Whoever reads this file can pass for its owner.\n\n"
    'metadata\ncurve\n    public-key = "{}"\n    secret-key = "{}"\n'
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name", default="headrace")
def keys(folder: Path, name: str) -> None:
    """Create a CURVE key pair for ZeroMQ.

    Writes FOLDER/NAME.key, which you share, and FOLDER/NAME.key_secret, which you keep, and prints the public key.
    The publisher and each subscriber need a pair of their own. NAME defaults to `headrace`. FOLDER is created if it
    is missing. Existing files are never overwritten.

    \b
    Examples:
      headrace keys /etc/headrace/keys
      headrace keys ~/keys alice >> clients
      headrace run -o zmq:tcp://192.0.2.1:5555,key=/etc/headrace/keys/headrace.key_secret,clients=clients
      headrace subscribe tcp://192.0.2.1:5555 --server-key headrace.key --key ~/keys/alice.key_secret
    """
    if not NAME.fullmatch(name):
        raise Failure(f"keys: {name!r}: a name has letters, digits, and _ . - behind the first of them", EX_USAGE)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    secret_path = folder / f"{name}.key_secret"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(secret_path, SECRET.format(public, secret), 0o600)
        try:
            _write(folder / f"{name}.key", PUBLIC.format(public), 0o644)
        except OSError:
            with contextlib.suppress(OSError):
                secret_path.unlink()
            raise
    except OSError as error:
        raise Failure(f"keys: {os.fsdecode(error.filename or folder)}: {error.strerror}", os.EX_IOERR) from error
    say(public)


def _write(path: Path, text: str, mode: int) -> None:
    """Write a new file. Raises OSError if it already exists."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "w") as file:
        file.write(text)
