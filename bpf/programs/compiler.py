"""Compiles C to BPF instructions: bcc runs in a separate process, and the result is cached.

Compiling takes seconds and 100 MB; loading compiled programs needs neither. The compiler therefore exits before the
run begins, and unchanged programs are not compiled again. The name of a cache file depends on all inputs (text, flags,
headers, bcc version). A cache file is used only if it and its folder belong to this user and no other user can write
there.

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
"""Maximum cache files. The least recently used ones are deleted first."""
SUFFIX = ".bpf"
COMPILE_S = 300
LD_IMM64, PSEUDO_MAP_FD, CALL, PSEUDO_CALL = 0x18, 1, 0x85, 1
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
SYMBOLS = b"ffffffff81000000 T bpf_probe_read_kernel\nffffffff81000010 T bpf_probe_read_user\n"
"""Functions that the programs call directly. A kernel without them rejects the programs when they are loaded."""
QUICKLY = ("-g0", "-fno-vectorize", "-fno-slp-vectorize", "-fno-unroll-loops", "-Xclang", "-disable-llvm-passes")
"""Options that save time without changing the result: no debug information, no passes that find nothing to do, and
none of clang's own passes, which bcc runs again.
"""
HEAD = struct.Struct("<BBhi")
"""Instruction: opcode, registers (destination in the low bits, source in the high bits), offset, immediate."""


class CompileError(Exception):
    """bcc is missing or rejected the source."""


class Source(msgspec.Struct, frozen=True):
    """Input of the compiler."""

    text: str
    flags: tuple[str, ...]


class Code(msgspec.Struct, frozen=True):
    """Instructions of a program, and the numbers of those that load map addresses, with the map names."""

    instructions: bytes
    maps: dict[int, str]
    functions: dict[str, int] = {}
    """Instruction at which each function after the program begins."""
    numbers: dict[int, int] = {}
    """Instructions that load scope numbers, with the index of each."""

    def placed(self, fds: dict[str, int], numbers: Sequence[int] = ()) -> bytes:
        """The instructions with map descriptors and scope numbers inserted."""
        code = bytearray(self.instructions)
        for at, which in self.numbers.items():
            low, high = numbers[which] & 0xFFFFFFFF, numbers[which] >> 32
            struct.pack_into("<I", code, at * INSTRUCTION + 4, low)
            struct.pack_into("<I", code, (at + 1) * INSTRUCTION + 4, high)
        for at, name in self.maps.items():
            struct.pack_into("<i", code, at * INSTRUCTION + 4, fds[name])
        return bytes(code)


class Compiled(msgspec.Struct, frozen=True):
    """Output of the compiler: maps, and programs by name."""

    maps: tuple[MapSpec, ...]
    programs: dict[str, Code]


def compiled(source: Source, folder: Path | None) -> Compiled:
    """The programs of a source, from the cache in `folder` if possible. Raises CompileError."""
    name = _name(source)
    path = folder / f"{name}{SUFFIX}" if folder and _is_ours(folder) else None
    if path and (found := _kept(path)):
        return found
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "headrace.bpf.programs.compiler"],
            input=msgspec.msgpack.encode(source),
            capture_output=True,
            start_new_session=True,  # the supervisor handles the signals of the terminal
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
    """Whether only this user can write to the folder. Creates it if it does not exist."""
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
    """The bcc module. Raises CompileError if it cannot be imported."""
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
    """The code of a program that bcc compiled with descriptors of its own maps. Adds these maps to `maps`, by
    descriptor. Raises CompileError if the program calls an undefined function, which C accepts and for which the
    kernel reports only an invalid jump.
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
    """Replaces /proc/kallsyms for this process with the symbols that bcc needs. Reading the full list takes half of
    the compile time. If the replacement is not permitted, compiling only takes longer.
    """
    libc = ctypes.CDLL(None)
    with tempfile.NamedTemporaryFile() as file:
        file.write(SYMBOLS)
        file.flush()
        if not libc.unshare(CLONE_NEWNS) and not libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            libc.mount(file.name.encode(), b"/proc/kallsyms", None, MS_BIND, None)


def main() -> None:
    """Main function of the compiler process."""
    _hide_symbols()
    try:
        found = _compile(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Source))
    except CompileError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.msgpack.encode(found))


if __name__ == "__main__":
    main()
