"""A file system served by the tests, with one file in it, that can stop to answer (linux/fuse.h, version 7.31)."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import threading
from pathlib import Path

IN = struct.Struct("<IIQQIIII")
OUT = struct.Struct("<IiQ")
LOOKUP, GETATTR, OPEN, READ, STATFS, INIT = 1, 3, 14, 15, 17, 26
FORGET, BATCH_FORGET, INTERRUPT = 2, 42, 36
ENOENT, ENOSYS = 2, 38
ROOT, FILE = 1, 2
MNT_DETACH = 2


class Unmountable(Exception):
    """This machine lets nobody mount it."""


class OneFile:
    """Mounted on `point` until close(); `freeze()`: no question is answered from then on."""

    def __init__(self, point: Path, name: bytes, content: bytes) -> None:
        self._point, self._name, self._content = point, name, content
        self._frozen = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd = os.open("/dev/fuse", os.O_RDWR)
        except OSError as error:
            raise Unmountable from error
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        if self._libc.mount(b"tests", os.fsencode(point), b"fuse", 0, options.encode()):
            os.close(self._fd)
            raise Unmountable(os.strerror(ctypes.get_errno()))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def freeze(self) -> None:
        """Answer nothing any more."""
        self._frozen.set()

    def close(self) -> None:
        """Unmount; who waits for an answer gets an error."""
        abort = Path(f"/sys/fs/fuse/connections/{self._minor}/abort")
        if not abort.exists():
            self._libc.mount(b"fusectl", b"/sys/fs/fuse/connections", b"fusectl", 0, None)
        abort.write_text("1")
        self._libc.umount2(os.fsencode(self._point), MNT_DETACH)
        self._thread.join(5)
        os.close(self._fd)

    @property
    def _minor(self) -> int:
        lines = Path("/proc/self/mountinfo").read_text().split("\n")
        return next(int(line.split()[2].split(":")[1]) for line in lines if f" {self._point} " in line)

    def _serve(self) -> None:
        while True:
            try:
                question = os.read(self._fd, 1 << 17)
            except OSError:
                return
            if self._frozen.is_set():
                continue
            _, opcode, unique, node, *_ = IN.unpack_from(question)
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            error, answer = self._answer(opcode, node, question[IN.size :])
            os.write(self._fd, OUT.pack(OUT.size + len(answer), -error, unique) + answer)

    def _attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == ROOT else (stat.S_IFREG | 0o755, len(self._content))
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, 8, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _answer(self, opcode: int, node: int, rest: bytes) -> tuple[int, bytes]:
        if opcode == INIT:
            return 0, struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 12, 10, 1 << 16, 1, 32, 0, 0)
        if opcode == LOOKUP:
            if rest.rstrip(b"\0") != self._name:
                return ENOENT, b""
            return 0, struct.pack("<QQQQII", FILE, 0, 0, 0, 0, 0) + self._attributes(FILE)
        if opcode == GETATTR:
            return 0, struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if opcode == OPEN:
            return 0, struct.pack("<QII", 1, 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", rest)
            return 0, self._content[offset : offset + size]
        if opcode == STATFS:
            return 0, struct.pack("<QQQQQIIII24x", 1, 1, 1, 1, 1, 4096, 255, 4096, 0)
        return ENOSYS, b""
