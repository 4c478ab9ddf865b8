"""Decodes structures that calls point to into maps of numbers and words: the ones in `bpf/tables/structs.txt`, and
some that no declaration can express: addresses, control messages, socket option values, descriptor sets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from headrace.bpf.tables import words
from headrace.bpf.tables.reads import CONTROL, IOVEC, SOCKADDR
from headrace.bpf.tables.shown import Shown
from headrace.bpf.tables.structs import SCALARS, Layout, MemberPlace, declared, layout_of
from headrace.workers.decode.flags import parser_by_command, parser_from
from headrace.workers.decode.sockaddr import decode as decode_sockaddr
from headrace.workers.decode.sockaddr import ipv4, ipv6

Value = object
Reader = Callable[[bytes], Value]
PADDING = "pad"
"""Members whose names begin with this are not shown."""
NUMERIC = frozenset("limit signal errno sigcode s32 dirfd utime".split())
"""Parsers that name some numbers and leave the others as numbers."""
SIGNED = ("s8", "s16", "s32", "s64", "long")
IDS = ("Uid", "Gid", "Suid", "Sgid", "Euid", "Egid", "Fsuid", "Fsgid", "UserNamespace", "SecureBits")
CAPABILITIES = ("CapInheritable", "CapPermitted", "CapEffective", "CapBounding", "CapAmbient")
SOL_SOCKET, SCM_RIGHTS, SCM_CREDENTIALS, SCM_PIDFD = 1, 1, 2, 4
MAX_MESSAGES, MAX_SAID = 64, 4096


@dataclass(frozen=True)
class Decoder:
    """Function that decodes bytes to a value, and the minimum number of bytes that it needs."""

    read: Reader
    least: int
    has_texts: bool = True
    """Whether a value can contain texts, which may not preserve the original bytes."""


def _text(data: bytes) -> str:
    """The text up to a NUL. Invalid UTF-8 becomes the replacement character."""
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def is_lossy(value: Value) -> bool:
    """Whether some text in a value does not preserve the original bytes."""
    if isinstance(value, str):
        return "\ufffd" in value
    if isinstance(value, dict):
        return any(map(is_lossy, value.values()))
    return isinstance(value, list) and any(map(is_lossy, value))


def _scalar(kind: str) -> Reader:
    """Reader of a value in network byte order."""
    return {"in4": ipv4, "in6": ipv6}.get(kind, lambda data: int.from_bytes(data, "big"))


def _shown(how: str) -> Callable[[int], Value]:
    """Function that returns a member's words, or the number if it has none. Results are cached."""
    parser, said = parser_from(how), dict[int, Value]()
    numeric = how[0] == "=" or how[1:] in NUMERIC

    def read(raw: int) -> Value:
        if raw not in said:
            if len(said) >= MAX_SAID:
                said.clear()
            text = parser(raw)
            said[raw] = raw if numeric and text == str(raw) else text
        return said[raw]

    return read


CODES = {"s8": "b", "u8": "B", "s16": "h", "u16": "H", "s32": "i", "u32": "I", "s64": "q", "u64": "Q"}
"""Format codes of struct.unpack()."""


def _code(kind: str, size: int, words: bool) -> str:
    """Format code of a number. A number that is shown in words is unsigned."""
    signed = kind in SIGNED and not words
    return CODES[f"{'s' if signed else 'u'}{8 * size}"]


@dataclass(frozen=True)
class _Part:
    """How to unpack one member: format code, number of values, and a conversion for each (None: none needed)."""

    name: str
    code: str
    count: int | None
    make: Callable[[Any], Value] | None


