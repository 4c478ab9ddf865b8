"""From C to instructions: bcc compiles in a process of its own, and what it made is kept for the next time.

Compiling takes seconds and 100 MB, loading what was compiled needs neither: so the compiler ends before the run begins,
and the same programs are not compiled twice. What is kept is named by all that it depends on (the text, the flags, the
headers, bcc's version); it is believed only if its folder and file are this user's and nobody else can write there.

    python -m headrace.bpf.programs.compiler    from an encoded Source (stdin) to an encoded Compiled (stdout)
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.bpf.programs import find_bcc, link
from headrace.bpf.syscall import INSTRUCTION, MapSpec

HERE = Path(__file__).parents[1]
FORMAT = 4
MAX_KEPT = 64
"""Files; that which was not used for longest goes first."""
SUFFIX = ".bpf"
COMPILE_S = 300
LD_IMM64, PSEUDO_MAP_FD, CALL, PSEUDO_CALL = 0x18, 1, 0x85, 1
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
SYMBOLS = b"ffffffff81000000 T bpf_probe_read_kernel\nffffffff81000010 T bpf_probe_read_user\n"
"""Functions that the programs call themselves: a kernel that has none is refused when they are loaded."""
QUICKLY = ("-g0", "-fno-vectorize", "-fno-slp-vectorize", "-fno-unroll-loops", "-Xclang", "-disable-llvm-passes")
"""Without what costs time and changes nothing: debug information, passes that find nothing to do here, and clang's own
run of the passes: bcc runs them all again.
"""
HEAD = struct.Struct("<BBhi")
"""opcode, registers (destination in the low bits, source in the high ones), offset, immediate: of an instruction."""


class CompileError(Exception):
    """bcc is not there, or refused the text."""


class Source(msgspec.Struct, frozen=True):
    """What is compiled."""

    text: str
    flags: tuple[str, ...]


class Code(msgspec.Struct, frozen=True):
    """Instructions of a program, and which of them (by number) load the address of which map."""

    instructions: bytes
    maps: dict[int, str]
    functions: dict[str, int] = {}
    """Where the functions begin that stand behind it."""
    numbers: dict[int, int] = {}
    """Which of them load which number of the scope."""

    def placed(self, fds: dict[str, int], numbers: Sequence[int] = ()) -> bytes:
        """With the descriptors of maps and the numbers of the scope in place."""
        code = bytearray(self.instructions)
        for at, which in self.numbers.items():
            low, high = numbers[which] & 0xFFFFFFFF, numbers[which] >> 32
            struct.pack_into("<I", code, at * INSTRUCTION + 4, low)
            struct.pack_into("<I", code, (at + 1) * INSTRUCTION + 4, high)
        for at, name in self.maps.items():
            struct.pack_into("<i", code, at * INSTRUCTION + 4, fds[name])
        return bytes(code)


class Compiled(msgspec.Struct, frozen=True):
    """What came of it, by name."""

    maps: tuple[MapSpec, ...]
    programs: dict[str, Code]


def compiled(source: Source, folder: Path | None) -> Compiled:
    """The programs of a source, from `folder` if they are there. CompileError."""
    name = _name(source)
    path = folder / f"{name}{SUFFIX}" if folder and _is_ours(folder) else None
    if path and (found := _kept(path)):
        return found
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "headrace.bpf.programs.compiler"],
            input=msgspec.msgpack.encode(source),
            capture_output=True,
            start_new_session=True,  # a terminal's signals are the supervisor's
            check=False,
            timeout=COMPILE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"the compiler has not ended in {COMPILE_S} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise CompileError(said or f"the compiler ended with {done.returncode}")
    if path:
        with contextlib.suppress(OSError):
            _keep(path, done.stdout)
    return msgspec.msgpack.decode(done.stdout, type=Compiled)


def _name(source: Source) -> str:
    found = find_bcc.found()
    if found is None or found.origin is None:
        raise CompileError("bcc cannot be imported: it is not installed")
    version = Path(found.origin).with_name("version.py")
    parts = [FORMAT, source.flags, version.read_bytes() if version.exists() else b"", source.text]
    for path in sorted((HERE / "headers").rglob("*.h")):
        parts.append(path.read_bytes())
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:40]


def _is_ours(folder: Path) -> bool:
    """Whether only this user can write there; it is made if it is not there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return _is_private(os.lstat(folder)) and folder.is_dir()
    except OSError:
        return False


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _kept(path: Path) -> Compiled | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not _is_private(os.fstat(fd)):
            return None
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            found = msgspec.msgpack.decode(file.read(), type=Compiled)
            with contextlib.suppress(OSError):
                os.utime(fd)
            return found
    return None


