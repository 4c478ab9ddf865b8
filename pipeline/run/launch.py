"""Launcher of the traced command: waits until tracing is armed, then executes the command.

    python -I -S launch.py READY_FD GO_FD IGNORED PATH COMMAND [ARG...]

IGNORED is the hex mask of the signals that were ignored when headrace started. The command inherits these as ignored
and all others with the default action, because Python and the supervisor change some dispositions.

The supervisor runs this script. Its own activity is not traced: tracing begins with its exec of the command. Exit
status 127 if the command does not exist, 126 if it cannot be executed.
"""

import errno
import os
import signal
import sys


def main() -> None:
    """Report readiness, wait for a byte, then exec. On end of file instead of a byte, exit with status 0."""
    ready, go, ignored, command = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 16), sys.argv[4:]
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if ignored >> (number - 1) & 1 else signal.SIG_DFL)
    os.write(ready, b"x")
    os.close(ready)
    if not os.read(go, 1):
        os._exit(0)
    os.close(go)
    try:
        os.execv(command[0], command[1:])
    except OSError as error:
        sys.stderr.write(f"headrace: {command[1]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126)


if __name__ == "__main__":
    main()
