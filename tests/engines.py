"""Container runtimes of the tests' own: their own folders and sockets, no network, an image made of busybox."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.live import wait_for

TOOLS = ("sh", "ps", "ls", "cat", "seq", "sleep", "true")


def image_archive(folder: Path) -> bytes:
    """The root file system of the image, as a tar archive."""
    root = folder / "image/bin"
    root.mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "busybox")
    for tool in TOOLS:
        (root / tool).symlink_to("busybox")
    return subprocess.run(["tar", "-C", str(root.parent), "-c", "."], capture_output=True, check=True).stdout


def end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon, by id."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def output(line: list[str], stdin: bytes | None = None) -> str:
    """Standard output of a command; AssertionError if it fails."""
    done = subprocess.run(line, input=stdin, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, (line, done.stderr.decode())
    return done.stdout.decode().strip()


def remove(folder: Path) -> None:
    """A folder, and what an engine that was killed has left mounted in it."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([place for place in places if Path(place).is_relative_to(folder)]):
        subprocess.run(["umount", "-l", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)


class Engine:
    """A running dockerd. `close()` ends it and all that it started, by id."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hr-engine-"))
        self.socket = self.folder / "sock"
        self.process = self._start()
        try:
            self._wait()
            self._make_image()
        except BaseException:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        options = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--live-restore")
        places = ("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"))
        line = ["dockerd", *places, "-H", f"unix://{self.socket}", "-p", str(self.folder / "pid"), *options]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(line, stdout=log, stderr=log)

    def _wait(self) -> None:
        wait_for(lambda: self._try("version").returncode == 0, f"dockerd: {(self.folder / 'log').read_text()}")

    def restart(self) -> None:
        """Kill it and start it again; its containers go on meanwhile."""
        self.process.kill()
        self.process.wait()
        # the next one would believe in a process that only nobody has waited for
        for name in ("pid", "exec/containerd/containerd.pid"):
            (self.folder / name).unlink(missing_ok=True)
        self.process = self._start()
        self._wait()

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
        done = self._try("import", "-", "busybox", stdin=image_archive(self.folder))
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
        end(self.process)
        self._end_shims()
        remove(self.folder)

    def _end_shims(self) -> None:
        """What goes on without an engine: containers that it could not remove, and who looks after them."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (folder / "cmdline").read_bytes():
                    pid = int(folder.name)
                    for child in (folder / "task" / folder.name / "children").read_text().split():
                        os.kill(int(child), signal.SIGKILL)
                    os.kill(pid, signal.SIGKILL)


class Podman:
    """Podman with folders of its own. It has no daemon; runc, since crun takes no hybrid hierarchies."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hr-podman-"))
        places = [f"--{name}={self.folder / name}" for name in ("root", "runroot", "tmpdir")]
        options = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=runc"]
        self.line = ["podman", *places, *options]
        change = 'CMD ["/bin/sleep", "1000"]'
        output([*self.line, "import", "--change", change, "-", "busybox"], image_archive(self.folder))
        self.service: subprocess.Popen[bytes] | None = None
        self.socket = self.folder / "sock"

    def run(self, *command: str) -> str:
        """Run a container to its end, and take it away: its id."""
        # who may not raise limits cannot have podman's own
        limits = [f"--ulimit={name}=1024:1024" for name in ("nofile", "nproc")]
        name = output([*self.line, "run", "-d", "--network=none", *limits, "busybox", *command])
        output([*self.line, "wait", name])
        output([*self.line, "rm", name])
        return name

    def serve(self) -> None:
        """Start its service at `socket`, which speaks the Docker Engine API."""
        line = [*self.line, "system", "service", "--time=0", f"unix://{self.socket}"]
        self.service = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.socket.exists, "podman's service")

    def close(self) -> None:
        """Take the folders away; conmon has ended with its container."""
        if self.service:
            end(self.service)
        remove(self.folder)


PAUSE = "example.org/pause:1"
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "example.org/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"""
Message = dict[int, "str | int | Message | list[str] | list[Message]"]
"""Fields of a message by their numbers, as Kubernetes' Container Runtime Interface has them."""


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def wire(message: Message) -> bytes:
    """A message as protobuf has it."""
    found = b""
    for number, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                found += _varint(number << 3) + _varint(one)
            else:
                data = one.encode() if isinstance(one, str) else wire(one)
                found += _varint(number << 3 | 2) + _varint(len(data)) + data
    return found


class Pods:
    """Pods of one container each, by a runtime's CRI."""

    def __init__(self, socket: str) -> None:
        import grpc  # an extra

        self._channel = grpc.insecure_channel(f"unix://{socket}")

    def _call(self, name: str, message: Message) -> str:
        """The first field of the answer: an id."""
        call = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{name}", request_serializer=wire, response_deserializer=bytes
        )
        answer = call(message, timeout=60)
        return answer[2 : 2 + answer[1]].decode() if answer else ""

    def run(self, name: str, *command: str) -> tuple[str, str]:
        """Start a pod, in the host's network: (id of the pod, id of its container)."""
        about = {"name": name, "namespace": "tests", "uid": f"uid-{name}"}
        # as the kubelet labels a pod's containers
        labels: list[Message] = [{1: f"io.kubernetes.pod.{key}", 2: value} for key, value in about.items()]
        host_network: Message = {1: {1: 2}}
        config: Message = {1: {1: name, 2: f"uid-{name}", 3: "tests"}, 8: {1: "/kubepods", 2: host_network}}
        pod = self._call("RunPodSandbox", {1: config})
        meta: Message = {1: "main"}
        container: Message = {1: meta, 2: {1: PAUSE}, 3: list(command), 9: labels}
        container_id = self._call("CreateContainer", {1: pod, 2: container, 3: config})
        self._call("StartContainer", {1: container_id})
        return pod, container_id

    def remove(self, pod: str) -> None:
        """End a pod and take it away."""
        self._call("StopPodSandbox", {1: pod})
        self._call("RemovePodSandbox", {1: pod})

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


class Containerd:
    """A running containerd, used by ctr. The image is `archive`, of the OCI's format."""

    def __init__(self, podman: Podman) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hr-containerd-"))
        self.socket, archive = str(self.folder / "sock"), str(self.folder / "image.tar")
        output([*podman.line, "save", "--format=oci-archive", "-o", archive, "busybox"])
        config = self.folder / "config.toml"
        config.write_text(CONFIG.format(folder=self.folder, socket=self.socket))
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
        self._line = ["ctr", "-a", self.socket]
        check = [*self._line, "version"]
        wait_for(lambda: not subprocess.run(check, capture_output=True, check=False).returncode, "containerd")
        output([*self._line, "image", "import", "--snapshotter=native", archive])
        self.image = output([*self._line, "image", "ls", "-q"])
        # the CRI has images of its own
        output([*self._line, "-n", "k8s.io", "image", "import", "--snapshotter=native", archive])
        output([*self._line, "-n", "k8s.io", "image", "tag", self.image, PAUSE])

    def run(self, *command: str, group: str = "") -> str:
        """Run a container to its end, in a group below `group`: its id."""
        name = os.urandom(32).hex()
        place = [f"--cgroup={group}/{name}"] if group else []
        output([*self._line, "run", "--rm", "--snapshotter=native", *place, self.image, name, *command])
        return name

    def close(self) -> None:
        """End it, by id, and take its folder away."""
        end(self.process)
        remove(self.folder)
