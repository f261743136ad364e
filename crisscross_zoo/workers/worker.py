"""A worker process: reads a job and paths from standard input, writes the job's items to standard output, pickled.

Standard output carries "ready", then the items, and None after the last item of each file.

A file that crashes the decoder ends this process and nothing else. The process ends with its input and soon after its
parent, so that a killed parent leaves no worker behind, not even with a long file. Started by
:mod:`crisscross_zoo.workers.pool`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time

_WATCH_SECONDS = 0.2


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)  # prints must not go between the items

    with contextlib.suppress(EOFError, BrokenPipeError):
        job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the parent process
        if "torch" in sys.modules:  # not every job needs it
            sys.modules["torch"].set_num_threads(1)
        pickle.dump("ready", out)
        out.flush()
        while True:
            path = pickle.load(sys.stdin.buffer)  # noqa: S301
            for item in job(path):
                pickle.dump(item, out, protocol=5)
            pickle.dump(None, out)
            out.flush()


def _end_with(parent: int) -> None:
    """End this process soon after its parent; after the current file, on systems where orphans keep the parent's id."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
