"""Socket addresses as maps of strings, in Tracee's format (include/uapi/linux/socket.h and others)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable

from headrace.bpf.tables import words

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17


def _unix(data: bytes) -> dict[str, str]:
    path = data[2:]
    if path[:1] == b"\0" and len(path) > 1:
        return {"sun_path": "@" + path[1:].decode("utf-8", "backslashreplace")}
    return {"sun_path": path.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")}


def _inet(data: bytes) -> dict[str, str]:
    port, address = struct.unpack_from("!H4s", data, 2)
    return {"sin_port": str(port), "sin_addr": ipv4(address)}


def ipv4(packed: bytes) -> str:
    """Text of a packed IPv4 address (4 bytes)."""
    return str(ipaddress.IPv4Address(packed))


def ipv6(packed: bytes) -> str:
    """Text of a packed IPv6 address, as in inet_ntop(3) and RFC 5952. Mapped addresses end in IPv4 notation."""
    address = ipaddress.IPv6Address(packed)
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


def _inet6(data: bytes) -> dict[str, str]:
    port, flow, address = struct.unpack_from("!HI16s", data, 2)
    scope = struct.unpack_from("<I", data, 24)[0] if len(data) >= 28 else 0
    return {
        "sin6_port": str(port),
        "sin6_flowinfo": str(flow),
        "sin6_addr": ipv6(address),
        "sin6_scopeid": str(scope),
    }


def _netlink(data: bytes) -> dict[str, str]:
    port, groups = struct.unpack_from("<II", data, 4)
    return {"nl_pid": str(port), "nl_groups": hex(groups)}


def _packet(data: bytes) -> dict[str, str]:
    protocol, interface, hardware, kind, length = struct.unpack_from("!H", data, 2) + struct.unpack_from(
        "<iHBB", data, 4
    )
    return {
        "sll_protocol": hex(protocol),
        "sll_ifindex": str(interface),
        "sll_hatype": str(hardware),
        "sll_pkttype": str(kind),
        "sll_addr": data[12 : 12 + min(length, 8)].hex(":"),
    }


_DECODERS = {
    AF_UNIX: (_unix, 2),
    AF_INET: (_inet, 8),
    AF_INET6: (_inet6, 24),
    AF_NETLINK: (_netlink, 12),
    AF_PACKET: (_packet, 12),
}


def _is_exact_unix(data: bytes) -> bool:
    path = data[2:]
    if path[:1] == b"\0" and len(path) > 1:
        name = path[1:]
    else:
        name = path[:-1]
        if path and (path[-1:] != b"\0" or b"\0" in name or name[:1] in (b"@", b"")):
            return False
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


_EXACT: dict[int, Callable[[bytes], bool]] = {
    AF_UNIX: _is_exact_unix,
    AF_INET: lambda data: data[8:] == bytes(8),
    AF_INET6: lambda data: len(data) == 28,
    AF_NETLINK: lambda data: len(data) == 12 and data[2:4] == bytes(2),
    AF_PACKET: lambda data: len(data) == 20 and data[11] <= 8 and not any(data[12 + data[11] :]),
}
"""Whether the map of an address preserves all of its bytes."""


def is_exact(data: bytes) -> bool:
    """Whether only these bytes decode to this map: unused bytes are zero and text is UTF-8."""
    family = int.from_bytes(data[:2], "little")
    _, least = _DECODERS.get(family, (None, 0))
    # raw addresses preserve all bytes
    return family not in _EXACT or len(data) < least or _EXACT[family](data)


def decode(data: bytes) -> dict[str, str]:
    """Decodes an address. One of an unknown family, or too short for its family, has a `raw` value."""
    if len(data) < 2:
        return {"raw": data.hex()}
    family = struct.unpack_from("<H", data)[0]
    name = words.names_of("family").get(family, str(family))
    decoder, least = _DECODERS.get(family, (None, 0))
    if decoder is None or len(data) < least:
        return {"sa_family": name, "raw": data[2:].hex()}
    return {"sa_family": name, **decoder(data)}
