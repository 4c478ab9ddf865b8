"""Files of rules and exceptions: found and read within bounds and without blocking, whatever a path refers to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_BYTES = 4 << 20
MAX_FILES = 20_000
"""In a folder and the folders below it."""


class FileError(Exception):
    """A file or folder that cannot be read, and the reason."""


def text(path: Path, most: int = MAX_FILE_BYTES, encoding: str = "utf-8") -> str:
    """The text of a regular file. FileError if it cannot be read, is larger than `most` bytes, or is not valid text.

    Pipes, devices and sockets are refused, because opening one may block forever.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FileError("not a regular file")
            data = file.read(most + 1)
    except OSError as error:
        raise FileError(error.strerror or str(error)) from error
    except ValueError as error:  # a NUL in the path
        raise FileError(str(error)) from error
    if len(data) > most:
        raise FileError(f"larger than {most >> 20} MiB")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise FileError(f"not UTF-8: {error.reason} at byte {error.start}") from error


def below(folder: Path) -> Iterator[Path]:
    """All files in a folder and the folders below it, sorted. FileError if it cannot be read or has too many files.

    Follows links. Skips files and folders that were already visited, and names that begin with a dot.
    """
    seen: set[tuple[int, int]] = set()
    count = 0
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            about = path.stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            if not stat.S_ISDIR(about.st_mode):
                yield path
                continue
            names = [name for name in os.listdir(path) if not name.startswith(".")]
        except OSError as error:
            if path == folder:
                raise FileError(error.strerror or str(error)) from error
            yield path  # reading it will report the error
            continue
        count += len(names)
        if count > MAX_FILES:
            raise FileError(f"more than {MAX_FILES} files")
        waiting += [path / name for name in sorted(names, reverse=True)]
