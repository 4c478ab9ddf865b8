"""Blocks of texts do to many what workers/decode/paths.py and `bytes` do to one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from headrace.workers.decode import paths
from headrace.workers.records import blocks

ALPHABET = b"\0\0/a.\xc3"
SOME_TEXTS = some.lists(some.lists(some.sampled_from(ALPHABET), max_size=20).map(bytes), max_size=12)


def block_of(texts: list[bytes]) -> blocks.Block:
    """As blobs lie in rows: each at a multiple of 8, with anything behind it."""
    data, starts = bytes(8), []
    for text in texts:
        starts.append(len(data))
        data += text + b"?" * (-len(text) % 8)
    sizes = [len(text) for text in texts]
    return blocks.gather(np.frombuffer(data, np.uint8), np.array(starts, np.int64), np.array(sizes, np.int64))


def is_sound(block: blocks.Block) -> bool:
    """Every text has a NUL before it and behind it."""
    return not block.data[block.begin - 1].any() and not block.data[block.begin + block.size].any()


@given(SOME_TEXTS)
def test_gathered(texts: list[bytes]) -> None:
    block = block_of(texts)
    assert block.texts() == texts
    assert is_sound(block)
    assert block.stripped.texts() == [text.rstrip(b"\0") for text in texts]
    assert block.is_ascii().tolist() == [text.isascii() for text in texts]


@given(SOME_TEXTS)
def test_walked_paths(texts: list[bytes]) -> None:
    found = blocks.walked(block_of(texts))
    assert found.texts() == [paths.walked(text) for text in texts]
    assert is_sound(found)


@given(SOME_TEXTS)
def test_paths_below_the_own_root(texts: list[bytes]) -> None:
    walked = [text.strip(b"\0") + b"\0" if text.strip(b"\0") else b"" for text in texts]
    found = blocks.walked(block_of(walked), np.ones(len(walked), bool))
    assert found.texts() == [paths.own_root(text + b"/\0", len(text) + 1) for text in walked]
    assert is_sound(found)


@given(SOME_TEXTS)
def test_vectors(texts: list[bytes]) -> None:
    block = block_of(texts)
    whole = [text.removesuffix(b"\0") for text in texts]
    assert blocks.spaced(block).texts() == [text.replace(b"\0", b" ") for text in whole]
    for number in range(4):
        found, has = blocks.element(block, number)
        parts = [split.split(b"\0") if text else [] for text, split in zip(texts, whole, strict=True)]
        assert has.tolist() == [number < len(part) for part in parts]
        assert found.texts() == [part[number] if number < len(part) else b"" for part in parts]
        assert is_sound(found)


@given(SOME_TEXTS)
def test_bytes_belong_to_the_text_that_they_are_in(texts: list[bytes]) -> None:
    block = blocks.walked(block_of(texts))
    for i, (begin, size) in enumerate(zip(block.begin.tolist(), block.size.tolist(), strict=True)):
        assert set(block.rows(np.arange(begin, begin + size + 1)).tolist()) == {i}
