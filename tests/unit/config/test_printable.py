"""Text for people cannot be taken for other text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.printable import escaped, quoted, unquoted

HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(" ,\"'\\[]{}<>=.\n\r\x1b\x85\u2028\u202a\u202e\u2066\u2069\u200b\u061c\ufeff\U000e0041"),
    ),
    max_size=20,
)


@given(st.one_of(st.binary(max_size=30), HOSTILE.map(lambda s: s.encode("utf-8", "surrogatepass"))))
def test_a_quoted_value_is_read_back(data: bytes) -> None:
    shown = quoted(data)
    assert unquoted(shown) == data
    assert shown.isprintable()
    assert shown[0] == '"' or not set(shown) & set(" ,\"'[]{}<>\\")


@given(HOSTILE)
def test_what_is_escaped_is_one_line_that_reads_in_one_direction(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/usr/bin/cat", "/usr/bin/cat"),
        ("", '""'),
        ("a, b", '"a, b"'),
        ("<exec>", '"<exec>"'),
        ("a...", '"a..."'),
        ('say "x"', '"say \\"x\\""'),
        ("C:\\x", '"C:\\\\x"'),
        (b"\xff\x1b", '"\\xff\\x1b"'),
        ("a\u202eb", '"a\\u202eb"'),
        ("caf\u00e9", "caf\u00e9"),
        ("\u3164", '"\\u3164"'),
        ("\U000e0041", '"\\U000e0041"'),
    ],
)
def test_values_are_bare_where_nothing_can_be_mistaken(value: str | bytes, shown: str) -> None:
    assert quoted(value) == shown
