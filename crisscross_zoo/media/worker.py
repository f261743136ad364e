"""A process that decodes files: paths come in on standard input, clips go out on standard output, pickled.

A file that crashes the decoder takes this process down and nothing else. It ends when its input does, so that none
is left behind when the parent is killed. Started by :mod:`crisscross_zoo.media.pool`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)  # whatever prints must not print into the clips

    import torch

    from crisscross_zoo.media.clips import file_news

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        sampling = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the parent process
        while True:
            path = pickle.load(sys.stdin.buffer)  # noqa: S301
            for news in file_news(path, sampling):
                pickle.dump(news, out, protocol=5)
            out.flush()


if __name__ == "__main__":
    main()
