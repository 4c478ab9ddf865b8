"""A guest: Debian's userland with the checkout in it, one of Debian's kernels, and a script that runs as root."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.guests.packages import USERLAND, Apt, Kernel, StalledError, fetch_tools, run

SUITES = ("bookworm", "trixie")
"""Debian 12 and 13."""
CHECKOUT = "opt/headrace"
IMAGE_BYTES = "6G"
DRIVERS = ("virtio_pci", "virtio_blk", "ext4", "9p", "9pnet_virtio")
BY_NAME = re.compile(r"/(crc32c_generic|libcrc32c|crc32c-intel)\.ko")
"""ext4 asks for these by name: no list of dependencies has them."""
EARLY = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /modules/order); do insmod /modules/$m 2>/dev/null; done
mount -t ext4 /dev/vda /guest || sh
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /guest/mnt
mkdir -p /guest/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro modules /guest/lib/modules
mkdir -p /guest/opt/headers
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro headers /guest/opt/headers
mount --move /proc /guest/proc; mount --move /sys /guest/sys; mount --move /dev /guest/dev
exec switch_root /guest /bin/sh /mnt/init
"""
INIT = """export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mount -t tracefs tracefs /sys/kernel/tracing; mount -t cgroup2 none /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
mkdir -p /var/cache/headrace
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 cache /var/cache/headrace
ln -sf /opt/headers/usr/src/* /usr/src/; ln -sf /opt/headers/usr/lib/* /usr/lib/
ln -sf /proc/self/fd /dev/fd; hostname guest; ip link set lo up
cd /opt/headrace
packages=$(echo .venv/lib/python3*/site-packages); cp /mnt/inside.py $packages/headrace_guest.py
echo 'import headrace_guest' >$packages/headrace_guest.pth
sh /mnt/job </dev/null >/mnt/out 2>&1
echo $? >/mnt/status
sync
echo o >/proc/sysrq-trigger; sleep 20
"""


