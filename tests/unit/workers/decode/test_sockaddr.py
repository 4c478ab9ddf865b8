"""Socket addresses: packed with `socket` and `struct`, and any bytes."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.workers.decode.sockaddr import decode, is_exact

UN, IN, IN6, NL, LL = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET


def family(number: int) -> bytes:
    return struct.pack("=H", number)


def test_a_unix_path_ends_at_its_nul() -> None:
    data = family(UN) + b"/run/x\0leftover"
    assert decode(data) == {"sa_family": "AF_UNIX", "sun_path": "/run/x"}


def test_a_unix_path_may_fill_its_room_without_a_nul() -> None:
    data = family(UN) + b"p" * 108
    assert decode(data)["sun_path"] == "p" * 108


def test_an_abstract_name_begins_with_an_at_sign_and_keeps_its_nuls() -> None:
    assert decode(family(UN) + b"\0name")["sun_path"] == "@name"
    assert decode(family(UN) + b"\0a\0b")["sun_path"] == "@a\0b"


def test_an_unnamed_unix_socket_has_an_empty_path() -> None:
    assert decode(family(UN)) == {"sa_family": "AF_UNIX", "sun_path": ""}


def test_a_mapped_address_is_written_as_ipv4_is() -> None:
    data = family(IN6) + struct.pack("!HI", 9, 0) + socket.inet_pton(IN6, "::ffff:127.0.0.1") + bytes(4)
    assert decode(data)["sin6_addr"] == socket.inet_ntop(IN6, data[8:24]) == "::ffff:127.0.0.1"


ALPHABET = st.sampled_from([*family(UN), *family(IN), *family(NL), *family(LL), *b"\0\0@ab\xc3\xa9\xff"])


@given(*[st.lists(ALPHABET, max_size=6).map(bytes)] * 2, st.sampled_from([UN, IN, IN6, NL, LL]), st.integers(0, 29))
def test_exact_addresses_that_differ_are_shown_differently(one: bytes, two: bytes, kind: int, room: int) -> None:
    one, two = (family(kind) + part + bytes(max(0, room - len(part))) for part in (one, two))
    if one != two and is_exact(one) and is_exact(two):
        assert decode(one) != decode(two)


@pytest.mark.parametrize(
    ("data", "exact"),
    [
        (family(UN), True),
        (family(UN) + b"/run/x\0", True),
        (family(UN) + b"/run/x", False),
        (family(UN) + b"/run/x\0y", False),
        (family(UN) + b"@x\0", False),
        (family(UN) + b"\0x", True),
        (family(UN) + b"/\xff\0", False),
        (family(IN) + bytes(14), True),
        (family(IN) + bytes(13) + b"x", False),
        (family(NL) + b"\1" + bytes(9), False),
        (family(99) + b"anything", True),
    ],
)
def test_it_is_known_whether_a_map_says_all_bytes(data: bytes, exact: bool) -> None:
    assert is_exact(data) is exact


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert decode(family(UN) + b"/\xff")["sun_path"] == "/\\xff"


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 9), ("255.255.255.255", 65535), ("0.0.0.0", 0)])
def test_inet(address: str, port: int) -> None:
    data = family(IN) + struct.pack("!H", port) + socket.inet_pton(IN, address) + bytes(8)
    assert decode(data) == {"sa_family": "AF_INET", "sin_port": str(port), "sin_addr": address}


def test_inet_without_its_padding_is_complete() -> None:
    assert decode(family(IN) + b"\0\x50" + bytes([10, 0, 0, 1]))["sin_addr"] == "10.0.0.1"


@pytest.mark.parametrize("address", ["::1", "fe80::1", "2001:db8::ff00:42:8329", "::"])
def test_inet6(address: str) -> None:
    data = family(IN6) + struct.pack("!HI", 443, 5) + socket.inet_pton(IN6, address) + struct.pack("=I", 3)
    assert decode(data) == {
        "sa_family": "AF_INET6",
        "sin6_port": "443",
        "sin6_flowinfo": "5",
        "sin6_addr": address,
        "sin6_scopeid": "3",
    }


def test_inet6_of_the_old_length_has_no_scope() -> None:
    # SIN6_LEN_RFC2133: the kernel takes 24 bytes
    data = family(IN6) + struct.pack("!HI", 1, 0) + socket.inet_pton(IN6, "::1")
    assert decode(data)["sin6_scopeid"] == "0"


def test_netlink() -> None:
    data = family(NL) + struct.pack("=HII", 0, 4711, 0x80000001)
    assert decode(data) == {"sa_family": "AF_NETLINK", "nl_pid": "4711", "nl_groups": "0x80000001"}


def test_packet() -> None:
    # struct sockaddr_ll, linux/if_packet.h
    address = bytes.fromhex("0202030405060000")
    data = family(LL) + struct.pack("!H", 0x0800) + struct.pack("=iHBB8s", 2, 1, 4, 6, address)
    assert decode(data) == {
        "sa_family": "AF_PACKET",
        "sll_protocol": "0x800",
        "sll_ifindex": "2",
        "sll_hatype": "1",
        "sll_pkttype": "4",
        "sll_addr": "02:02:03:04:05:06",
    }


def test_a_hardware_address_is_no_longer_than_it_says_it_has_room_for() -> None:
    data = family(LL) + struct.pack("!H", 3) + struct.pack("=iHBB8s", 1, 1, 0, 255, b"\1\2\3\4\5\6\7\x08")
    assert decode(data + b"more")["sll_addr"] == "01:02:03:04:05:06:07:08"


def test_other_families_are_shown_raw_by_name_or_number() -> None:
    assert decode(family(socket.AF_VSOCK) + b"\1\2") == {"sa_family": "AF_VSOCK", "raw": "0102"}
    assert decode(family(999) + b"\xff") == {"sa_family": "999", "raw": "ff"}
    assert decode(family(0)) == {"sa_family": "AF_UNSPEC", "raw": ""}


@pytest.mark.parametrize(("number", "least"), [(IN, 8), (IN6, 24), (NL, 12), (LL, 12)])
def test_an_address_too_short_for_its_family_is_shown_raw(number: int, least: int) -> None:
    whole = family(number) + bytes(range(1, 40))
    for length in range(2, least):
        assert decode(whole[:length]).keys() == {"sa_family", "raw"}
        assert decode(whole[:length])["raw"] == whole[2:length].hex()
    assert "raw" not in decode(whole[:least])


@pytest.mark.parametrize("data", [b"", b"\x02"])
def test_less_than_a_family_is_raw(data: bytes) -> None:
    assert decode(data) == {"raw": data.hex()}


@given(st.binary(max_size=130) | st.tuples(st.sampled_from([UN, IN, IN6, NL, LL]), st.binary(max_size=128)).map(
    lambda t: family(t[0]) + t[1]
))  # fmt: skip
def test_any_bytes_are_a_map_of_text(data: bytes) -> None:
    found = decode(data)
    assert found
    assert all(isinstance(value.encode(), bytes) for value in found.values())
