"""With this folder on PYTHONPATH the package, and nothing else, is run as if on Windows; child processes too.

Its modules cannot import what Windows has not (``resource``, ``fcntl``), and find no more in ``os``, ``signal`` and
``sys`` than there is on Windows. Paths are still those of the system that it runs on.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

PACKAGE = "crisscross_zoo"

MODULES = """
crypt curses fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty
_curses _posixshmem _posixsubprocess
"""
OS = """
chflags chown chroot confstr copy_file_range ctermid environb eventfd eventfd_read eventfd_write fchdir fchmod fchown
fdatasync fork forkpty fpathconf fstatvfs fwalk get_blocking getegid getenvb geteuid getgid getgrouplist getgroups
getloadavg getpgid getpgrp getpriority getrandom getresgid getresuid getsid getuid getxattr grantpt initgroups killpg
lchmod lchown listxattr lockf login_tty major makedev memfd_create minor mkfifo mknod nice openpty pathconf pidfd_open
pipe2 pread preadv ptsname pwrite pwritev readv register_at_fork removexattr sendfile set_blocking setegid seteuid
setgid setgroups setns setpgid setpgrp setpriority setregid setresgid setresuid setreuid setsid setuid setxattr spawnlp
spawnlpe spawnvp spawnvpe splice statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname unlockpt unshare wait wait3
wait4 waitid writev
"""
OS_BEGINNINGS = """
posix_ sched_ timerfd_ CLD_ CLONE_ EFD_ F_LOCK F_T F_ULOCK GRND_ MFD_ O_ASYNC O_CLOEXEC O_DIRECT O_DSYNC O_NDELAY
O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_RSYNC O_SYNC O_TMPFILE PIDFD_ POSIX_ PRIO_ P_ALL P_P RTLD_ RWF_
SCHED_ SF_ SPLICE_ ST_ TFD_ WC WE WI WN WS WT WU XATTR_
"""
SIGNAL = """
SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM SIG_DFL SIG_IGN NSIG Handlers Signals
default_int_handler getsignal raise_signal set_wakeup_fd signal strsignal valid_signals
"""

NO_MODULES = frozenset(MODULES.split())
NOT_IN_OS = frozenset(OS.split())
NOT_IN_OS_BEGIN = tuple(OS_BEGINNINGS.split())
IN_SIGNAL = frozenset(SIGNAL.split())


class Lacking(types.ModuleType):
    """A module without some of its names, and with others for some."""

    def __init__(
        self,
        real: types.ModuleType,
        lacks: Callable[[str], bool],
        changed: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, _lacks=lacks, _changed=changed or {})

    def __getattr__(self, name: str) -> Any:
        if name in self._changed:
            return self._changed[name]
        if self._lacks(name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._real, name)


CHANGED = {
    "os": Lacking(os, lambda name: name in NOT_IN_OS or name.startswith(NOT_IN_OS_BEGIN), {"name": "nt"}),
    "signal": Lacking(signal, lambda name: name not in IN_SIGNAL),
    "sys": Lacking(sys, lambda name: name == "abiflags", {"platform": "win32"}),
}

_import = builtins.__import__


def _import_on_windows(
    name: str,
    globals: Any = None,  # noqa: A002 - the names that it is called with
    locals: Any = None,  # noqa: A002
    fromlist: Any = (),
    level: int = 0,
) -> Any:
    importer = (globals or {}).get("__package__") or ""
    if level == 0 and importer.partition(".")[0] == PACKAGE:
        top = name.partition(".")[0]
        if top in NO_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
        if name in CHANGED or (top in CHANGED and not fromlist):  # `import os.path` gives os
            return CHANGED[top]
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = _import_on_windows
