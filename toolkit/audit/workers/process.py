"""What a worker process runs: jobs from standard input, artifacts to what was standard output when it began."""

from __future__ import annotations

import os
import signal
import sys

from toolkit.audit.jobs import Workbench
from toolkit.audit.workers.processes import DONE, REFUSED, UNABLE, receive, send
from toolkit.errors import InputError, SixpixelsError


def main() -> None:
    """Carry out jobs until nobody gives any more."""
    # Ctrl-C goes to all processes of a terminal; the audit decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever libraries print must not come between the answers.
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
        except OSError:  # the audit was stopped meanwhile
            return


if __name__ == "__main__":
    main()
