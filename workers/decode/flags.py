"""Maps each argument to the parser that renders its number as words. For calls, `bpf/tables/arguments.txt` selects the
parser; for other events, PARSERS does.

Every output also contains the raw value.
"""

from __future__ import annotations

from functools import cache, partial

from headrace.bpf.tables import shown
from headrace.bpf.tables.errors import ERRNO
from headrace.workers.decode import composed, tables
from headrace.workers.decode.composed import COMPOSED
from headrace.workers.decode.numbers import LOW, Parser, flagged, named


def _low(parser: Parser, raw: int) -> str:
    return parser(raw & LOW)


@cache
def parser_from(how: str) -> Parser:
    """The parser for `=TABLE`, `|TABLE` or `:PARSER` (bpf/tables/arguments.txt). Raises KeyError if there is none."""
    mark, table = how[0], how[1:].removesuffix("/32")
    parser = named(table) if mark == "=" else flagged(table) if mark == "|" else COMPOSED[table]
    return partial(_low, parser) if how.endswith("/32") else parser


def error_name(retval: int) -> str | None:
    """Name of the error in a return value; None if it is not a known error."""
    return ERRNO.get(-retval) if -4096 < retval < 0 else None


PARSERS: dict[tuple[str, str], Parser] = {
    (event, argument): parser_from(how)
    for line in """security_file_open flags :open_flags
        security_bpf cmd =bpf_cmd
        cap_capable cap =capability
        security_mmap_file,security_file_mprotect,mem_prot_alert,do_mmap prot |prot
        mem_prot_alert prev_prot |prot
        security_mmap_file,do_mmap mmap_flags :mmap_flags
        security_mmap_file,shared_object_loaded,do_mmap flags :open_flags
        io_uring_submit opcode =uring_op
        io_uring_create flags |uring_setup
        security_socket_create family =family
        security_socket_create type :socket_type
        security_socket_setsockopt level =level
        security_sb_mount flags :mount_flags
        security_sb_umount flags |umount""".splitlines()
    for events, argument, how in [line.split()]
    for event in events.split(",")
} | {("mem_prot_alert", "alert"): lambda raw: tables.ALERT.get(raw, str(raw))}
"""Parsers for arguments of events that are not calls."""
TYPE_PARSERS: dict[str, Parser] = {"mode_t": composed.mode, "umode_t": composed.mode}
NAME_PARSERS: dict[str, Parser] = dict.fromkeys(("dirfd", "olddirfd", "newdirfd", "from_dfd", "to_dfd"), composed.dirfd)


@cache
def parser_of(event: str, argument: str, kind: str) -> Parser | None:
    """The parser of an argument; None if it is shown as a plain number or if a command decides."""
    if (event, argument) in PARSERS:
        return PARSERS[event, argument]
    how = shown.of(event, argument, kind)
    if how is not None:
        return parser_from(how.words) if how.words else None
    return TYPE_PARSERS.get(kind) or NAME_PARSERS.get(argument)


@cache
def parser_by_command(event: str, argument: str, command: int) -> Parser | None:
    """The parser of an argument for one (masked) value of its command argument, or None."""
    commands = shown.commands_of(event)
    how = commands.by_value.get(command, {}).get(argument) if commands else None
    return parser_from(how.words) if how and how.words else None
