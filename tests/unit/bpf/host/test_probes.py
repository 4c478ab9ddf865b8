"""What is found out about a host by reading."""

from __future__ import annotations

from pathlib import Path

from headrace.bpf.host.probes import functions_named, record_fields

SYMBOLS = """ffffffff81000000 T security_bpf
ffffffff81000100 t load_elf_phdrs
ffffffff81000200 t load_elf_phdrs
ffffffff81000300 d vfs_read
ffffffff81000400 T vfs_read
ffffffff81000500 t lost [some_module]
"""
FORMAT = """name: sched_process_fork
ID: 310
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\tsigned:0;
\tfield:char newcomm[16];\toffset:28;\tsize:16;\tsigned:0;
\tfield:const struct user_namespace * capable_ns;\toffset:24;\tsize:8;\tsigned:0;
"""


def test_functions_that_share_a_name_are_told_by_their_addresses(tmp_path: Path) -> None:
    (tmp_path / "symbols").write_text(SYMBOLS)
    names = ("security_bpf", "load_elf_phdrs", "vfs_read", "absent")
    assert functions_named(names, tmp_path / "symbols") == {
        "security_bpf": ["security_bpf"],
        "load_elf_phdrs": [0xFFFFFFFF81000100, 0xFFFFFFFF81000200],
        "vfs_read": ["vfs_read"],
        "absent": ["absent"],
    }


def test_addresses_that_are_hidden_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "symbols").write_text("0000000000000000 t load_elf_phdrs\n" * 2)
    assert functions_named(["load_elf_phdrs"], tmp_path / "symbols") == {"load_elf_phdrs": ["load_elf_phdrs"]}
    assert functions_named(["load_elf_phdrs"], tmp_path / "none") == {"load_elf_phdrs": ["load_elf_phdrs"]}


def test_fields_of_a_record_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(FORMAT)
    assert record_fields(tmp_path) == {"common_type": 0, "parent_comm": 8, "newcomm": 28, "capable_ns": 24}
