"""Walked paths: what the kernel side carries leaf first, against pathlib and posixpath."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.workers.decode import paths

ROOT_NOT_MET = 0xFFFFFFFF
names = st.binary(min_size=1, max_size=8).filter(lambda b: not set(b) & {0, ord("/")} and b not in (b".", b".."))


def carried(path: bytes) -> bytes:
    """As the kernel side would carry an absolute path."""
    parts = [part for part in path.split(b"/") if part]
    return b"".join(part + b"\0" for part in [*reversed(parts), b"/"])


@given(st.lists(names, max_size=6))
def test_walked_paths_come_out_as_they_are_written(parts: list[bytes]) -> None:
    path = b"/" + b"/".join(parts)
    assert paths.walked(carried(path)) == path
    assert paths.walked(carried(path).rstrip(b"\0")) == path


def test_what_has_no_directory_stands_alone() -> None:
    assert paths.walked(b"memfd:x\0") == b"memfd:x"


@given(st.lists(names, max_size=4), st.lists(names, max_size=4))
def test_the_own_root_cuts_off_what_is_above_it(above: list[bytes], below: list[bytes]) -> None:
    data = carried(b"/" + b"/".join([*above, *below]))
    met = len(carried(b"/" + b"/".join(below))) - 2
    assert paths.own_root(data, met + 1) == b"/" + b"/".join(below)


def test_a_file_that_is_not_below_the_own_root_has_no_such_path() -> None:
    assert paths.own_root(carried(b"/a"), ROOT_NOT_MET) is None


@given(st.lists(names, max_size=4), st.lists(st.one_of(names, st.sampled_from([b"..", b".", b""])), max_size=6))
def test_relative_names_are_joined_as_posixpath_does(base: list[bytes], name: list[bytes]) -> None:
    directory, relative = b"/" + b"/".join(base), b"/".join(name).lstrip(b"/")
    expected = posixpath.normpath(posixpath.join(directory, relative))
    assert paths.joined(carried(directory), 0, relative) == (expected, expected)


@pytest.mark.parametrize(
    ("name", "path", "own"),
    [
        (b"x", b"/srv/jail/dir/x", b"/dir/x"),
        (b"../x", b"/srv/jail/x", b"/x"),
        (b"../../../x", b"/srv/jail/x", b"/x"),
        (b"", b"/srv/jail/dir", b"/dir"),
    ],
)
def test_dots_do_not_lead_above_the_own_root(name: bytes, path: bytes, own: bytes) -> None:
    data = carried(b"/srv/jail/dir")
    assert paths.joined(data, len(b"dir\0") + 1, name) == (path, own)


def test_an_absolute_name_starts_from_the_own_root() -> None:
    assert paths.joined(carried(b"/srv/jail"), 1, b"/../etc/passwd") == (b"/srv/jail/etc/passwd", b"/etc/passwd")
    assert paths.joined(carried(b"/"), 0, b"/etc//passwd") == (b"/etc/passwd", b"/etc/passwd")


def test_a_name_from_outside_of_the_own_root_has_no_path_in_it() -> None:
    assert paths.joined(carried(b"/outside"), ROOT_NOT_MET, b"x") == (b"/outside/x", None)


@given(st.binary(max_size=64), st.integers(0, 2**32 - 1), st.binary(max_size=64))
def test_any_bytes_make_a_path(base: bytes, whole: int, name: bytes) -> None:
    paths.walked(base)
    if whole:
        paths.own_root(base, whole)
    path, _ = paths.joined(base, whole, name)
    assert path.startswith(b"/")
