"""The main program of the helper process of trials: forks a child for each request, and watches over it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from toolkit.errors import SixpixelsError, UnavailableError, reason_of
from toolkit.quiet import settle_tensorflow
from toolkit.verifiers.trial import DIED, DONE, LATE, REFUSED, UNABLE

_LARGEST_REQUEST = 3 << 30
_PAGE = 4096


def main() -> None:
    """Answer requests until the other end closes the connection."""
    # Ctrl-C goes to all processes of a terminal. The connection's end stops this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle_tensorflow()
    link = Connection(int(sys.argv[1]))
    while True:
        try:
            header = json.loads(link.recv_bytes(_LARGEST_REQUEST))
            content = link.recv_bytes(_LARGEST_REQUEST)
            link.send_bytes(_answer(header, content, link))
        except (EOFError, OSError):
            return


def _answer(header: dict[str, Any], content: bytes, link: Connection) -> bytes:
    for name in (*header["modules"], header["module"]):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # the function itself says what is missing
    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        link.close()
        ours.close()
        _carry_out(header, content, theirs)
    theirs.close()
    try:
        ready = wait([ours, link], header["seconds"])
        answer = ours.recv_bytes() if ours in ready else LATE
    except EOFError:
        answer = b""
    finally:
        ours.close()
    if answer:  # the child may still be busy with its end, or hang
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer or DIED + (f"signal {-status}" if status < 0 else f"status {status}").encode()


def _carry_out(header: dict[str, Any], content: bytes, answers: Connection) -> None:
    """Run the function in the child. This never returns."""
    try:
        _limit(header["memory"])
        function = getattr(importlib.import_module(header["module"]), header["function"])
        answer = DONE + function(header["parameters"], content)
    except UnavailableError as error:
        answer = UNABLE + str(error).encode()
    except SixpixelsError as error:
        answer = REFUSED + str(error).encode()
    except MemoryError:
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - a child must never go on with its parent's program
        answer = REFUSED + f"a trial of this file failed ({type(error).__name__}: {reason_of(error)})".encode()
    answers.send_bytes(answer)
    os._exit(0)


def _limit(memory: int) -> None:
    """Limit the memory that this process may take beyond what it has, and forbid core dumps."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":  # other systems count address space in ways that make no useful limit
        return
    pages = [int(number) for number in Path("/proc/self/statm").read_text(encoding="ascii").split()]
    # Libraries reserve address space that they never use, so it gets twice as much.
    for kind, held, more in ((resource.RLIMIT_AS, pages[0], 2 * memory), (resource.RLIMIT_DATA, pages[5], memory)):
        limit, (_, hard) = held * _PAGE + more, resource.getrlimit(kind)
        # A user may have set a lower limit, which cannot be raised.
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    main()
