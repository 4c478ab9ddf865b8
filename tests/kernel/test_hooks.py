"""Events of functions of the kernel. This needs kprobes: kernels without them are left out (`make test-kernels`)."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.host.btf import Btf
from headrace.bpf.load import loader
from headrace.bpf.programs import hooks, scope, source
from headrace.bpf.syscall import KPROBES
from headrace.bpf.tables.catalogue import HOOK, catalogue
from headrace.pipeline.host.features import event_lack
from tests.live import Traced, arguments, trace

pytestmark = pytest.mark.kernel
needs_kprobes = pytest.mark.skipif(not KPROBES.exists(), reason="this kernel has no kprobes")
HOOKED = [e for e in catalogue().by_id.values() if (e.hook or "").startswith(f"{HOOK}:")]
WORK = """
import ctypes, os, resource, signal, socket, sys
folder = sys.argv[1]
libc = ctypes.CDLL(None)
with open(folder + "/file", "wb") as file:
    file.write(b"text")
with open(folder + "/file", "rb", buffering=0) as file:
    file.read(2)
    os.readv(file.fileno(), [bytearray(1)])
os.utime(folder + "/file", ns=(1_000_000_001, 2_000_000_002))
watch = libc.inotify_init1(0)
libc.inotify_add_watch(watch, (folder + "/file").encode(), 2)
os.truncate(folder + "/file", 3)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: None)
os.chdir(folder)
libc.prctl(15, b"hr-hooked", 3, 4, 5)
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
try:
    socket.socket(14, socket.SOCK_RAW)
except OSError:
    pass
"""


def test_every_hook_has_a_program_that_loads() -> None:
    """The kernel checks a program whether or not it has the function."""
    btf = Btf.of_kernel()
    hooked = hooks.hooked(HOOKED, btf)
    defined = set(loader.offsets.resolve(btf, "x86_64"))
    there = [
        event
        for event in HOOKED
        if f"hook_{event.name}" in hooked
        and (event.name != "kprobe_attach" or "KERNEL_kprobe_symbol_name" in defined)
        and (event.name != "do_init_module" or "KERNEL_module_list" in defined)
    ]
    assert len(there) >= 20
    wanted = source.WantedPrograms(events=tuple(there), scope=scope.Scope(), shards=1)
    programs = loader.Programs(wanted, btf)
    try:
        assert programs.refused == {}
        assert {f"hook_{event.name}" for event in there} <= {*programs._functions}
    finally:
        programs.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traced, Path]:
    folder = tmp_path_factory.mktemp("hooked")
    events = ",".join(event.name for event in HOOKED if not event_lack(event))
    found = trace([sys.executable, "-S", "-c", WORK, str(folder)], "-e", events)
    assert (found.status, found.ledger["balanced"]) == (0, True), found.errors
    return found, folder


def of(traced: Traced, name: str) -> list[dict[str, Any]]:
    return [arguments(event) for event in traced.events if event["eventName"] == name]


@needs_kprobes
def test_they_have_what_the_function_was_called_with(traced: tuple[Traced, Path]) -> None:
    found, folder = traced
    file = folder / "file"
    inode = file.stat().st_ino
    reads = [read for read in of(found, "vfs_read") if read["pathname"] == str(file)]
    assert (reads[0]["count"], reads[0]["pos"], reads[0]["inode"]) == (2, 0, inode)
    (times,) = (each for each in of(found, "vfs_utimes") if each["pathname"] == str(file))
    assert (times["atime"], times["mtime"], times["inode"]) == (1_000_000_001, 2_000_000_002, inode)
    (watched,) = (each for each in of(found, "security_path_notify") if each["pathname"] == str(file))
    assert watched["inode"] == inode
    (listened,) = (each for each in of(found, "inotify_watch") if each["pathname"] == str(file))
    assert listened["inode"] == inode
    (cut,) = (each for each in of(found, "do_truncate") if each["inode"] == inode and each["length"] == 3)
    assert cut["pathname"].endswith("/file")
    given = [each for each in of(found, "do_sigaction") if each["sig"] == 10 and each["is_sa_initialized"]]
    ignored, handled = given[:2]
    assert (ignored["sa_handle_method"], handled["old_sa_handle_method"], handled["sa_handle_method"]) == (1, 1, 2)
    assert (ignored["old_sa_handle_method"], int(handled["sa_handler"], 16) > 0) == (0, True)
    assert str(folder) in {each["resolved_path"] for each in of(found, "set_fs_pwd")}
    (control,) = (each for each in of(found, "security_task_prctl") if each["arg3"] == 3)
    assert (control["arg4"], control["arg5"]) == (4, 5)
    limits = of(found, "security_task_setrlimit")
    assert any(limit["new_rlim_cur"] == 0 for limit in limits)


@needs_kprobes
def test_the_kernels_own_helper_is_told_with_its_command_line(traced: tuple[Traced, Path]) -> None:
    (helper, *_) = of(traced[0], "call_usermodehelper")
    assert helper["argv"][0] == helper["pathname"]
    assert "net-pf-14" in helper["argv"]
    assert any(text.startswith("PATH=") for text in helper["envp"])


MODULE = "dummy"
"""One of Debian's, which the host loads and unloads."""


@needs_kprobes
@pytest.mark.skipif(
    bool(event_lack(catalogue().by_name["module_load"])) or not Path("/lib/modules").is_dir(),
    reason="this kernel has no modules",
)
def test_a_module_is_told_of_from_its_file_to_its_devices(tmp_path: Path) -> None:
    events = (
        "module_load,module_free,do_init_module,security_kernel_read_file,security_kernel_post_read_file,device_add"
    )
    subprocess.run(["modprobe", "-r", MODULE], check=False)
    kept = ("--capture", "module", "--capture-dir", str(tmp_path / "kept"))
    # one that is compressed is unpacked by modprobe, and given to the kernel in memory
    file = next(Path("/lib/modules").rglob(f"{MODULE}.ko"), None)
    work = f"modprobe {MODULE} numdummies=1 && modprobe -r {MODULE}"
    if file:
        # where the guest's host does not serve it
        file = Path(shutil.copy(file, tmp_path))
        work = f"insmod {file} numdummies=1 && sleep 1 && rmmod {MODULE}"
    found = trace(["sh", "-c", work], "-e", events, *kept)
    assert (found.status, found.ledger["balanced"]) == (0, True), found.errors
    if file:
        read = next(each for each in of(found, "security_kernel_read_file") if each["pathname"] == str(file))
        assert next(e["pathname"] for e in of(found, "security_kernel_post_read_file")) == read["pathname"]
        content = file.read_bytes()
        assert (tmp_path / "kept" / "module" / hashlib.sha256(content).hexdigest()).read_bytes() == content
    assert [each["name"] for each in of(found, "module_load")] == [MODULE]
    assert [each["name"] for each in of(found, "module_free")] == [MODULE]
    (started,) = of(found, "do_init_module")
    assert started["name"] == MODULE
    assert started["prev_next"] == started["next_prev"]
    assert any(each["name"] == "dummy0" for each in of(found, "device_add"))
