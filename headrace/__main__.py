"""`python -m headrace`, as which the command `headrace` runs. Ctrl-C has no traceback, during imports neither."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from headrace.pipeline.process import imports  # noqa: E402

with imports.quick():
    from headrace.pipeline.command.cli import main
    from headrace.pipeline.process import signals

signal.signal(signal.SIGINT, signal.SIG_IGN if signals.is_ignored(signal.SIGINT) else signal.default_int_handler)
main(prog_name="headrace")
