"""Structures that calls point to, as maps of numbers and words: those of `bpf/tables/structs.txt`, and some that no
declaration can say: addresses, control messages, values of socket options, sets of descriptors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from bpf import words
from bpf.reads import CONTROL, IOVEC, SOCKADDR
from bpf.shown import Shown
from bpf.structs import SCALARS, Layout, Place, declared, layout_of
from workers.decode.flags import parser_from
from workers.decode.sockaddr import decode as decode_sockaddr
from workers.decode.sockaddr import ipv4, ipv6

Value = object
Reader = Callable[[bytes], Value]
PADDING = "pad"
"""Members of such names are not shown."""
NUMERIC = frozenset("limit signal errno sigcode s32 dirfd utime".split())
"""Parsers that name some numbers and leave the others."""
SIGNED = ("s8", "s16", "s32", "s64", "long")
IDS = ("Uid", "Gid", "Suid", "Sgid", "Euid", "Egid", "Fsuid", "Fsgid", "UserNamespace", "SecureBits")
CAPABILITIES = ("CapInheritable", "CapPermitted", "CapEffective", "CapBounding", "CapAmbient")
SOL_SOCKET, SCM_RIGHTS, SCM_CREDENTIALS, SCM_PIDFD = 1, 1, 2, 4
MOST_MESSAGES = 64


@dataclass(frozen=True)
class Decoder:
    """What makes a value of bytes, and how many it needs at least."""

    read: Reader
    least: int


def _text(data: bytes) -> str:
    """Up to a NUL; what is not UTF-8 shows as the replacement character."""
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def is_lossy(value: Value) -> bool:
    """Whether some text of a value does not say which bytes it was."""
    if isinstance(value, str):
        return "\ufffd" in value
    if isinstance(value, dict):
        return any(map(is_lossy, value.values()))
    return isinstance(value, list) and any(map(is_lossy, value))


def _scalar(kind: str) -> Reader:
    if kind == "in4":
        return ipv4
    if kind == "in6":
        return ipv6
    if kind == "ptr":
        return lambda data: hex(int.from_bytes(data, "little"))
    if kind.startswith("be"):
        return lambda data: int.from_bytes(data, "big")
    signed = kind in SIGNED
    return lambda data: int.from_bytes(data, "little", signed=signed)


def _shown(how: str) -> Reader:
    """A member's words; what has none stays a number."""
    parser = parser_from(how)

    def read(data: bytes) -> Value:
        raw = int.from_bytes(data, "little")
        text = parser(raw)
        return raw if text == str(raw) and (how[0] == "=" or how[1:] in NUMERIC) else text

    return read


@cache
def _reader(place: Place, compat: bool) -> Reader:
    """What reads one member of its bytes."""
    member = place.member
    if member.type == "char":
        return _text
    if member.type == "byte":
        return lambda data: data.hex()
    one: Reader
    if member.type not in SCALARS:
        inner = layout_of(member.type, compat)
        one = lambda data: _members(inner, compat, data)  # noqa: E731
    else:
        one = _shown(member.shown) if member.shown else _scalar(member.type)
    if member.count is None:
        return one
    step = place.element
    return lambda data: [one(data[at : at + step]) for at in range(0, len(data), step)]


def _members(layout: Layout, compat: bool, data: bytes) -> Value:
    """Of all members that the bytes have, in order."""
    if layout.struct.is_value:
        return _reader(layout.places[0], compat)(data[: layout.places[0].size])
    return {
        place.member.name: _reader(place, compat)(data[place.offset : place.offset + place.size])
        for place in layout.places
        if place.offset + place.size <= len(data) and not place.member.name.startswith(PADDING)
    }


def decode(name: str, data: bytes, compat: bool = False) -> Value:
    """One struct. KeyError if there is none of that name."""
    return _members(layout_of(name, compat), compat, data)