def _part(place: MemberPlace, compat: bool) -> _Part:
    member, size = place.member, place.element
    if member.name.startswith(PADDING):
        return _Part("", f"{place.size}x", 0, None)
    if member.type in ("char", "byte"):
        return _Part(member.name, f"{place.size}s", None, _text if member.type == "char" else bytes.hex)
    if member.type not in SCALARS:
        inner = _compiled(layout_of(member.type, compat), compat)
        return _Part(member.name, f"{size}s" * (member.count or 1), member.count, inner.read)
    if member.type.startswith(("be", "in")):
        return _Part(member.name, f"{size}s" * (member.count or 1), member.count, _scalar(member.type))
    make = _shown(member.shown) if member.shown else hex if member.type == "ptr" else None
    return _Part(member.name, _code(member.type, size, make is not None) * (member.count or 1), member.count, make)


class _Compiled:
    """A layout compiled to one struct.unpack() call."""

    def __init__(self, layout: Layout, compat: bool) -> None:
        self._layout, self._compat = layout, compat
        codes, at, self._parts = ["<"], 0, list[_Part]()
        for place in layout.places:
            part = _part(place, compat)
            codes += [f"{place.offset - at}x", part.code]
            at = place.offset + place.size
            self._parts += [part] if part.name or layout.struct.is_value else []
        self._unpack = struct.Struct("".join(codes))
        self._ends = [place.offset + place.size for place in layout.places]

    def read(self, data: bytes) -> Value:
        """The members; for truncated data, only the complete ones."""
        size = self._unpack.size
        if len(data) < size:
            return self._beginning(data)
        values, at = self._unpack.unpack_from(data), 0
        if self._layout.struct.is_value and self._parts[0].count is None:
            part = self._parts[0]
            return part.make(values[0]) if part.make else values[0]
        found: dict[str, Value] = {}
        for part in self._parts:
            if part.count is None:
                value, at = values[at], at + 1
                found[part.name] = part.make(value) if part.make else value
            else:
                several, at = values[at : at + part.count], at + part.count
                found[part.name] = [part.make(value) if part.make else value for value in several]
        return found[self._parts[0].name] if self._layout.struct.is_value else found

    def _beginning(self, data: bytes) -> Value:
        whole = sum(end <= len(data) for end in self._ends)
        places = self._layout.places[:whole]
        if not places:
            return {}
        return _compiled(Layout(self._layout.struct, places, 0, 1), self._compat).read(data)


@cache
def _compiled(layout: Layout, compat: bool) -> _Compiled:
    return _Compiled(layout, compat)


def _elements(layout: Layout, compat: bool, data: bytes) -> Value:
    """All complete elements of an array."""
    size, read = layout.size, _compiled(layout, compat).read
    return [read(data[at : at + size]) for at in range(0, len(data) - size + 1, size)]


def decode(name: str, data: bytes, compat: bool = False) -> Value:
    """Decodes one struct. Raises KeyError if there is no struct of that name."""
    return _compiled(layout_of(name, compat), compat).read(data)


def _least(name: str, compat: bool) -> int:
    """Minimum number of bytes to decode anything: the size of the first member."""
    layout = layout_of(name, compat)
    return layout.places[0].size


def _has_texts(layout: Layout) -> bool:
    kinds = [place.member.type for place in layout.places]
    return "char" in kinds or any(_has_texts(layout_of(kind, False)) for kind in kinds if kind not in SCALARS)


def _set_bits(data: bytes) -> Value:
    number = int.from_bytes(data, "little")
    return [bit for bit in range(number.bit_length()) if number >> bit & 1]


def decoder_of(how: Shown, compat: bool, variant: str = "") -> Decoder:
    """Decoder for a SPEC of bpf/tables/arguments.txt. `variant`: the word of the argument that selects the struct."""
    name = how.struct
    if how.by:
        name = f"{how.struct}/{variant}"
        if name not in declared():
            return Decoder(lambda data: {"raw": data.hex()}, 0)
    if how.unit == "bits":
        return Decoder(_set_bits, 0)
    layout = layout_of(name, compat)
    size = layout.size
    if layout.struct.is_value and layout.places[0].member.type == "byte":
        return Decoder(lambda data: data.hex(), 0)
    if how.unit == "n" or how.fixed > 1:
        return Decoder(lambda data: _elements(layout, compat, data), size if how.fixed > 1 else 0, _has_texts(layout))
    least = _least(name, compat) if how.unit == "bytes" else size
    return Decoder(_compiled(layout, compat).read, least, _has_texts(layout))


