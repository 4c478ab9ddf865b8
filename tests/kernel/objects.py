"""A process that does one thing after the other, each under a name of its own (its comm), and writes down the facts.

python objects.py FOLDER      the facts go to FOLDER/facts.json: name of the case -> what is to be seen
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC = 0x20000, 4096, 1 << 18, 16384
RENAMEAT2, RENAME_EXCHANGE, AT_SYMLINK_FOLLOW = 316, 2, 0x400
DEEP, LONG_NAME, MANY = 300, "n" * 250, 70_000
"""Folders one in the other, and a name that makes a path longer than PATH_MAX of few of them."""
PROT_R, PROT_W, PROT_X = 1, 2, 4
FACTS: dict[str, Any] = {}
CASES: list[Callable[[Path], Any]] = []


def case(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Run under the function's name; what it returns are the facts."""
    CASES.append(function)
    return function


def call(name: str, *args: Any) -> int:
    """A libc function; OSError if it fails."""
    result = getattr(LIBC, name)(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def mount(source: str, target: Path, kind: str | None, flags: int) -> None:
    """mount(2)."""
    call("mount", source.encode(), os.fsencode(target), kind.encode() if kind else None, flags, None)


def in_child(work: Callable[[], None]) -> None:
    """What changes a process for good is done by a child."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the child failed")


def opened(path: str | Path, flags: int = os.O_RDONLY, **options: Any) -> dict[str, Any]:
    """Open and close; what the file is by its own account."""
    fd = os.open(path, flags, 0o600, **options)
    found = os.fstat(fd)
    os.close(fd)
    device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
    return {"dev": device, "inode": found.st_ino, "ctime": found.st_ctime_ns, "created": False}


@case
def relative(folder: Path) -> Any:
    os.chdir(folder / "a" / "b")
    facts = opened("../b/./file")
    os.chdir("/")
    return {"pathname": str(folder / "a/b/file"), "syscall_pathname": "../b/./file"} | facts


@case
def dirfd(folder: Path) -> Any:
    directory = os.open(folder / "a", os.O_PATH)
    facts = opened("b/file", dir_fd=directory)
    os.close(directory)
    return {"pathname": str(folder / "a/b/file")} | facts


@case
def symlink(folder: Path) -> Any:
    facts = opened(folder / "link")
    return {"pathname": str(folder / "a/b/file"), "syscall_pathname": str(folder / "link")} | facts


@case
def written(folder: Path) -> Any:
    facts = opened(folder / "new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
    return {"pathname": str(folder / "new")} | facts | {"created": True}


@case
def rewritten(folder: Path) -> Any:
    (folder / "there").touch()
    facts = opened(folder / "there", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    return {"pathname": str(folder / "there")} | facts


@case
def pathonly(folder: Path) -> Any:
    os.close(os.open(folder / "a", os.O_PATH))


@case
def procfd(folder: Path) -> Any:
    held = os.open(folder / "a/b/file", os.O_RDONLY)
    facts = opened(f"/proc/self/fd/{held}")
    os.close(held)
    return {"pathname": str(folder / "a/b/file")} | facts


@case
def namespace(folder: Path) -> Any:
    def work() -> None:
        call("unshare", CLONE_NEWNS)
        mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
        mount(str(folder / "a"), folder / "mnt", None, MS_BIND)
        opened(folder / "mnt/b/file")
        mount("tmpfs", folder / "mnt/b", "tmpfs", 0)
        opened(folder / "mnt/b/inside", os.O_WRONLY | os.O_CREAT)
        call("umount2", os.fsencode(folder / "mnt/b"), 2)

    in_child(work)
    return {"pathnames": [str(folder / "mnt/b/file"), str(folder / "mnt/b/inside")]}


@case
def chrooted(folder: Path) -> Any:
    outside = os.open(folder / "link", os.O_RDONLY)

    def work() -> None:
        os.chroot(folder / "a")
        os.chdir("/b")
        opened("file")
        opened("/b/../b/file")
        os.rename("file2", "/b/file3")
        opened("/")
        os.mkdir("/proc")
        os.unlink("../../../b/file3")

    in_child(work)
    os.close(outside)
    return {"pathname": str(folder / "a/b/file"), "folder": str(folder / "a")}


@case
def gone(folder: Path) -> Any:
    held = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    held.bind("unix")
    with contextlib.suppress(OSError):
        os.open("unix", os.O_RDWR)
    held.close()
    os.chdir("/")
    return {"pathname": str(folder / "unix")}


@case
def memfd(folder: Path) -> Any:
    fd = os.memfd_create("secret")
    os.write(fd, b"\x7fELFxyz")
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
    os.close(fd)
    return {"pathname": "memfd:secret"}


@case
def deep(folder: Path) -> Any:
    path = folder
    for i in range(30):
        path = path / f"component{i}"
    path.mkdir(parents=True)
    return {"pathname": str(path)} | opened(path)


@case
def toodeep(folder: Path) -> Any:
    os.chdir(folder)
    for _ in range(DEEP):
        os.mkdir("d")
        os.chdir("d")
    os.close(os.open(".", os.O_RDONLY))
    for _ in range(17):
        os.mkdir(LONG_NAME)
        os.chdir(LONG_NAME)
    os.close(os.open(".", os.O_RDONLY))
    os.chdir("/")
    return {"deep": str(folder) + "/d" * DEEP}


@case
def names(folder: Path) -> Any:
    directory = os.open(folder / "names", os.O_PATH)
    os.chdir(folder / "names")
    os.link("one", "two", src_dir_fd=directory)
    os.symlink("../anything", "three", dir_fd=directory)
    os.rename("two", "../names/./four")
    os.mknod("fifo", stat.S_IFIFO | 0o600)
    os.mkdir("dir")
    os.rmdir("dir")
    os.unlink("four", dir_fd=directory)
    os.unlink(folder / "names" / "fifo")
    os.chdir("/")
    os.close(directory)
    return {"folder": str(folder / "names")}


@case
def throughlink(folder: Path) -> Any:
    os.unlink(folder / "dirlink" / "victim")
    return {"true": str(folder / "a" / "victim")}


@case
def manyways(folder: Path) -> Any:
    """One directory, by all the ways that lead there."""
    real = folder / "ways"
    (real / "sub").mkdir(parents=True)
    (folder / "relative").symlink_to("ways")
    (folder / "absolute").symlink_to(real)
    (real / "again").symlink_to("../relative/sub/..")
    os.chdir(folder)
    fd = os.open(real, os.O_PATH)
    own, nested = os.getpid(), f"{folder}/absolute/../relative"
    ways = [*("ways" + "/" * n for n in range(8)), "relative", "absolute"]
    ways += ["./ways//", "relative/again", "ways/sub/..", f"/../..{nested}", "/proc/self/cwd/relative"]
    ways += [f"/proc/self/root{nested}", "/proc/thread-self/cwd/absolute"]
    ways += [f"/proc/{own}/root{real}", f"/proc/self/task/{own}/cwd/ways", f"/proc/self/fd/{fd}", f"/dev/fd/{fd}"]
    for number in range(len(ways)):
        os.symlink(f"r{number}", real / f"t{number}")
    for number, way in enumerate(ways):
        open("plain", "w").close()
        os.rename("plain", f"{way}/r{number}")
        os.link(f"{way}/r{number}", f"{way}/l{number}")
        os.symlink("anything", f"{way}/s{number}")
        os.mkfifo(f"{way}/f{number}")
        os.unlink(f"{way}/f{number}")
        os.truncate(f"{way}/t{number}", 0)
    os.chdir("/")
    os.close(fd)
    return {"real": str(real), "ways": len(ways)}


@case
def exchanged(folder: Path) -> Any:
    for name in "ab":
        (folder / f"x{name}").touch()
    first, second = (str(folder / f"x{name}") for name in "ab")
    call("syscall", RENAMEAT2, -100, first.encode(), -100, second.encode(), RENAME_EXCHANGE)
    unnamed = os.open(folder, os.O_TMPFILE | os.O_RDWR)
    call("linkat", -100, b"/proc/self/fd/%d" % unnamed, -100, os.fsencode(folder / "given"), AT_SYMLINK_FOLLOW)
    os.close(unnamed)
    return {"first": first, "second": second, "folder": str(folder)}


@case
def ofothers(folder: Path) -> Any:
    """By another process's part of procfs."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        os.dup2(os.open(folder, os.O_PATH), 77)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for way in (f"root{folder}", "cwd", "fd/77", f"task/{pid}/cwd"):
        (folder / "taken").touch()
        os.unlink(f"/proc/{pid}/{way}/taken")
    os.write(done[1], b"x")
    os.waitpid(pid, 0)
    for fd in (*ready, *done):
        os.close(fd)
    return {"true": f"{folder}/taken"}


@case
def crowded(folder: Path) -> Any:
    """In a directory with more names than are gone through."""
    crowd = folder / "crowd"
    (crowd / "in").mkdir(parents=True)
    (crowd / "link").symlink_to("in")
    for number in range(MANY):
        os.access(f"{crowd}/{number}", os.F_OK)
    os.mkfifo(crowd / "link/fifo")
    return {"true": f"{crowd}/in/fifo"}


@case
def longlinks(folder: Path) -> Any:
    """By links that lead to one another, and at last are too long together."""

    def work() -> None:
        call("unshare", CLONE_NEWNS)
        mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
        mount("tmpfs", folder / "mnt", "tmpfs", 0)
        os.makedirs(folder / "mnt/a/b")
        os.symlink("a/b", folder / "mnt/0")
        for number in range(38):
            # with this many bytes the target stands in the inode, in tmpfs as well
            os.symlink(f"{number}" + "/." * 60, folder / f"mnt/{number + 1}")
        os.mkfifo(folder / "mnt/20/one")
        os.mkfifo(folder / "mnt/38/two")

    in_child(work)
    return {"true": f"{folder}/mnt/a/b/one", "passed": f"{folder}/mnt/38/two"}


@case
def tcp(folder: Path) -> Any:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", 0))
    server.listen(3)
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    peer, (_, client_port) = server.accept()
    os.dup2(client.fileno(), 250)
    fcntl.fcntl(peer.fileno(), fcntl.F_DUPFD_CLOEXEC, 200)
    facts = {"port": str(port), "client_port": str(client_port), "client": client.fileno(), "peer": peer.fileno()}
    client.close()
    server.close()
    return facts


@case
def refused(folder: Path) -> Any:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with socket.socket() as client:
        status = client.connect_ex(("127.0.0.1", port))
    with socket.socket(socket.AF_INET6) as client:
        client.connect_ex(("::1", port))
    return {"port": str(port), "status": status}


@case
def underway(folder: Path) -> Any:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.setblocking(False)
        client.connect_ex(server.getsockname())
        return {"port": str(server.getsockname()[1])}


@case
def unixes(folder: Path) -> Any:
    path = str(folder / "named")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        peer, _ = server.accept()
        peer.close()
    return {"sun_path": path}


@case
def passed(folder: Path) -> Any:
    """A connected socket comes over another one, and is then put on descriptor 0 of a child."""
    left, right = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    socket.send_fds(left, [b"x"], [client.fileno()])
    _, (arrived,), _, _ = socket.recv_fds(right, 1, 1)
    in_child(lambda: os.dup2(arrived, 0) and None)
    return {"port": str(server.getsockname()[1]), "arrived": arrived}


@case
def writes(folder: Path) -> Any:
    fd = os.open(folder / "elf", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"\x7fELF" + bytes(40))
    os.write(fd, b"more")
    os.pwrite(fd, b"#!/bin/sh\n", 0)
    os.pwritev(fd, [b"ab", b"", b"cdefgh", b"i" * 40], 0)
    os.lseek(fd, 0, 0)
    os.writev(fd, [b"xy", b"z"])
    copy = os.open(folder / "copy", os.O_RDWR | os.O_CREAT)
    os.copy_file_range(fd, copy, 30, 0, 0)
    os.truncate(folder / "copy", 0)
    os.lseek(fd, 0, 0)
    os.lseek(copy, 0, 0)
    os.sendfile(copy, fd, 0, 20)
    mapped = mmap.mmap(copy, 20, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    mapped.close()
    found = os.fstat(fd)
    os.close(fd)
    os.close(copy)
    return {"pathname": str(folder / "elf"), "copy": str(folder / "copy"), "inode": found.st_ino}


def _mprotect(address: int, size: int, prot: int) -> None:
    call("mprotect", ctypes.c_void_p(address), ctypes.c_size_t(size), prot)


def _map(size: int, prot: int, fd: int = -1) -> int:
    LIBC.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if fd < 0 else 0)
    return int(LIBC.mmap(None, ctypes.c_size_t(size), prot, flags, fd, 0))


@case
def protection(folder: Path) -> Any:
    page = mmap.PAGESIZE
    both = _map(page, PROT_R | PROT_W | PROT_X)
    plain = _map(4 * page, PROT_R | PROT_W)
    _mprotect(plain + page, page, PROT_R | PROT_X)
    _mprotect(plain + page, page, PROT_R | PROT_W | PROT_X)
    reading = _map(page, PROT_R)
    _mprotect(reading, page, PROT_R | PROT_X)
    _mprotect(plain, 4 * page, PROT_R | PROT_X)
    fd = os.open("/proc/self/exe", os.O_RDONLY)
    code = _map(page, PROT_R, fd)
    _mprotect(code, page, PROT_R | PROT_X)
    _map(page, PROT_R | PROT_X, fd)
    os.close(fd)
    return {
        "exe": os.readlink("/proc/self/exe"),
        "alerts": [
            [1, both, page],
            [4, plain + page, page],
            [3, plain + page, page],
            [2, reading, page],
            [4, plain, page],
            [4, plain + page, page],
            [4, plain + 2 * page, 2 * page],
            [2, code, page],
        ],
    }


@case
def not_run(folder: Path) -> Any:
    os.chdir(folder)
    with contextlib.suppress(OSError):
        os.execv("a/none", ["none", "one", ""])
    return {"binary": str(folder / "a/none")}


@case
def identity(folder: Path) -> Any:
    def work() -> None:
        os.setgid(12)
        os.setresuid(1000, 1001, 0)
        os.setresuid(1000, 1001, 0)
        call("prctl", 15, b"namespaces", 0, 0, 0)
        os.seteuid(0)
        call("unshare", 0x04000000)

    in_child(work)
    return {"uts": os.stat("/proc/self/ns/uts").st_ino}


def main(folder: Path) -> None:
    """Every case, in order."""
    (folder / "a/b").mkdir(parents=True)
    (folder / "mnt").mkdir()
    (folder / "names").mkdir()
    (folder / "names/one").touch()
    (folder / "a/b/file").write_text("x")
    (folder / "a/b/file2").touch()
    (folder / "a/victim").touch()
    (folder / "link").symlink_to(folder / "a/b/file")
    (folder / "dirlink").symlink_to(folder / "a")
    for function in CASES:
        call("prctl", 15, function.__name__.encode(), 0, 0, 0)
        FACTS[function.__name__] = function(folder)
    call("prctl", 15, b"end", 0, 0, 0)
    (folder / "facts.json").write_text(json.dumps(FACTS))


main(Path(sys.argv[1]).resolve())
