"""Loop bodies behind the programs that call them."""

from __future__ import annotations

import struct

from headrace.bpf.host.btf import Btf
from headrace.bpf.programs import link
from headrace.bpf.programs.compiler import Code

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def load(body: str) -> bytes:
    """r2 = what stands for a body."""
    number = link.BODIES.index(body)
    return struct.pack("<BBhiBBhi", 0x18, 2, 0, number, 0, 0, 0, link.LOOP >> 32)


def shown(code: bytes, at: int) -> tuple[int, ...]:
    return struct.unpack_from("<BBhi", code, at * link.INSTRUCTION)


def test_a_program_without_loops_stays_as_it_is() -> None:
    other = struct.pack("<BBhiBBhi", 0x18, 0x12, 0, 7, 0, 0, 0, 0)  # the address of a map
    assert link.linked(other + EXIT, {}) == (other + EXIT, {})


def test_numbers_of_the_scope_are_found_and_put_in() -> None:
    def number(which: int) -> bytes:
        return struct.pack("<BBhiBBhi", link.LD_IMM64, 3, 0, which, 0, 0, 0, link.SCOPE_NUMBERS >> 32)

    code = load("path_step") + number(1) + EXIT + number(0)
    assert link.numbered(code) == {2: 1, 5: 0}
    placed = Code(code, {}, numbers=link.numbered(code)).placed({}, [2**64 - 1, 1 << 40])
    assert placed[:16] == code[:16]
    assert (shown(placed, 2), shown(placed, 3)) == ((0x18, 3, 0, 0), (0, 0, 0, 1 << 8))
    assert (shown(placed, 5), shown(placed, 6)) == ((0x18, 3, 0, -1), (0, 0, 0, -1))


def test_calls_of_the_kernels_functions_have_its_id() -> None:
    def call(number: int) -> bytes:
        return struct.pack("<BBhi", link.CALL, 0, 0, number)

    code = link.of_kernel(call(5) + call(link.FUNCTION | 77) + EXIT)
    assert (shown(code, 0), shown(code, 1)) == ((link.CALL, 0, 0, 5), (link.CALL, 0x20, 0, 77))
    assert code[16:] == EXIT


def test_a_body_stands_behind_the_program_once_and_takes_the_state_alone() -> None:
    code, begins = link.linked(load("path_step") + load("path_step") + EXIT, {"path_step": EXIT})
    assert begins == {"path_step": 5}
    assert (shown(code, 0), shown(code, 1)) == ((0x18, 0x42, 0, 4), (0, 0, 0, 0))
    assert shown(code, 2) == (0x18, 0x42, 0, 2)
    assert code[5 * 8 :] == link.R1_IS_R2 + EXIT


def test_a_body_may_have_loops_of_its_own() -> None:
    bodies = {"resolve_step": load("resolve_child") + EXIT, "resolve_child": EXIT}
    code, begins = link.linked(load("resolve_step") + EXIT, bodies)
    assert begins == {"resolve_step": 3, "resolve_child": 7}
    assert shown(code, 4) == (0x18, 0x42, 0, 2)


def test_the_kernel_is_told_where_functions_begin() -> None:
    data, info = link.func_info("on_walk", {"path_step": 40})
    assert struct.unpack("<4I", info) == (0, 3, 40, 4)
    assert Btf(data) is not None
    assert data.endswith(b"\0int\0on_walk\0path_step\0")