class Machine:
    """Where guests are made and booted: a folder that is kept from run to run."""

    def __init__(self, folder: Path, suite: str = SUITES[0]) -> None:
        """`suite`: whose userland."""
        self.folder, self._suite = folder, suite
        folder.mkdir(parents=True, exist_ok=True)
        self._tools = fetch_tools(folder)
        self._root = folder / f"root-{suite}"
        self._image = folder / f"root-{suite}.img"
        self._cache = folder / "cache"
        """Compiled programs: without a processor of its own, a guest compiles for minutes."""
        self._cache.mkdir(mode=0o700, exist_ok=True)

    def prepare(self, checkout: Path) -> None:
        """The userland, with the commit of the checkout in it."""
        commit, made_of = run(["git", "-C", str(checkout), "rev-parse", "HEAD"]), self.folder / f"commit-{self._suite}"
        if self._image.exists() and made_of.exists() and made_of.read_text() == commit:
            return
        if not (self._root / "etc").is_dir():
            self._bootstrap()
        inside = self._root / CHECKOUT
        if not inside.is_dir():
            run(["git", "clone", "-q", str(checkout), str(inside)])
        run(["git", "-C", str(inside), "fetch", "-q", str(checkout), "HEAD"])
        run(["git", "-C", str(inside), "checkout", "-q", "--detach", "FETCH_HEAD"])
        self._inside("cd /opt/headrace && make setup")
        self._image.unlink(missing_ok=True)
        run(["mke2fs", "-q", "-t", "ext4", "-d", str(self._root), str(self._image), IMAGE_BYTES])
        made_of.write_text(commit)

    def _bootstrap(self) -> None:
        apt = Apt.of(self.folder / "apt" / self._suite, [self._suite, f"{self._suite}-security"])
        paths = {
            "PATH": f"{self._tools}/usr/bin:{os.environ['PATH']}",
            "PERL5LIB": f"{self._tools}/usr/share/perl5",
            "APT_CONFIG": "",
        }
        options = ["--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(USERLAND)}"]
        # a half-made one must not be taken for whole
        making = self._root.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        run(["mmdebstrap", *options, self._suite, str(making), str(apt.sources)], env=os.environ | paths)
        for file in ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(file).exists():
                shutil.copy(file, f"{making}{file}")
        making.rename(self._root)

    def _inside(self, command: str) -> None:
        """In the userland, in a mount namespace of its own."""
        passed = [f"{name}={os.environ[name]}" for name in ("PIP_CERT", "PIP_INDEX_URL") if name in os.environ]
        mounts = 'for each in proc dev sys; do mount --rbind /$each "$1/$each"; done'
        script = f'{mounts}; root=$1; shift; exec chroot "$root" "$@"'
        clean = ["/usr/bin/env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *passed, "sh", "-c", command]
        run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(self._root), *clean])

    def boot(self, kernel: Kernel, made: Path, job: str, share: Path, timeout_s: float) -> float:
        """Run a script in a guest; its output and status are in `share`, which the guest has as /mnt. Seconds that it
        took; StalledError if the script did not come to its end.
        """
        shutil.rmtree(share, ignore_errors=True)
        share.mkdir(parents=True)
        (share / "init").write_text(INIT)
        (share / "job").write_text(job)
        (share / "compile").mkdir()
        shutil.copy(Path(__file__).with_name("inside.py"), share / "inside.py")
        image = next(made.rglob("vmlinuz*"))
        libraries = f"{self._tools}/usr/lib/x86_64-linux-gnu:{self._tools}/lib/x86_64-linux-gnu"
        began = time.monotonic()
        with (share / "console").open("wb") as console, compiling(share / "compile"):
            try:
                subprocess.run(
                    [
                        *(f"{self._tools}/usr/bin/qemu-system-x86_64", "-L", f"{self._tools}/usr/share/qemu"),
                        *("-L", f"{self._tools}/usr/share/seabios", "-L", f"{self._tools}/usr/lib/ipxe/qemu"),
                        *("-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2", "-m", "3072"),
                        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
                        *("-nic", "none", "-kernel", str(image), "-initrd", str(self._initrd(made))),
                        *("-append", f"console=ttyS0 quiet panic=-1 {kernel.append}"),
                        *("-drive", f"file={self._image},format=raw,if=virtio,snapshot=on"),
                        *("-virtfs", f"local,path={share},mount_tag=share,security_model=none"),
                        *("-virtfs", f"local,path={self._cache},mount_tag=cache,security_model=none"),
                        "-virtfs",
                        f"local,path={made}/lib/modules,mount_tag=modules,security_model=none,readonly=on",
                        "-virtfs",
                        f"local,path={made}/headers,mount_tag=headers,security_model=none,readonly=on",
                    ],
                    env=os.environ | {"LD_LIBRARY_PATH": libraries},
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise StalledError(f"{kernel.name}: not done after {timeout_s:g} s, see {share}/out") from None
        if not (share / "status").exists():
            raise StalledError(f"{kernel.name}: it did not come to its end, see {share}/console")
        return time.monotonic() - began

    def _initrd(self, made: Path) -> Path:
        """What mounts the image: busybox and the drivers that this takes."""
        modules = next((made / "lib/modules").iterdir())
        if not (modules / "modules.dep").exists():
            script = 'mount --bind "$1" "$2/mnt" && exec chroot "$2" depmod -b /mnt "$3"'
            names = [str(made), str(self._root), modules.name]
            run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *names])
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            for part in ("bin", "proc", "sys", "dev", "guest", "modules"):
                (folder / part).mkdir()
            shutil.copy(self._root / "bin/busybox", folder / "bin")
            order = []
            for file in dict.fromkeys(drivers((modules / "modules.dep").read_text())):
                target = folder / "modules" / re.sub(r"\.ko\..*", ".ko", Path(file).name)
                target.write_bytes(_unpacked(modules / file))
                order.append(target.name)
            (folder / "modules/order").write_text("\n".join(order))
            (folder / "init").write_text(EARLY)
            (folder / "init").chmod(0o755)
            names = "\0".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
            cpio = next(path for path in (self._tools / "usr/bin/cpio", self._tools / "bin/cpio") if path.exists())
            packed = subprocess.run(
                [str(cpio), "-o", "-0", "-H", "newc", "--quiet"],
                cwd=folder,
                input=names.encode(),
                capture_output=True,
                check=True,
            ).stdout
        made_of = made / "initrd"
        made_of.write_bytes(gzip.compress(packed, 1))
        return made_of


@contextlib.contextmanager
def compiling(folder: Path) -> Iterator[None]:
    """Compile what a guest asks for (inside.py)."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.wait(0.05):
            for asked in folder.glob("*.in"):
                done = subprocess.run(
                    [sys.executable, "-I", "-m", "headrace.bpf.programs.compiler"],
                    input=asked.read_bytes(),
                    capture_output=True,
                    check=False,
                )
                asked.with_suffix(".out").write_bytes(done.stdout)
                said = asked.with_suffix(".said")
                said.write_bytes(f"{done.returncode}\n".encode() + done.stderr)
                asked.unlink()
                said.rename(asked.with_suffix(".status"))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def drivers(dependencies: str) -> Iterator[str]:
    """Files of modules in the order in which they are loaded."""
    lines = [line.partition(":") for line in dependencies.splitlines()]
    yield from (file for file, _, _ in lines if BY_NAME.search(file))
    for driver in DRIVERS:
        for file, _, others in lines:
            if re.search(rf"/{driver}\.ko", file):
                yield from [*reversed(others.split()), file]


def _unpacked(file: Path) -> bytes:
    if file.suffix == ".xz":
        return lzma.decompress(file.read_bytes())
    if file.suffix == ".zst":
        return subprocess.run(["zstd", "-qdc", str(file)], capture_output=True, check=True).stdout
    return file.read_bytes()