def _least(name: str, compat: bool) -> int:
    """Bytes without which nothing can be said: the first member, or the whole value."""
    layout = layout_of(name, compat)
    return layout.places[0].size


def _set_bits(data: bytes) -> Value:
    number = int.from_bytes(data, "little")
    return [bit for bit in range(number.bit_length()) if number >> bit & 1]


def decoder_of(how: Shown, compat: bool, variant: str = "") -> Decoder:
    """Of a SPEC of bpf/tables/arguments.txt. `variant`: the word of the argument that decides which struct it is."""
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
        return Decoder(
            lambda data: [
                _members(layout, compat, data[at : at + size]) for at in range(0, len(data) - size + 1, size)
            ],
            size if how.fixed > 1 else 0,
        )
    whole = how.unit != "bytes"
    return Decoder(lambda data: _members(layout, compat, data), _least(name, compat) if not whole else size)


def control_messages(data: bytes, compat: bool) -> Value:
    """The control messages of a msghdr (include/uapi/linux/socket.h, struct cmsghdr)."""
    width = 4 if compat else 8
    head = width + 8
    found: list[Value] = []
    at = 0
    while at + head <= len(data) and len(found) < MOST_MESSAGES:
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


OPTION_STRUCTS = {
    (level, option): name
    for level, options in (
        (
            "SOL_SOCKET",
            """SO_LINGER linger SO_RCVTIMEO timeval SO_SNDTIMEO timeval
            SO_PEERCRED ucred SO_TYPE socktype SO_DOMAIN family SO_ERROR sockerr SO_ATTACH_FILTER sock_fprog
            SO_ATTACH_REUSEPORT_CBPF sock_fprog""",
        ),
        ("SOL_IP", "IP_ADD_MEMBERSHIP ip_mreq IP_DROP_MEMBERSHIP ip_mreq IP_MULTICAST_IF in_addr"),
        ("SOL_IPV6", "IPV6_ADD_MEMBERSHIP ipv6_mreq IPV6_DROP_MEMBERSHIP ipv6_mreq"),
        ("SOL_PACKET", "PACKET_ADD_MEMBERSHIP packet_mreq PACKET_DROP_MEMBERSHIP packet_mreq"),
        ("SOL_TCP", "TCP_REPAIR_WINDOW tcp_repair_window"),
    )
    for option, name in zip(options.split()[::2], options.split()[1::2], strict=True)
}
TEXT_OPTIONS = {"SO_BINDTODEVICE", "TCP_CONGESTION", "TCP_ULP", "SO_PEERSEC"}
LEVEL_TABLES = {
    "SOL_SOCKET": "so_socket",
    "SOL_IP": "so_ip",
    "SOL_IPV6": "so_ipv6",
    "SOL_TCP": "so_tcp",
    "SOL_PACKET": "so_packet",
}


def option_value(level: int, option: int, data: bytes, compat: bool) -> Value:
    """The value of a socket option: a struct or a text where it is one, else a number if it has four bytes."""
    level_name = words.names_of("level").get(level, "")
    table = LEVEL_TABLES.get(level_name)
    name = words.names_of(table).get(option, "") if table else ""
    if name in TEXT_OPTIONS:
        return _text(data)
    wanted = OPTION_STRUCTS.get((level_name, name))
    if wanted and len(data) >= layout_of(wanted, compat).places[0].size:
        return decode(wanted, data, compat)
    return int.from_bytes(data, "little", signed=True) if len(data) == 4 else data.hex()


def _credentials(data: bytes) -> Value:
    return dict(zip(IDS + CAPABILITIES, struct.unpack_from("<10I5Q", data), strict=True))


def _iovecs(data: bytes, compat: bool) -> Value:
    return decoder_of(Shown(struct="iovec", unit="n"), compat).read(data)


def typed_decoder(kind: str, compat: bool) -> Decoder | None:
    """Of a C type that has a form of its own, whatever the call; None if it has none."""
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
