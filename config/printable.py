"""Text for people that cannot move the cursor, start a line, or hide the text around it.

    escaped   text with every unsafe character written out: \\x1b, \\u202e, \\U000e0001; an invalid UTF-8 byte as \\xff
    quoted    a value among others: bare if it contains nothing ambiguous, otherwise in double quotes

Different values have different quoted forms, and `unquoted` restores them.
"""

from __future__ import annotations

import re

INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
"""Characters that are printable by category but invisible (Default_Ignorable_Code_Point, and a blank)."""


_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_BARE = re.compile(r"[^\s,\"'`\[\]{}<>\\]+")
_ESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([\\"]))')
CUT = "..."


def decoded(text: str | bytes) -> str:
    """Bytes as text. Bytes that are not UTF-8 become lone surrogates, as in os.fsdecode()."""
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text


def _is_safe(text: str) -> bool:
    return text.isprintable() and not _INVISIBLE.search(text)


def _written(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def escaped(text: str | bytes) -> str:
    """Text on one line, for a message. Printable characters are unchanged."""
    text = decoded(text)
    return text if _is_safe(text) else "".join(c if _is_safe(c) else _written(c) for c in text)


def quoted(text: str | bytes) -> str:
    """A value among others, quoted if necessary."""
    text = decoded(text)
    if _BARE.fullmatch(text) and not text.endswith(CUT) and _is_safe(text):
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def unquoted(shown: str) -> bytes:
    """The bytes of a value that `quoted` wrote. A value that was a str is returned as UTF-8."""
    if not shown.startswith('"'):
        return shown.encode()
    found = bytearray()
    at, inner = 0, shown[1:-1]
    for escape in _ESCAPE.finditer(inner):
        found += inner[at : escape.start()].encode()
        byte, short, long, char = escape.groups()
        if byte:
            found += bytes.fromhex(byte)
        else:
            found += (char or chr(int(short or long, 16))).encode("utf-8", "surrogatepass")
        at = escape.end()
    return bytes(found + inner[at:].encode())
