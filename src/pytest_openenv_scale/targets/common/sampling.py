"""What a server's processes use: CPU, memory, threads and descriptors of a process tree."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import psutil

from pytest_openenv_scale.core.endpoint import ServerSample


class ProcessSampler:
    """Samples the processes given by `roots` and everything below them."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = [process for pid in roots if (process := _process(pid)) is not None]
        self._cpu_seconds: dict[tuple[int, float], float] = {}
        self._limits: dict[int, int] = {}

    def running(self) -> bool:
        """Say whether any of the roots still runs."""
        return any(process.is_running() and not _is_zombie(process) for process in self._roots)

    def sample(self) -> ServerSample | None:
        """Return what the tree uses now, or None once nothing of it can be read.

        CPU seconds include processes seen in an earlier sample that have ended since.
        """
        at_s = time.monotonic()
        processes = threads = rss = 0
        fullest: tuple[float, int, int | None] | None = None
        for process in self._tree():
            try:
                with process.oneshot():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        continue
                    cpu = process.cpu_times()
                    self._cpu_seconds[process.pid, process.create_time()] = cpu.user + cpu.system
                    rss += process.memory_info().rss
                    threads += process.num_threads()
                    processes += 1
                descriptors, limit = process.num_fds(), self._limit(process)
            except psutil.Error:
                continue
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
        )

    def _tree(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for root in self._roots:
            found[root.pid] = root
            try:
                found.update((child.pid, child) for child in root.children(recursive=True))
            except psutil.Error:
                continue
        return list(found.values())

    def _limit(self, process: psutil.Process) -> int | None:
        if not hasattr(psutil, "RLIMIT_NOFILE"):
            return None
        if process.pid not in self._limits:
            self._limits[process.pid] = process.rlimit(psutil.RLIMIT_NOFILE)[0]
        return self._limits[process.pid]


def listening_processes(port: int) -> tuple[int, ...]:
    """Return the processes of this machine that listen on TCP `port`; empty where that cannot be read.

    Of workers that share a socket with their supervisor, only the supervisor.
    """
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return ()
    holders = {found.pid for found in connections if found.pid is not None and _listens(found, port)}
    return tuple(sorted({_topmost(pid, port) for pid in holders}))


def _topmost(pid: int, port: int) -> int:
    """Climb from `pid` to its furthest ancestor that holds the listening socket too."""
    process = _process(pid)
    while process is not None:
        try:
            pid, process = process.pid, process.parent()
            if process is None or not any(_listens(found, port) for found in process.net_connections("tcp")):
                break
        except psutil.Error:
            break
    return pid


def _listens(connection: Any, port: int) -> bool:
    return connection.status == psutil.CONN_LISTEN and bool(connection.laddr) and connection.laddr.port == port


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