def control_messages(data: bytes, compat: bool) -> Value:
    """The control messages of a msghdr (include/uapi/linux/socket.h, struct cmsghdr)."""
    width = 4 if compat else 8
    head = width + 8
    found: list[Value] = []
    at = 0
    while at + head <= len(data) and len(found) < MAX_MESSAGES:
        size = int.from_bytes(data[at : at + width], "little")
        level, kind = struct.unpack_from("<ii", data, at + width)
        body = data[at + head : at + max(size, head)]
        message: dict[str, Value] = {
            "cmsg_level": words.names_of("level").get(level, level),
            "cmsg_type": words.names_of("scm_socket").get(kind, kind) if level == SOL_SOCKET else kind,
        }
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            message["fds"] = list(struct.unpack(f"<{len(body) // 4}i", body[: len(body) // 4 * 4]))
        elif (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS) and len(body) >= 12:
            message["credentials"] = decode("ucred", body)
        elif (level, kind) == (SOL_SOCKET, SCM_PIDFD) and len(body) >= 4:
            message["pidfd"] = int.from_bytes(body[:4], "little", signed=True)
        else:
            message["data"] = body.hex()
        found.append(message)
        if size < head:
            break
        at += -(-size // width) * width
    return found


OPTION_STRUCTS = dict(
    word.split(":")
    for word in """SO_LINGER:linger SO_RCVTIMEO:timeval SO_SNDTIMEO:timeval SO_PEERCRED:ucred SO_TYPE:socktype
        SO_DOMAIN:family SO_ERROR:sockerr SO_ATTACH_FILTER:sock_fprog SO_ATTACH_REUSEPORT_CBPF:sock_fprog
        IP_ADD_MEMBERSHIP:ip_mreq IP_DROP_MEMBERSHIP:ip_mreq IP_MULTICAST_IF:in_addr IPV6_ADD_MEMBERSHIP:ipv6_mreq
        IPV6_DROP_MEMBERSHIP:ipv6_mreq PACKET_ADD_MEMBERSHIP:packet_mreq PACKET_DROP_MEMBERSHIP:packet_mreq
        TCP_REPAIR_WINDOW:tcp_repair_window""".split()
)
TEXT_OPTIONS = {"SO_BINDTODEVICE", "TCP_CONGESTION", "TCP_ULP", "SO_PEERSEC"}


def option_value(level: int, option: int, data: bytes, compat: bool) -> Value:
    """The value of a socket option: a struct or a text if it is known to be one, a number if it has four bytes, else
    hexadecimal digits.
    """
    parser = parser_by_command("setsockopt", "optname", level)
    name = parser(option) if parser else ""
    if name in TEXT_OPTIONS:
        return _text(data)
    wanted = OPTION_STRUCTS.get(name)
    if wanted and len(data) >= layout_of(wanted, compat).places[0].size:
        return decode(wanted, data, compat)
    return int.from_bytes(data, "little", signed=True) if len(data) == 4 else data.hex()


def _credentials(data: bytes) -> Value:
    return dict(zip(IDS + CAPABILITIES, struct.unpack_from("<10I5Q", data), strict=True))


def _iovecs(data: bytes, compat: bool) -> Value:
    return decoder_of(Shown(struct="iovec", unit="n"), compat).read(data)


def typed_decoder(kind: str, compat: bool) -> Decoder | None:
    """Decoder for a C type that has the same form in every event; None if it has none."""
    if kind == SOCKADDR:
        return Decoder(decode_sockaddr, 2)
    if kind == "slim_cred_t":
        return Decoder(_credentials, 80)
    if kind == IOVEC:
        return Decoder(lambda data: _iovecs(data, compat), 0)
    if kind == CONTROL:
        return Decoder(lambda data: control_messages(data, compat), 0)
    return None


TYPED = frozenset({SOCKADDR, "slim_cred_t", IOVEC, CONTROL})
