"""The directory of artifacts.

    DIR/exec/SHA256   DIR/write/SHA256   DIR/module/...   DIR/bpf/...   DIR/mem/...      contents, each once
    DIR/index.jsonl                                                                      one line per artifact

Names are digests, so nothing that a traced process chooses is a name. Contents are written under a temporary name and
renamed when complete. The quota covers all files of the directory, also those of earlier runs, and the index.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headrace.config.capture import KINDS

INDEX = "index.jsonl"
PARTIAL = ".partial"
CHUNK_BYTES = 1 << 20
INDEX_SHARE = 16
"""The index may use this fraction of the quota."""


class StoreError(Exception):
    """The directory cannot be used."""


class NoRoomError(Exception):
    """The quota does not allow the artifact."""


def open_directory(path: str, ids: tuple[int, int] | None) -> int:
    """A descriptor of the directory and its folders, which are created if necessary and belong to `ids`.

    Raises StoreError if it is not a directory that only this user can change.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, mode=0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _take(fd, path, ids)
        for kind in KINDS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(kind, 0o700, dir_fd=fd)
            folder = os.open(kind, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                _take(folder, f"{path}/{kind}", ids)
            finally:
                os.close(folder)
    except OSError as error:
        raise StoreError(f"capture directory {path}: {error.strerror}") from error
    return fd


def _take(fd: int, path: str, ids: tuple[int, int] | None) -> None:
    found = os.fstat(fd)
    if found.st_uid not in (os.geteuid(), *(ids or ())[:1]):
        raise StoreError(f"capture directory {path}: belongs to user {found.st_uid}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(f"capture directory {path}: others can write to it (chmod go-w)")
    if ids:
        os.fchown(fd, *ids)


class ArtifactStore:
    """Stores contents and index lines. One writer."""

    def __init__(self, fd: int, quota_bytes: int) -> None:
        """`fd`: from open_directory()."""
        self._fd, self._quota = fd, quota_bytes
        self._index = os.open(
            INDEX, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd
        )
        self._partial = 0
        for name in os.listdir(fd):
            if name.startswith(PARTIAL):
                os.unlink(name, dir_fd=fd)
        self.used_bytes = sum(self._sizes())

    def _sizes(self) -> Iterator[int]:
        yield os.fstat(self._index).st_size
        for kind in KINDS:
            folder = os.open(kind, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                with os.scandir(folder) as entries:
                    yield from (entry.stat(follow_symlinks=False).st_size for entry in entries)
            finally:
                os.close(folder)

    def keep(self, kind: str, read: Callable[[int], bytes], is_still: Callable[[], bool]) -> tuple[str, int, bool]:
        """Store what `read` returns, called with a maximum size until it returns nothing.

        Returns (SHA-256, bytes, whether the content is new). Raises NoRoomError, and OSError of `read`. `is_still` is
        called at the end; if it is false, raises ValueError: the content changed while it was read.
        """
        digest, size = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._partial += 1  # an abandoned thread may still write the one before
        partial = f"{PARTIAL}-{self._partial}"
        fd = os.open(partial, flags, 0o400, dir_fd=self._fd)
        try:
            while data := read(CHUNK_BYTES):
                size += len(data)
                if self.used_bytes + size > self._quota:
                    raise NoRoomError
                digest.update(data)
                _write(fd, data)
            if not is_still():
                raise ValueError("changed")
            name = f"{kind}/{digest.hexdigest()}"
            try:
                os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                return digest.hexdigest(), size, False
            except FileNotFoundError:
                os.rename(partial, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                self.used_bytes += size
                return digest.hexdigest(), size, True
        finally:
            os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=self._fd)

    def note(self, line: dict[str, Any], is_stored: bool = True) -> bool:
        """Append a line to the index. False if the quota does not allow it.

        Lines about what is not stored may use half of the index: they cannot keep out the others.
        """
        data = msgspec.json.encode(line) + b"\n"
        most = self._quota // INDEX_SHARE // (1 if is_stored else 2)
        if os.fstat(self._index).st_size + len(data) > most:
            return False
        _write(self._index, data)
        self.used_bytes += len(data)
        return True


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def named(path: bytes) -> dict[str, str]:
    """A path as members of an index line; `pathBase64` if it is not UTF-8."""
    shown = path.decode("utf-8", "replace")
    exact = {} if shown.encode() == path else {"pathBase64": base64.b64encode(path).decode()}
    return {"path": shown, **exact}
