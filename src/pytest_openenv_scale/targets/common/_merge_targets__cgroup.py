"""What a container's control group has used, read from this machine's files: at once, and whenever it is asked.

An engine makes its own figures once a second and keeps whoever asks waiting for them, which is too coarse for the
beginning and the end of a short cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_openenv_scale.core.endpoint import ServerSample

_ROOT = Path("/sys/fs/cgroup")
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
                cpu_seconds = _table(self.cpuacct / "cpu.stat")["usage_usec"] / 1e6
                used, cache = "memory.current", "inactive_file"
            else:
                cpu_seconds = _number(self.cpuacct / "cpuacct.usage") / 1e9
                used, cache = "memory.usage_in_bytes", "total_inactive_file"
            memory = _number(self.memory / used) - _table(self.memory / "memory.stat").get(cache, 0)
            tasks = _number(self.pids / "pids.current")
        except (OSError, ValueError, KeyError):
            return None
        return ServerSample(at_s=at_s, cpu_seconds=cpu_seconds, rss_bytes=max(memory, 0), threads=tasks)


def control_group(pid: int, identity: str, *, root: Path = _ROOT, proc: Path = Path("/proc")) -> ControlGroup | None:
    """Return the group of process `pid`, or None where it is not that of container `identity` or cannot be read.

    An engine in a virtual machine gives numbers that are somebody else's here.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    found: dict[str, Path] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if identity in path:
            for name in controllers.split(","):
                found[name] = root / name / path.lstrip("/")
    if "" in found and not any(name in found for name in _CONTROLLERS):
        folder = root / found[""].relative_to(root)
        return ControlGroup(folder, folder, folder, unified=True) if folder.is_dir() else None
    if not all(name in found and found[name].is_dir() for name in _CONTROLLERS):
        return None
    return ControlGroup(found["cpuacct"], found["memory"], found["pids"], unified=False)


def _number(path: Path) -> int:
    return int(path.read_text())


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
