"""The main program of a worker process: reads jobs from standard input, writes artifacts to standard output."""

from __future__ import annotations

import os
import signal
import sys

from toolkit.audit.workers.processes import DONE, REFUSED, UNABLE, receive, send
from toolkit.audit.workers.workbench import Workbench
from toolkit.errors import InputError, SixpixelsError


def main() -> None:
    """Run jobs until standard input ends."""
    # Ctrl-C goes to all processes of a terminal, but only the audit may stop its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Send everything that libraries print to standard error, so that it does not mix with the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    bench = Workbench()
    while True:
        try:
            packed = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = DONE + bench.run(packed)
        except InputError as error:
            answer = REFUSED + str(error).encode()
        except SixpixelsError as error:
            answer = UNABLE + str(error).encode()
        try:
            send(answers, answer)
        except OSError:  # the audit has stopped
            return


if __name__ == "__main__":
    main()
