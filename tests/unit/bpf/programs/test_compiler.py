"""What was compiled is kept, and believed only where nobody else can write; the kernel's answers in words."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import msgspec
import pytest

from headrace.bpf import syscall
from headrace.bpf.programs import compiler
from headrace.bpf.programs.compiler import Code, Compiled, CompileError, Source
from headrace.bpf.syscall import MapSpec

FOUND = Compiled(
    (MapSpec("status", 2, 4, 64, 1, 1024),),
    {"on_it": Code(struct.pack("<BBhiiiii", 0x18, 0x11, 0, 7, 0, 0, 0, 0), {0: "status"})},
)
SOURCE = Source("int on_it(void *ctx) { return 0; }", ("-w",))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """The compiler is not run: what it would have been given."""
    given: list[Source] = []

    class Done:
        returncode, stdout, stderr = 0, msgspec.msgpack.encode(FOUND), b""

    def run(command: list[str], input: bytes, **_: object) -> Done:
        given.append(msgspec.msgpack.decode(input, type=Source))
        return Done()

    monkeypatch.setattr("headrace.bpf.programs.compiler.subprocess.run", run)
    return given


def test_what_was_compiled_is_kept(tmp_path: Path, runs: list[Source]) -> None:
    folder = tmp_path / "cache"
    assert [compiler.compiled(SOURCE, folder) for _ in range(3)] == [FOUND] * 3
    assert runs == [SOURCE]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    other = Source(SOURCE.text, ("-w", "-DX=1"))
    compiler.compiled(other, folder)
    compiler.compiled(SOURCE, None)
    assert runs == [SOURCE, other, SOURCE]


@pytest.mark.parametrize("harm", ["folder", "file", "link", "half", "nothing"])
def test_what_others_could_have_written_is_not_believed(tmp_path: Path, runs: list[Source], harm: str) -> None:
    folder = tmp_path / "cache"
    compiler.compiled(SOURCE, folder)
    [kept] = folder.iterdir()
    if harm == "folder":
        folder.chmod(0o770)
    elif harm == "file":
        kept.chmod(0o606)
    elif harm == "link":
        kept.rename(tmp_path / "elsewhere")
        kept.symlink_to(tmp_path / "elsewhere")
    else:
        whole = kept.read_bytes()
        kept.write_bytes(whole[: len(whole) // 2 if harm == "half" else 0])
    assert compiler.compiled(SOURCE, folder) == FOUND
    assert len(runs) == 2


def test_a_place_that_cannot_be_used_is_done_without(tmp_path: Path, runs: list[Source]) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "none" / "below"):
        assert compiler.compiled(SOURCE, folder) == FOUND
    assert len(runs) == 3


def test_what_was_not_used_for_longest_goes_first(
    tmp_path: Path, runs: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "MAX_KEPT", 3)
    sources = [Source(SOURCE.text, (f"-DX={i}",)) for i in range(4)]
    for second, source in enumerate(sources[:3]):
        compiler.compiled(source, tmp_path)
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (second, second))
    compiler.compiled(sources[0], tmp_path)
    compiler.compiled(sources[3], tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    runs.clear()
    compiler.compiled(sources[0], tmp_path)
    assert not runs
    compiler.compiled(sources[1], tmp_path)
    assert runs == [sources[1]]


def test_descriptors_take_their_place_in_the_instructions() -> None:
    code = FOUND.programs["on_it"].placed({"status": 40})
    assert struct.unpack_from("<BBhi", code) == (0x18, 0x11, 0, 40)


def test_a_text_that_is_no_c_is_refused_with_the_compilers_words() -> None:
    with pytest.raises(CompileError, match="error: "):
        compiler.compiled(Source("int on_it(", ("-w",)), None)


def test_a_function_that_is_nowhere_is_refused() -> None:
    text = "#include <linux/types.h>\nint on_x(void *ctx) { return nowhere(ctx); }"
    with pytest.raises(CompileError, match="on_x calls a function that is not defined for this kernel"):
        compiler.compiled(Source(text, ("-w",)), None)


@pytest.mark.kernel
def test_what_the_kernel_refuses_it_says_why() -> None:
    no_exit = struct.pack("<BBhi", 0xB7, 1, 0, 0)  # r1 = 0
    with pytest.raises(OSError, match="last insn is not an exit or jmp"):
        syscall.load_program("bad", syscall.RAW_TRACEPOINT, no_exit)


@pytest.mark.kernel
def test_a_maps_elements() -> None:
    made = MapSpec("a_test", 1, 4, 8, 4, 0).create()
    try:
        assert MapSpec.of(made.fd) == made.spec
        made[5], made[6] = 1 << 40, b"12345678"
        assert dict(made.items()) == {5: (1 << 40).to_bytes(8, "little"), 6: b"12345678"}
        del made[5]
        assert [key for key, _ in made.items()] == [6]
        with pytest.raises(KeyError):
            del made[5]
    finally:
        made.close()
