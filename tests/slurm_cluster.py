"""A real Slurm for tests: one controller and several nodes on this machine, each node at a loopback address of its own.

Nothing outside a temporary folder is touched, and every process is a child of the test's, ended by its number.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from components import lacking

START_S = 30.0
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
_CORES = 2

_CONFIGURATION = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
EnforcePartLimits=ALL
ReturnToService=2
SlurmdTimeout=5
KillWait=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=1 State=UP
"""


class SlurmUnavailableError(Exception):
    """There is no Slurm and none could be started; the message says why."""


@dataclass
class SlurmCluster:
    """A Slurm that runs: `environ` is what its commands need, `addresses` are those of node1, node2, …"""

    folder: Path
    addresses: tuple[str, ...]
    environ: dict[str, str]
    daemons: dict[str, psutil.Process] = field(default_factory=dict[str, psutil.Process])
    namespaces: dict[str, str] = field(default_factory=dict[str, str])

    def run(self, *command: str) -> str:
        """Return what a command of Slurm's prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environ}, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """The jobs that are not over, as "ID STATE NAME"."""
        return self.run("squeue", "--noheader", "--format=%i %T %j").splitlines()

    def wait_idle(self) -> None:
        """Return once every node is free."""
        deadline = time.monotonic() + START_S
        while (idle := self._idle()) != len(self.addresses):
            if time.monotonic() >= deadline:
                node_states = self.run("sinfo", "--Node", "--noheader", "--format=%N %T %E")
                raise SlurmUnavailableError(f"{idle} of {len(self.addresses)} nodes are free: {node_states}")
            time.sleep(0.05)

    def cancel_all(self) -> None:
        """End every job and return once their nodes are free."""
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            self.run("scancel", f"--state={state}", "--user=root")
        deadline = time.monotonic() + START_S
        while self.jobs() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.wait_idle()

    def processes(self, node: str) -> list[psutil.Process]:
        """What runs on a node: its daemon, the daemons of steps, and the programs of jobs."""
        # They share a host name that nothing else here has; their parent may be PID 1 by now.
        return [one for one in psutil.process_iter() if _namespace(one.pid) == self.namespaces[node]]

    def kill(self, node: str) -> None:
        """End a node as a power failure does: everything on it at once, and Slurm notices some time later."""
        for process in self.processes(node):
            process.kill()

    def notice(self, node: str) -> None:
        """Have Slurm notice now that a node is gone."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=gone")

    def _idle(self) -> int:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%D", "--states=idle"],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return sum(int(line) for line in done.stdout.split())


def _namespace(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/uts")
    return ""


@contextmanager
def slurm_or_skip(nodes: int = 3) -> Generator[SlurmCluster]:
    """As `slurm`; where there can be none the test is skipped, under CI=true it fails."""
    with ExitStack() as life:
        try:
            cluster = life.enter_context(slurm(nodes))
        except SlurmUnavailableError as error:
            lacking(str(error))
        yield cluster


@contextmanager
def slurm(nodes: int = 3) -> Generator[SlurmCluster]:
    """Start a Slurm of `nodes` nodes with two processors each and yield it once all are free.

    Raises SlurmUnavailableError.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if os.geteuid() != 0 or missing:
        raise SlurmUnavailableError(
            f"a Slurm can only be started by root with slurm-wlm and munge (missing: {', '.join(missing) or 'root'})"
        )
    folder = Path(tempfile.mkdtemp(prefix="oe-slurm-"))
    # Every process has addresses of its own, so that servers may have the same port on the nodes of each.
    addresses = tuple(f"127.0.{1 + os.getpid() % 254}.{number + 2}" for number in range(nodes))
    environ = {"SLURM_CONF": f"{folder}/slurm.conf"}
    cluster = SlurmCluster(folder, addresses, environ)
    with ExitStack() as life:
        life.callback(shutil.rmtree, folder, ignore_errors=True)
        _write_files(cluster)
        _start(cluster, life)
        cluster.wait_idle()
        try:
            yield cluster
        finally:
            _end_what_is_left(cluster)


def _end_what_is_left(cluster: SlurmCluster) -> None:
    if all(daemon.is_running() and daemon.status() != psutil.STATUS_ZOMBIE for daemon in cluster.daemons.values()):
        with contextlib.suppress(AssertionError, SlurmUnavailableError):
            cluster.cancel_all()
    for node, daemon in cluster.daemons.items():
        for process in cluster.processes(node) if node in cluster.namespaces else ():
            if process.pid != daemon.pid:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def _write_files(cluster: SlurmCluster) -> None:
    folder = cluster.folder
    for name in ("munge", "state", *(f"spool/node{number + 1}" for number in range(len(cluster.addresses)))):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o711)
    (folder / "munge").chmod(0o711)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    lines = [
        f"NodeName=node{number + 1} NodeAddr={address} Port={_free_port()} Sockets=1 CoresPerSocket={_CORES} "
        "ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN"
        for number, address in enumerate(cluster.addresses)
    ]
    text = _CONFIGURATION.format(host=host, controller_port=_free_port(), folder=folder, nodes="\n".join(lines))
    (folder / "slurm.conf").write_text(text)
    names = [f"{address} node{number + 1}" for number, address in enumerate(cluster.addresses)]
    (folder / "hosts").write_text("\n".join([f"127.0.0.1 localhost {host}", *names, ""]))


def _start(cluster: SlurmCluster, life: ExitStack) -> None:
    munge = cluster.folder / "munge"
    command = ["munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket"]
    command += [f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
    _spawn(cluster, life, "munged", command)
    _until(lambda: (munge / "socket").exists(), "munged", munge / "log")
    _spawn(cluster, life, "slurmctld", ["slurmctld", "-D", "-i"])
    for number in range(len(cluster.addresses)):
        # A host name and host names of its own: what runs on the node sees them, this machine does not.
        node = f"node{number + 1}"
        inside = 'hostname "$1" && mount --bind "$2" /etc/hosts && exec slurmd -D -N "$1"'
        names = str(cluster.folder / "hosts")
        _spawn(cluster, life, node, ["unshare", "--uts", "--mount", "sh", "-c", inside, "sh", node, names])
    for number in range(len(cluster.addresses)):
        node = f"node{number + 1}"
        _until(lambda node=node: cluster.daemons[node].name() == "slurmd", node, cluster.folder / f"slurmd.{node}.log")
        cluster.namespaces[node] = _namespace(cluster.daemons[node].pid)


def _spawn(cluster: SlurmCluster, life: ExitStack, name: str, command: Sequence[str]) -> None:
    log = cluster.folder / f"{name}.out"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **cluster.environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    cluster.daemons[name] = psutil.Process(process.pid)
    life.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until(holds, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        if time.monotonic() >= deadline:
            log_end = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
            raise SlurmUnavailableError(f"{name} did not start: {' | '.join(log_end)}")
        time.sleep(0.02)


def _free_port() -> int:
    """Return a port below those that the kernel gives to clients.

    Slurm's daemons listen on every address, so a port is taken for them by any connection of the tests beside this one.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
