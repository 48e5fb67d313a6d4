"""What this machine and this installation offer (cores, descriptors, extras), and waiting for a condition."""

from __future__ import annotations

import ipaddress
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

_OPEN_MAX = 10_240
"""What macOS lets any process have."""


def descriptor_limit() -> int:
    """Return how many descriptors a load process may open: it raises its soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        return hard
    reached = raise_descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return reached


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, or as far as the system lets it; returns what it is then.

    macOS says "infinity" and means less, how much less only trying tells: at most 1,048,576 and at least half of
    what could be had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    candidates = [hard] if hard != resource.RLIM_INFINITY else [1 << power for power in range(20, 13, -1)] + [_OPEN_MAX]
    for limit in candidates:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return limit
    return soft


def install_extra(extra: str) -> str:
    """Return the command that installs an extra of this package."""
    return f"pip install 'pytest-openenv-scale[{extra}]'"


UVICORN_WEBSOCKETS = "uvicorn.protocols.websockets.websockets_sansio_impl"
"""What uvicorn speaks WebSocket by here, from its version 0.35 on."""

_INSTALL_COMMANDS = {
    "plotnine": install_extra("figures"),
    "pandas": install_extra("figures"),
    "pytest_asyncio": install_extra("asyncio"),
    "uvicorn": install_extra("uvicorn"),
    "websockets": install_extra("uvicorn"),
    UVICORN_WEBSOCKETS: "pip install 'uvicorn>=0.35'",
}


def install_command(module: str) -> str | None:
    """Return the command that installs a module; None where it is there. Only packages that it is in are imported."""
    return None if find_spec(module) else _INSTALL_COMMANDS[module]


def figures_problem() -> str | None:
    """Return why no figure can be drawn here and what to install, in one line; None where they can be."""
    install = install_command("plotnine")
    return install and f"figures need plotnine: {install}"


def usable_cores() -> int:
    """Return how many cores this process, and the load processes it starts, may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def url_host(host: str) -> str:
    """Return a host as it is written in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine's own loopback; a name counts only if it is localhost."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def resolve_host(host: str) -> str:
    """Return the IP address of a host, IPv4 where it has both.

    Raises:
        socket.gaierror: its name does not resolve.
    """
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return str(min(infos, key=lambda entry: entry[0] is not socket.AF_INET)[4][0])


T = TypeVar("T")


def wait_for(look: Callable[[], T], timeout_s: float, pause_s: float, *, until: Callable[[T], object] = bool) -> T:
    """Call `look` again and again, with pauses, until what it returns is true, or `until` says so; return its last.

    After `timeout_s` seconds that is whatever it returned last; it is called once at least.
    """
    deadline = time.monotonic() + timeout_s
    while not until(value := look()) and time.monotonic() < deadline:
        time.sleep(pause_s)
    return value


def is_installed(path: Path) -> bool:
    """Say whether a file is one of an installed package."""
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_like_ctrl_c() -> Generator[None]:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, with all that it cleans up; a second one ends it at once.

    Not where somebody else decided what they do, as nohup does, nor outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    free = [number for number in _ENDINGS if signal.getsignal(number) is signal.SIG_DFL]

    def interrupt(number: int, _: object) -> NoReturn:
        for each in free:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in free:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)
