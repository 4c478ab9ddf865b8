"""Linking that bcc lacks: calls of kernel functions, and loop bodies placed after the programs that call them.

    call FUNCTION | id          ->   call of the kernel function with that BTF id (bpf/c/kernel.h)

Loops (bpf/c/loop.h):

    program                          program | r1 = r2 | body | r1 = r2 | other body
      r2 = LOOP + number of body  ->   r2 = pseudo function, relative to this instruction
      call bpf_loop                    call bpf_loop

bpf_loop() passes the iteration number first and the state second; a body takes only the state. The kernel requires BTF
that says where functions begin (check_ld_imm() in kernel/bpf/verifier.c). `func_info()` generates it.
"""

from __future__ import annotations

import struct

from headrace.bpf.host.btf import BTF_MAGIC, HEADER, KIND_FUNC, KIND_FUNC_PROTO, KIND_INT, TYPE

BODIES = (
    *("vector_item", "path_step", "path_step_again"),
    *("resolve_step", "resolve_name_end", "resolve_child", "resolve_mount"),
    *("mix_name", "sample_name"),
    *("region_level", "auxiliary_pair", "region_passed", "magic_buffer"),
)
"""Functions that LOOP can call."""
LOOP = 0x4C4F4F50 << 32
INSTRUCTION = 8
LD_IMM64, PSEUDO_FUNC = 0x18, 4
SCOPE_NUMBERS = 0x4E554D42 << 32
CALL, PSEUDO_KFUNC_CALL = 0x85, 2
FUNCTION = 1 << 30
"""Marks calls of kernel functions. Helper numbers and BTF ids are smaller."""
BEFORE_BODY = 1
R1_IS_R2 = struct.pack("<BBhi", 0xBF, 0x21, 0, 0)
SIGNED_32 = 1 << 24 | 32
"""Encoding and bits of an int in BTF."""


def defines() -> dict[str, int]:
    """The constant that represents each body in a program that bcc compiles."""
    return {"HAVE_LOOP": 1} | {f"LOOP_{name}": LOOP | number for number, name in enumerate(BODIES)}


def called(code: bytes) -> dict[int, str]:
    """The bodies that a program calls, by the number of the instruction that loads the address."""
    found = {}
    for at in range(0, len(code) - INSTRUCTION, INSTRUCTION):
        if code[at] == LD_IMM64 and not code[at + 1] >> 4:
            low, high = struct.unpack_from("<I", code, at + 4)[0], struct.unpack_from("<I", code, at + 12)[0]
            if high == LOOP >> 32:
                found[at // INSTRUCTION] = BODIES[low]
    return found


def linked(program: bytes, bodies: dict[str, bytes]) -> tuple[bytes, dict[str, int]]:
    """A program followed by the bodies that it calls, and the number of the instruction at which each body begins."""
    code, begins = bytearray(program), {}
    calls = called(program)
    waiting = list(dict.fromkeys(calls.values()))
    while waiting:
        name = waiting.pop(0)
        if name in begins:
            continue
        begins[name] = len(code) // INSTRUCTION
        code += R1_IS_R2 + bodies[name]
        own = {begins[name] + BEFORE_BODY + at: other for at, other in called(bodies[name]).items()}
        calls |= own
        waiting += own.values()
    for at, name in calls.items():
        code[at * INSTRUCTION + 1] |= PSEUDO_FUNC << 4
        struct.pack_into("<i", code, at * INSTRUCTION + 4, begins[name] - at - 1)
        struct.pack_into("<i", code, at * INSTRUCTION + 12, 0)
    return bytes(code), begins


def numbered(code: bytes) -> dict[int, int]:
    """The indices of the scope numbers that a program loads, by the number of the loading instruction."""
    found = {}
    for at in range(0, len(code) - INSTRUCTION, INSTRUCTION):
        if code[at] == LD_IMM64 and struct.unpack_from("<I", code, at + 12)[0] == SCOPE_NUMBERS >> 32:
            found[at // INSTRUCTION] = struct.unpack_from("<I", code, at + 4)[0]
    return found


def of_kernel(code: bytes) -> bytes:
    """A program with its marked calls replaced by calls of kernel functions."""
    done = bytearray(code)
    for at in range(0, len(code), INSTRUCTION):
        number = struct.unpack_from("<i", code, at + 4)[0]
        if code[at] == CALL and number >= FUNCTION:
            done[at + 1] |= PSEUDO_KFUNC_CALL << 4
            struct.pack_into("<i", done, at + 4, number - FUNCTION)
    return bytes(done)


def func_info(program: str, begins: dict[str, int]) -> tuple[bytes, bytes]:
    """BTF of a program's functions, and (instruction, type) of each as u32 pairs. Each function returns an int."""
    names = b"\0int\0"
    types = TYPE.pack(1, KIND_INT << 24, 4) + struct.pack("<I", SIGNED_32) + TYPE.pack(0, KIND_FUNC_PROTO << 24, 1)
    info = b""
    for number, (name, begin) in enumerate({program: 0, **begins}.items()):
        types += TYPE.pack(len(names), KIND_FUNC << 24, 2)  # static, of the second type
        names += name.encode() + b"\0"
        info += struct.pack("<II", begin, number + 3)
    header = HEADER.pack(BTF_MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(names))
    return header + types + names, info
