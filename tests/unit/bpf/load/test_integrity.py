"""What is known of the kernel's symbols, and what is read of ftrace's list."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bpf.host.symbols import HIDDEN, KERNEL, SymbolPlace, Symbols
from headrace.bpf.load import integrity

TEXT = b"""ffffffff81000000 T _stext
ffffffff81000100 T __x64_sys_read
ffffffff81000200 t helper
ffffffff81001000 T _etext
ffffffff82000000 D sys_call_table
0000000000000000 D mod_tree
ffffffffc0000010 t begin\t[loaded]
ffffffffc0000080 t other\t[loaded]
"""
KERNEL_TEXT = range(0xFFFFFFFF81000000, 0xFFFFFFFF81001000)
LOADED = [(0xFFFFFFFFC0000000, 0x1000, "loaded")]


def test_names_have_addresses_unless_those_are_hidden() -> None:
    found = Symbols(TEXT).addresses(("sys_call_table", "mod_tree", "none", "begin"))
    assert found == {"sys_call_table": 0xFFFFFFFF82000000}


def test_a_table_ends_where_the_next_symbol_begins() -> None:
    assert Symbols(TEXT).size("_stext") == 0x100
    assert Symbols(TEXT).size("none") == 0


def test_functions_are_found_by_their_whole_name() -> None:
    assert Symbols(TEXT).functions(integrity.CALL_FUNCTION) == {0xFFFFFFFF81000100}


def test_an_address_is_the_kernels_a_modules_or_nobodys() -> None:
    symbols = Symbols(TEXT)
    assert symbols.place(0xFFFFFFFF81000208, KERNEL_TEXT, LOADED) == SymbolPlace("helper", 8, KERNEL)
    assert symbols.place(0xFFFFFFFFC0000090, KERNEL_TEXT, LOADED) == SymbolPlace("other", 0x10, "loaded")
    assert symbols.place(0xFFFFFFFFC0000000, KERNEL_TEXT, LOADED) == SymbolPlace("", 0, "loaded")
    assert symbols.place(0xFFFFFFFFC0000090, KERNEL_TEXT, []) == SymbolPlace("", 0, HIDDEN)
    assert symbols.place(0x1000, KERNEL_TEXT, LOADED) == SymbolPlace("", 0, HIDDEN)


def test_what_cannot_be_looked_at_has_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("sys_call_table", "ia32_sys_call_table")
    all_there = dict.fromkeys((*integrity.TEXT, names[1]), 1)
    assert integrity.lack(names, all_there, True) == ""
    assert "CONFIG_KALLSYMS_ALL" in integrity.lack(names, dict.fromkeys(integrity.TEXT, 1), True)
    assert "kptr_restrict" in integrity.lack(names, {}, True)
    monkeypatch.setattr(integrity.probes, "tracefs", lambda: tmp_path)
    assert integrity.lack(("enabled_functions",), {}, True) == "enabled_functions of tracefs: No such file or directory"
    assert "no modules" in integrity.lack(("modules",), all_there, False)


def test_lines_of_ftrace_are_taken_apart() -> None:
    plain = integrity.ENTRY.match("do_exit (2) R I")
    assert plain
    assert (plain["symbol"], plain["count"], plain["flags"].split(), plain["callback"]) == (
        "do_exit",
        "2",
        ["R", "I"],
        None,
    )
    line = "__x64_sys_kill (1) R I  \ttramp: 0xffffffffc0a2f000 (thunk+0x10/0x40 [bad]) ->assist+0x0/0x9"
    hooked = integrity.ENTRY.match(line)
    assert hooked
    assert (hooked["trampoline"], hooked["callback"], hooked["offset"], hooked["owner"]) == (
        "0xffffffffc0a2f000",
        "thunk",
        "0x10",
        "bad",
    )
