"""`python -m pipeline`, as which the command `headrace` runs. Ctrl-C has no traceback, during imports neither."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from pipeline.process import imports  # noqa: E402

with imports.quick():
    from pipeline.command.cli import main
    from pipeline.process import signals

signal.signal(signal.SIGINT, signal.SIG_IGN if signals.is_ignored(signal.SIGINT) else signal.default_int_handler)
main(prog_name="headrace")
