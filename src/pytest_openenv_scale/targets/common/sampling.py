"""Memory, CPU time and processes of a server: of a process tree, of what listens at a URL, of a control group."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import psutil

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.core.system import is_loopback

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class ProcessSampler:
    """Samples the processes given by `roots` and everything below them."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = [process for pid in roots if (process := _find_process(pid)) is not None]
        self._cpu_seconds: dict[tuple[int, float], float] = {}
        self._limits: dict[int, int] = {}

    def running(self) -> bool:
        """Say whether any of the roots still runs."""
        return any(process.is_running() and not _is_zombie(process) for process in self._roots)

    def pids(self) -> frozenset[int]:
        """Return the ids of what runs of the tree."""
        return frozenset(process.pid for process in self._process_tree() if not _is_zombie(process))

    def sample(self) -> ServerSample | None:
        """Return what the tree uses now, or None once nothing of it can be read.

        CPU seconds include processes seen in an earlier sample that have ended since.
        """
        at_s = time.monotonic()
        processes = threads = rss = 0
        fullest: tuple[float, int, int | None] | None = None
        all_descriptors = 0
        for process in self._process_tree():
            try:
                with process.oneshot():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        continue
                    cpu = process.cpu_times()
                    self._cpu_seconds[process.pid, process.create_time()] = cpu.user + cpu.system
                    rss += process.memory_info().rss
                    threads += process.num_threads()
                    processes += 1
                descriptors, limit = process.num_fds(), self._descriptor_limit(process)
            except psutil.Error:
                continue
            all_descriptors += descriptors
            share = descriptors / limit if limit else 0.0
            if fullest is None or share > fullest[0]:
                fullest = (share, descriptors, limit)
        if not processes:
            return None
        return ServerSample(
            at_s=at_s,
            processes=processes,
            cpu_seconds=sum(self._cpu_seconds.values()),
            rss_bytes=rss,
            threads=threads,
            descriptors=fullest[1] if fullest else None,
            descriptor_limit=fullest[2] if fullest else None,
            all_descriptors=all_descriptors if fullest else None,
        )

    def _process_tree(self) -> list[psutil.Process]:
        processes: dict[int, psutil.Process] = {}
        for root in self._roots:
            processes[root.pid] = root
            try:
                processes.update((child.pid, child) for child in root.children(recursive=True))
            except psutil.Error:
                continue
        return list(processes.values())

    def _descriptor_limit(self, process: psutil.Process) -> int | None:
        if not hasattr(psutil, "RLIMIT_NOFILE"):
            return None
        if process.pid not in self._limits:
            self._limits[process.pid] = process.rlimit(psutil.RLIMIT_NOFILE)[0]
        return self._limits[process.pid]


def listening_processes(port: int) -> tuple[int, ...]:
    """Return the ids of this machine's processes that listen on TCP `port`; empty where that cannot be read.

    Of workers that share a socket with their supervisor, only the supervisor.
    """
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return ()
    holders = {
        connection.pid for connection in connections if connection.pid is not None and _listens(connection, port)
    }
    return tuple(sorted({_topmost_listener(pid, port) for pid in holders}))


def _topmost_listener(pid: int, port: int) -> int:
    """Climb from `pid` to its furthest ancestor that holds the listening socket too."""
    process = _find_process(pid)
    while process is not None:
        try:
            pid, process = process.pid, process.parent()
            if process is None or not any(_listens(connection, port) for connection in process.net_connections("tcp")):
                break
        except psutil.Error:
            break
    return pid


def _listens(connection: Any, port: int) -> bool:
    return connection.status == psutil.CONN_LISTEN and bool(connection.laddr) and connection.laddr.port == port


def _find_process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpuacct", "memory", "pids")


@dataclass(frozen=True)
class ControlGroup:
    """The folders of one group by controller: three in version 1, three times the same in version 2."""

    cpuacct: Path
    memory: Path
    pids: Path
    unified: bool

    def sample(self, at_s: float) -> ServerSample | None:
        """Return CPU seconds, memory without the cache the kernel would give back, and tasks; None once it is gone."""
        try:
            if self.unified:
                cpu_seconds = _read_table(self.cpuacct / "cpu.stat")["usage_usec"] / 1e6
                used, cache = "memory.current", "inactive_file"
            else:
                cpu_seconds = _read_number(self.cpuacct / "cpuacct.usage") / 1e9
                used, cache = "memory.usage_in_bytes", "total_inactive_file"
            memory = _read_number(self.memory / used) - _read_table(self.memory / "memory.stat").get(cache, 0)
            tasks = _read_number(self.pids / "pids.current")
        except (OSError, ValueError, KeyError):
            return None
        return ServerSample(at_s=at_s, cpu_seconds=cpu_seconds, rss_bytes=max(memory, 0), threads=tasks)


def control_group(
    pid: int, identity: str, *, root: Path = _CGROUP_ROOT, proc: Path = Path("/proc")
) -> ControlGroup | None:
    """Return the group of process `pid`, or None where it is not that of container `identity` or cannot be read.

    An engine in a virtual machine gives numbers that are somebody else's here.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    folders: dict[str, Path] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if identity in path:
            for name in controllers.split(","):
                folders[name] = root / name / path.lstrip("/")
    if "" in folders and not any(name in folders for name in _CONTROLLERS):
        folder = root / folders[""].relative_to(root)
        return ControlGroup(folder, folder, folder, unified=True) if folder.is_dir() else None
    if not all(name in folders and folders[name].is_dir() for name in _CONTROLLERS):
        return None
    return ControlGroup(folders["cpuacct"], folders["memory"], folders["pids"], unified=False)


def _read_number(path: Path) -> int:
    return int(path.read_text())


def _read_table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


class LocalServers:
    """The processes behind loopback URLs (`pids`), as far as this user may see them; else nothing.

    Who listens there once they have ended is the server from then on: its supervisor started it again.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        parts = [urlsplit(url) for url in urls]
        self._ports = [_port(part) for part in parts] if all(map(is_loopback, urls)) else []
        self._restarts = 0
        self.pids = self._listeners()
        self._sampler = ProcessSampler(self.pids) if self.pids else None
        self._known = self.processes() or frozenset()

    def sample(self) -> ServerSample | None:
        """Return what they use now, or None where that cannot be read."""
        sample = self._sampler.sample() if self._sampler else None
        return sample and replace(sample, restarts=self._restarts)

    def processes(self) -> frozenset[int] | None:
        """Return their ids and those of what they started; None where that is unknown."""
        if self._sampler is None:
            return None
        self._known = self._sampler.pids()
        return self._known

    def exit_status(self) -> ExitStatus | None:
        """Return that they ended and nothing listens any more, or None while one runs or where that is unknown."""
        if self._sampler is None or self._sampler.running():
            return None
        if not (again := self._listeners()):
            return ExitStatus("other", "ended")
        self._restarts += not self._known.issuperset(again)  # Workers may outlive the process that started them.
        self.pids, self._sampler = again, ProcessSampler(again)
        return None

    def _listeners(self) -> tuple[int, ...]:
        return tuple(pid for port in self._ports for pid in listening_processes(port))


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS[parts.scheme]
