"""Base class of command groups: errors with an exit status, suggestions, and open standard descriptors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from headrace.bpf.host.btf import EXTERNAL
from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.printable import escaped
from headrace.pipeline.process.failure import EX_USAGE, SIGINT_STATUS, SIGPIPE_STATUS, Failure, say

CLOSED: set[int] = set()
"""Standard descriptors that were closed when headrace started."""


def _hold_standard_descriptors() -> None:
    """Open /dev/null in place of closed standard descriptors. Otherwise other files would get their numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            CLOSED.add(os.open(os.devnull, os.O_RDWR))
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  (they stay open)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


@contextlib.contextmanager
def _quoting() -> Iterator[None]:
    """Escape click's error messages, which quote the command line verbatim."""
    try:
        yield
    except click.ClickException as error:
        if not isinstance(error, (Failure, click.exceptions.NoArgsIsHelpError)):
            vars(error).update(message=escaped(error.message))
        raise


class Suggesting(click.Group):
    """A group that suggests the command that was probably meant."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _quoting():
            return super().make_context(*args, **extra)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command. An OSError, such as a failed write to standard output, ends it with status EX_IOERR."""
        _hold_standard_descriptors()
        try:
            return super().main(*args, **extra)
        except OSError as error:
            with contextlib.suppress(OSError):
                what = os.fsdecode(error.filename) if error.filename else "standard output"
                say(f"headrace: {what}: {error.strerror}", err=True)
            os._exit(os.EX_IOERR)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command. A closed pipe ends it with SIGPIPE_STATUS, Ctrl-C with SIGINT_STATUS."""
        try:
            with _quoting():
                return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(SIGPIPE_STATUS) from None
        except KeyboardInterrupt:
            raise SystemExit(SIGINT_STATUS) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and self.get_command(ctx, name) is None:
            raise Failure(f"no such command: {name}" + did_you_mean(name, self.list_commands(ctx)), EX_USAGE)
        return super().resolve_command(ctx, args)


class RunCommand(click.Command):
    """`run`. A `--` that nothing follows is an error: the whole host would be traced instead of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[-1] == "--":
            raise Failure("nothing follows --: there is no command to trace", EX_USAGE)
        return super().parse_args(ctx, args)


def _use_btf(_context: click.Context, _option: click.Parameter, path: str | None) -> None:
    if path:
        os.environ[EXTERNAL] = path


btf_option = click.option(
    "--btf",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    expose_value=False,
    is_eager=True,
    callback=_use_btf,
    help=f"BTF file, for a kernel that was built without BTF (or {EXTERNAL}).",
)
