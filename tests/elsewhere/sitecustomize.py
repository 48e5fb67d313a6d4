"""Makes of Linux what another system is to Python programs: on PYTHONPATH, it acts in every process before all else.

Names that only Linux has are gone, /proc and /sys are not there (but for psutil, which has its own ways on each
system), the system calls itself Darwin, a socket that is still connecting refuses what is sent, and the limit of
descriptors is "infinity" and means less. Each process leaves a file with its number in SEEN_IN, so that a test knows
that it acted.
"""

# pyright: basic

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import resource
import select
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

import psutil

OF_LINUX = {
    socket: """SOCK_NONBLOCK SOCK_CLOEXEC TCP_INFO TCP_KEEPIDLE TCP_QUICKACK TCP_USER_TIMEOUT TCP_CORK TCP_DEFER_ACCEPT
        MSG_NOSIGNAL MSG_ERRQUEUE MSG_CMSG_CLOEXEC SO_PEERCRED SO_MARK SO_BINDTODEVICE SO_INCOMING_CPU SO_DOMAIN
        SO_PROTOCOL SO_PRIORITY IP_BIND_ADDRESS_NO_PORT AF_NETLINK AF_VSOCK""",
    select: "epoll EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP EPOLLRDHUP EPOLLPRI EPOLLET EPOLLONESHOT EPOLL_CLOEXEC",
    selectors: "EpollSelector",
    os: """pidfd_open memfd_create eventfd sched_getaffinity sched_setaffinity waitid P_PID P_ALL WEXITED WNOWAIT
        CLD_EXITED CLD_KILLED CLD_DUMPED posix_fadvise posix_fallocate fdatasync getrandom copy_file_range splice
        O_DIRECT O_TMPFILE O_PATH O_NOATIME pipe2 unshare setns""",
    signal: "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT SIGPOLL SIGCLD sigtimedwait sigwaitinfo pidfd_send_signal",
    resource: "prlimit RUSAGE_THREAD RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_SIGPENDING RLIMIT_MSGQUEUE",
    fcntl: "F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS F_NOTIFY F_SETLEASE F_SETSIG",
    time: "CLOCK_BOOTTIME CLOCK_TAI",
}
for module, names in OF_LINUX.items():
    for name in names.split():
        with contextlib.suppress(AttributeError):
            delattr(module, name)

selectors.DefaultSelector = selectors.PollSelector

# These look at the system's name when they are imported, and would take parts of macOS that are not here.
for name in ("asyncio", "ctypes.util", "mimetypes", "multiprocessing.spawn", "subprocess", "sysconfig", "webbrowser"):
    importlib.import_module(name)
importlib.import_module("urllib.request")
sys.modules["sysconfig"].get_config_vars()
psutil.Process().cpu_times()
with contextlib.suppress(AttributeError):
    del psutil.RLIMIT_NOFILE, psutil.Process.rlimit
sys.platform = "darwin"
linux = os.uname()
os.uname = lambda: os.uname_result(("Darwin", *linux[1:]))


def no_proc(event: str, arguments: tuple) -> None:
    if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.fsdecode(arguments[0])
    if not path.startswith(("/proc/", "/sys/")):
        return
    frame = sys._getframe()
    while frame is not None:
        if f"{os.sep}psutil{os.sep}" in frame.f_code.co_filename:
            return
        frame = frame.f_back
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


sys.addaudithook(no_proc)

OPEN_MAX = 10_240
real_getrlimit, real_setrlimit = resource.getrlimit, resource.setrlimit
if real_getrlimit(resource.RLIMIT_NOFILE)[0] > OPEN_MAX:
    real_setrlimit(resource.RLIMIT_NOFILE, (256, real_getrlimit(resource.RLIMIT_NOFILE)[1]))


def getrlimit(kind: int) -> tuple[int, int]:
    soft, hard = real_getrlimit(kind)
    return (soft, resource.RLIM_INFINITY) if kind == resource.RLIMIT_NOFILE else (soft, hard)


def setrlimit(kind: int, limits: tuple[int, int]) -> None:
    soft, hard = limits
    if kind == resource.RLIMIT_NOFILE:
        if soft > OPEN_MAX or soft < 0:
            raise ValueError("current limit exceeds maximum limit")
        hard = real_getrlimit(kind)[1]
    real_setrlimit(kind, (soft, hard))


resource.getrlimit, resource.setrlimit = getrlimit, setrlimit

connecting: set[int] = set()
real_connect_ex, real_send = socket.socket.connect_ex, socket.socket.send


def connect_ex(self: socket.socket, address) -> int:
    status = real_connect_ex(self, address)
    if status == errno.EINPROGRESS:
        connecting.add(self.fileno())
    return status


def send(self: socket.socket, *arguments) -> int:
    if self.fileno() in connecting:
        connecting.discard(self.fileno())
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    return real_send(self, *arguments)


socket.socket.connect_ex, socket.socket.send = connect_ex, send

if "SEEN_IN" in os.environ:
    Path(os.environ["SEEN_IN"], str(os.getpid())).touch()
