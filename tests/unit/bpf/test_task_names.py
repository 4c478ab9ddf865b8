"""Names of tasks end at their NUL, whatever an older kernel has left behind it: the C of bpf/c/kernel.h, compiled."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from headrace.bpf.programs.source import HERE
from tests.live import compile_c

PROGRAM = """
#include <stdio.h>
#include <string.h>
typedef unsigned long u64;
{parts}
int main(int argc, char **argv)
{{
	u64 words[2], open = ~0UL;
	fread(words, 1, 16, stdin);
	for (int i = 0; i < 2; i++)
		words[i] = up_to_nul(words[i], &open);
	fwrite(words, 1, 16, stdout);
	return 0;
}}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, text = tmp_path_factory.mktemp("names"), (HERE / "c/kernel.h").read_text()
    macros = re.findall(r"^#define (?:LESS|EQUAL)\(.*$", text, re.MULTILINE)
    function = re.search(r"static __always_inline (u64 up_to_nul\(.*?^\})", text, re.MULTILINE | re.DOTALL)
    assert len(macros) == 2
    assert function
    (folder / "names.c").write_text(PROGRAM.format(parts="\n".join((*macros, function[1]))))
    return compile_c(folder / "names.c", folder / "names")


@pytest.mark.parametrize(
    "name",
    [
        b"sh\0hon\0e\0ot",
        b"",
        b"\0left\0behind\0all",
        b"a",
        b"eight888\0behind",
        b"seven77\0behind",
        b"nine99999\0behind",
        b"fifteen-letters",
        b"\x80\xff\x01\0\x01\x80\x7f\xff",
        b"\x01\x01\x01\x01\x01\x01\x01\x01\x80",
        b"\0\x01\x01\x01",
    ],
)
def test_a_name_ends_at_its_nul(program: Path, name: bytes) -> None:
    done = subprocess.run([program], input=name.ljust(16, b"\0"), capture_output=True, check=True)
    assert done.stdout == name.split(b"\0")[0].ljust(16, b"\0")
