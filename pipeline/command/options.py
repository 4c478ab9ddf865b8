"""Options shared by several commands: what to trace, and where events and findings go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from headrace.bpf.tables.catalogue import CHECKS
from headrace.config.layers import profiles
from headrace.config.rules import SEVERITIES
from headrace.config.settings import fields_of_settings
from headrace.pipeline.command.resolve import Duration
from headrace.pipeline.process import logs
from headrace.pipeline.shell import complete
from headrace.pipeline.shell.groups import btf_option

Decorator = Callable[[Any], Any]


def _all_of(options: Sequence[Decorator]) -> Decorator:
    """Combine several option decorators. The help shows them in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


sigma_option = click.option("--sigma", multiple=True, metavar="PATH", help="Load Sigma rules from a file or folder.")
_signature_options = (
    click.option("--signatures", multiple=True, metavar="PATH", help="Load more signatures from a file or folder."),
    sigma_option,
    click.option(
        "--rules",
        multiple=True,
        shell_complete=complete.signatures,
        metavar="WHICH",
        help="Use only these signatures: ids, globs, tag=NAME or level=NAME.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        shell_complete=complete.signatures,
        metavar="WHICH",
        help="Exclude these signatures.",
    ),
    click.option(
        "--min-severity", type=click.Choice(SEVERITIES), help="Use only signatures of this severity or higher."
    ),
    click.option(
        "--exceptions",
        metavar="FILE",
        help="Exceptions: when a signature does not apply (docs/reference/signatures.md).",
    ),
)
signature_options = _all_of(_signature_options)
"""Options that select signatures, for `run`, `replay` and `analyze`."""
output_options = _all_of(
    (
        click.option(
            "-o",
            "--output",
            multiple=True,
            shell_complete=complete.outputs,
            metavar="SPEC",
            help="Where events go: table:-, json:FILE, none, zmq:ENDPOINT. Repeatable.",
        ),
        click.option(
            "--findings",
            multiple=True,
            shell_complete=complete.outputs,
            metavar="SPEC",
            help="Where findings go: table:-, json:FILE, falco:FILE, tracee:FILE, none, zmq:ENDPOINT.",
        ),
        *_signature_options,
        click.option(
            "--sigma-keywords/--no-sigma-keywords", default=None, help="Match Sigma keywords against command lines."
        ),
        click.option(
            "--fold",
            "fold_s",
            type=int,
            metavar="SECONDS",
            help="Report repeats of a finding as one, for this long. 0 disables it. Default: 60.",
        ),
        click.option(
            "--before",
            "before_s",
            type=float,
            metavar="SECONDS",
            help="Include what the process did in the SECONDS before each finding.",
        ),
        click.option(
            "-e",
            "--events",
            multiple=True,
            shell_complete=complete.events,
            metavar="LIST",
            help="Events to trace: names, sets, globs, !name, conditions.",
        ),
        click.option(
            "--policy",
            multiple=True,
            metavar="PATH",
            help="Trace what the policies in a file or folder ask for, also those of Tracee. Repeatable.",
        ),
        click.option(
            "--parse-arguments/--no-parse-arguments", default=None, help="Show flags and commands as names (default)."
        ),
        click.option(
            "--relative-time/--no-relative-time", default=None, help="Show times relative to the start of the run."
        ),
        click.option(
            "--stack-addresses/--no-stack-addresses",
            default=None,
            help="Record the caller's stack, as far as frame pointers allow.",
        ),
        click.option("--workers", type=int, metavar="N", help="Number of worker processes (1 to 64)."),
        click.option("--ring-bytes", type=int, metavar="N", help="Size of each worker's ring buffer."),
        click.option("--ledger", metavar="FILE", help="Write the ledger to FILE as JSON when the run ends."),
        click.option("-q", "--quiet", is_flag=True, help="Do not tell what the run does, and print no ledger."),
        click.option("-v", "--verbose", is_flag=True, default=None, help="Tables show all arguments of every event."),
        click.option("--log-level", type=click.Choice(logs.LEVELS), help="Log level. Default: warning."),
        click.option(
            "-c", "--config", type=click.Path(path_type=Path), metavar="FILE", help="Read settings from a YAML file."
        ),
        click.option("--profile", default="", metavar="NAME", help=f"Start from a profile: {', '.join(profiles())}."),
    )
)
"""Options of `run` and `replay`."""
trace_options = _all_of(
    (
        click.option(
            "-s",
            "--scope",
            "--trace",
            "scope",
            multiple=True,
            shell_complete=complete.scopes,
            metavar="EXPR",
            help="Trace only what matches EXPR. Repeatable; all must match.",
        ),
        click.option(
            "-p",
            "--pid",
            "pids",
            multiple=True,
            shell_complete=complete.pids,
            metavar="PID[,PID]|FORMAT",
            help="Trace these processes. Or a format of lines: '%{time} %{comm} %{args.pathname}'.",
        ),
        click.option(
            "--duration", type=Duration(), metavar="TIME", help="Stop after this time: seconds, or 500ms, 5m, 1h."
        ),
        click.option(
            "--count",
            type=click.IntRange(1),
            metavar="N",
            help="Stop when each output has N lines (table, story, json, none).",
        ),
        btf_option,
        click.option("--record", metavar="FILE", help="Also record the run to FILE, for `headrace replay`."),
        click.option("--containers/--no-containers", default=None, help="Ask container runtimes for names and images."),
        click.option(
            "--crs",
            multiple=True,
            metavar="RUNTIME:SOCKET",
            help="Socket of a runtime: docker, containerd, crio or podman. Repeatable.",
        ),
        click.option(
            "--container-label",
            "container_labels",
            multiple=True,
            metavar="GLOB",
            help="Add matching container labels to events. Repeatable.",
        ),
        click.option("--cache", metavar="FOLDER", help="Folder for compiled programs; '' disables the cache."),
        click.option("--perf-pages", type=int, metavar="N", help="Perf buffer per CPU, in pages (a power of two)."),
        click.option(
            "--exec-env/--no-exec-env", "exec_environment", default=None, help="Add the environment to exec events."
        ),
        click.option(
            "--exec-hash/--no-exec-hash", default=None, help="Add the SHA-256 of the executable to exec events."
        ),
        click.option(
            "--exec-hash-remote", is_flag=True, default=None, help="Also hash files on FUSE and network file systems."
        ),
        click.option(
            "--fd-paths/--no-fd-paths", default=None, help="Show the file behind each descriptor: 3=/etc/passwd."
        ),
        click.option(
            "--capture-bytes", type=int, metavar="N", help="Capture the first N bytes of data read and written."
        ),
        click.option(
            "--capture",
            multiple=True,
            metavar="KIND",
            help="Keep artifacts: exec, write, write=GLOB, write.type=elf, module, bpf, mem. Repeatable.",
        ),
        click.option("--capture-dir", metavar="DIR", help="Directory for artifacts."),
        click.option("--capture-limit-mb", type=int, metavar="MB", help="Limit of that directory. Default: 1024."),
        click.option(
            "--kernel-checks",
            type=click.Choice(CHECKS),
            help="What kprobes on security checks report: nothing; what no call does, such as files of io_uring or "
            "of the kernel; or everything, before its result. Default: rest.",
        ),
        click.option(
            "--interval-ms", type=int, metavar="N", help="Longest time an event may wait in the kernel, in ms."
        ),
        click.option("--order-bound-ms", type=int, metavar="N", help="Longest time to wait for earlier events, in ms."),
        click.option(
            "--ready-fd", type=int, metavar="N", help="Write one byte to this descriptor when tracing is active."
        ),
    )
)
"""Options of `run` only."""
WITHOUT_OPTION = {
    "urgent_pages": "Perf buffer per CPU for urgent events, in pages (a power of two).",
    "result_bytes": "Size of the ring buffer for each worker's results, in bytes.",
    "integrity_s": "Seconds between two checks of the kernel's own tables.",
    "detect_syscall": "Show the system call that an event belongs to, in the field `syscall`.",
}
"""Settings that have no option of their own, and what they do."""


def by_setting() -> dict[str, click.Option]:
    """The options of `run` and `replay`, by the setting that they set."""

    @output_options
    @trace_options
    def takes_all() -> None:
        """Has every option."""

    params: list[click.Parameter] = vars(takes_all)["__click_params__"]
    return {option.name: option for option in params if isinstance(option, click.Option) and option.name}


def meanings() -> dict[str, str]:
    """What each setting means, in a sentence."""
    helps = by_setting()
    return {
        key: ((helps[key].help or "") if key in helps else WITHOUT_OPTION[key]).partition(" Default:")[0]
        for key in fields_of_settings()
    }
