"""Names of users come from files alone, and what only others know is unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.workers.enrich import users
from headrace.workers.enrich.users import Users

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:\nother:x:33:33::/:\nbroken\n:x:x:\n"


def made(tmp_path: Path, sources: str | None = "passwd: files systemd\n") -> Users:
    (tmp_path / "passwd").write_text(PASSWD)
    if sources is not None:
        (tmp_path / "nsswitch").write_text(sources)
    return Users(tmp_path / "passwd", tmp_path / "nsswitch")


def test_users_have_their_names_and_others_their_numbers(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert [found.name(uid) for uid in (0, 33, 7, 2**32 - 1)] == ["root", "www-data", "7", "4294967295"]
    assert made(tmp_path, None).name(7) == "7"


@pytest.mark.parametrize("line", ["passwd: files sss", "passwd:\tfiles [!UNAVAIL=return] ldap", " passwd : db sss #"])
def test_what_a_directory_service_may_know_is_unknown(tmp_path: Path, line: str) -> None:
    found = made(tmp_path, f"group: files\n{line}\n")
    assert [found.name(uid) for uid in (0, 7)] == ["root", None]


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "LOOK_S", 0.0)
    found = made(tmp_path)
    assert found.name(44) == "44"
    (tmp_path / "passwd").write_text("video:x:44:44::/:\n")
    os.utime(tmp_path / "passwd", ns=(1, 1))
    assert (found.name(44), found.name(0)) == ("video", "0")