def _keep(path: Path, data: bytes) -> None:
    fd, made = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.replace(made, path)
    kept = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in kept[MAX_KEPT:]:
        old.unlink(missing_ok=True)


def import_bcc() -> Any:
    """The bcc module. CompileError."""
    os.environ.setdefault("BCC_KERNEL_SOURCE", str(HERE / "headers"))
    try:
        return find_bcc.imported()
    except ImportError as error:
        raise CompileError(f"bcc cannot be imported: {error}") from error


def _compile(source: Source) -> Compiled:
    bcc = import_bcc()
    try:
        made = bcc.BPF(text=source.text, cflags=[*source.flags, *QUICKLY])
    except Exception as error:  # bcc raises bare Exception
        raise CompileError(str(error)) from error
    names = [bcc.lib.bpf_function_name(made.module, i) for i in range(bcc.lib.bpf_num_functions(made.module))]
    maps: dict[int, MapSpec] = {}
    functions = {name.decode(): _code(name.decode(), made.dump_func(name), maps) for name in names}
    bodies = {name: functions.pop(name) for name in link.BODIES if name in functions}
    return Compiled(tuple(maps.values()), {name: _linked(code, bodies) for name, code in functions.items()})


def _linked(code: Code, bodies: dict[str, Code]) -> Code:
    instructions, begins = link.linked(code.instructions, {name: body.instructions for name, body in bodies.items()})
    maps = dict(code.maps)
    for name, begin in begins.items():
        maps |= {begin + link.BEFORE_BODY + at: of for at, of in bodies[name].maps.items()}
    return Code(instructions, maps, begins, code.numbers)


def _code(function: str, instructions: bytes, maps: dict[int, MapSpec]) -> Code:
    """A program as bcc has it, with descriptors of its own maps. `maps`, by descriptor: its own are added. CompileError
    if it calls a function that is nowhere: C lets that pass, and the kernel only says that a jump goes astray.
    """
    found: dict[int, str] = {}
    for at in range(len(instructions) // INSTRUCTION):
        opcode, registers, _, fd = HEAD.unpack_from(instructions, at * INSTRUCTION)
        if opcode == LD_IMM64 and registers >> 4 == PSEUDO_MAP_FD:
            if fd not in maps:
                maps[fd] = MapSpec.of(fd)
            found[at] = maps[fd].name
        if opcode == CALL and registers >> 4 == PSEUDO_CALL:
            raise CompileError(f"{function} calls a function that is not defined for this kernel")
    return Code(link.of_kernel(instructions), found, numbers=link.numbered(instructions))


def _hide_symbols() -> None:
    """For this process alone, have the kernel's symbols be those that bcc looks for: it reads all of them, which takes
    half of the time. Where that is not allowed it only takes longer.
    """
    libc = ctypes.CDLL(None)
    with tempfile.NamedTemporaryFile() as file:
        file.write(SYMBOLS)
        file.flush()
        if not libc.unshare(CLONE_NEWNS) and not libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            libc.mount(file.name.encode(), b"/proc/kallsyms", None, MS_BIND, None)


def main() -> None:
    """The compiler's process."""
    _hide_symbols()
    try:
        found = _compile(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Source))
    except CompileError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.msgpack.encode(found))


if __name__ == "__main__":
    main()
