"""A Docker Engine of the tests' own: its own folders and socket, no network, an image made of busybox."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.live import wait_for

TOOLS = ("sh", "ps", "ls", "cat", "sleep", "true")


class Engine:
    """A running dockerd. `close()` ends it and all that it started, by id."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hr-engine-"))
        self.socket = self.folder / "sock"
        options = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs")
        places = ("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"))
        line = ["dockerd", *places, "-H", f"unix://{self.socket}", "-p", str(self.folder / "pid"), *options]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log)
        try:
            wait_for(lambda: self._try("version").returncode == 0, f"dockerd: {(self.folder / 'log').read_text()}")
            self._make_image()
        except BaseException:
            self.close()
            raise

    def _try(self, *args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *args], input=stdin, capture_output=True, check=False, timeout=120
        )

    def __call__(self, *args: str) -> str:
        """A docker command's standard output; AssertionError if it fails."""
        done = self._try(*args)
        assert done.returncode == 0, (args, done.stderr.decode())
        return done.stdout.decode().strip()

    def _make_image(self) -> None:
        root = self.folder / "root/bin"
        root.mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "busybox")
        for tool in TOOLS:
            (root / tool).symlink_to("busybox")
        archive = subprocess.run(["tar", "-C", str(root.parent), "-c", "."], capture_output=True, check=True).stdout
        done = self._try("import", "-", "busybox", stdin=archive)
        assert done.returncode == 0, done.stderr.decode()

    def run(self, *args: str) -> str:
        """Start a container in the background: its id."""
        return self("run", "-d", "--network", "none", *args)

    def close(self) -> None:
        """End the containers, then the engine; take the folders away."""
        if self.process.poll() is None:
            running = self._try("ps", "-aq").stdout.decode().split()
            if running:
                self._try("rm", "-f", *running)
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
