"""A real Docker engine for tests: the one that answers here, else one of their own, and an image with Python in it.

No registry is asked for anything: the image holds this machine's Python, and wheels come from what is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import textwrap
import time
import zipfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from components import lacking
from environments import download_wheels

BASE_IMAGE = "openenv-scale-test-python"
START_S = 30.0
_SKIPPED_MODULES = {"test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "lib2to3"}
_PROGRAMS = ("/bin/sh", "/usr/bin/env", "/bin/sleep", "/bin/cat", "/bin/ls", "/bin/mkdir", "/bin/cp", "/bin/rm")

_own_engines: set[int] = set()


def started_processes(*, recursive: bool = True) -> list[psutil.Process]:
    """The processes below this one, but for engines: one may be up for other tests of the session."""
    engines = [process for process in psutil.Process().children() if process.pid in _own_engines]
    theirs = {process.pid for engine in engines for process in (engine, *engine.children(recursive=True))}
    return [process for process in psutil.Process().children(recursive=recursive) if process.pid not in theirs]


class EngineUnavailableError(Exception):
    """There is no engine and none could be started; the message says why."""


def docker(*arguments: str, host: str | None = None) -> str:
    """Return what the docker command prints; it is the tests' own look at the engine."""
    environ = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
    done = subprocess.run(["docker", *arguments], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def engine_or_skip() -> Generator[str]:
    """As `engine`; where there can be none the test is skipped, under CI=true it fails."""
    with contextlib.ExitStack() as life:
        try:
            host = life.enter_context(engine())
        except EngineUnavailableError as error:
            lacking(str(error))
        yield host


@contextmanager
def engine() -> Generator[str]:
    """Yield the DOCKER_HOST of an engine that has `BASE_IMAGE`: the one that answers already, or one of our own."""
    running = _answering()
    with contextlib.nullcontext(running) if running else _own_with_bridge() as host:
        if not docker("images", "--quiet", BASE_IMAGE, host=host):
            add_base_image(host)
        yield host


@contextmanager
def _own_with_bridge() -> Generator[str]:
    """Start an engine on a bridge of its own, so that published ports work; without one where none can be made."""
    name = f"oescale{os.getpid() % 10**7}"
    address = f"172.31.{os.getpid() % 250}.1/24"
    created = _quietly("ip", "link", "add", "name", name, "type", "bridge")
    try:
        usable = (
            created
            and _quietly("ip", "addr", "add", address, "dev", name)
            and _quietly("ip", "link", "set", name, "up")
        )
        with own_engine(f"--bridge={name}" if usable else "--bridge=none") as host:
            yield host
    finally:
        if created:
            _quietly("ip", "link", "delete", name)


@contextmanager
def own_engine(*options: str) -> Generator[str]:
    """Start an engine that touches nothing of this machine outside a temporary folder; it has no images.

    Raises EngineUnavailableError.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise EngineUnavailableError("no Docker engine answers, and one can only be started by root with docker.io")
    folder = Path(tempfile.mkdtemp(prefix="oe-dockerd-"))
    host = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "-H", host]
    command += ["--pidfile", f"{folder}/pid", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    command += ["--ip-masq=false", *options]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    _own_engines.add(process.pid)
    try:
        deadline = time.monotonic() + START_S
        while _answering(host) is None:
            if process.poll() is not None or time.monotonic() >= deadline:
                ends = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise EngineUnavailableError("dockerd did not start: " + " | ".join(ends))
            time.sleep(0.05)
        yield host
        if container_ids := docker("ps", "--all", "--quiet", host=host).split():
            docker("rm", "--force", *container_ids, host=host)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _own_engines.discard(process.pid)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (mounted := line.split()[1]).startswith(f"{folder}/"):
                _quietly("umount", mounted)
        shutil.rmtree(folder, ignore_errors=True)


def run_without_bridge(program: str, timeout_s: float = 120) -> str:
    """Run Python in a network of its own with an engine that has no bridge, and return what it printed.

    An engine that starts without a bridge deletes `docker0`, which another one here may need: hence the network.
    `host` is that engine's address in the program; its image has a shell and no Python.
    """
    if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "unshare", "ip"))):
        lacking("an engine without a bridge can only be started by root with docker.io, unshare and ip")
    code = (
        "from docker_engine import own_engine, add_base_image\n"
        "with own_engine('--bridge=none') as host:\n"
        "    add_base_image(host, python=False)\n"
        f"{textwrap.indent(textwrap.dedent(program), '    ')}"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" -c "$1"', sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _answering(host: str | None = None) -> str | None:
    """Return where an engine answers: at `host`, else where the docker command would look."""
    if shutil.which("docker") is None:
        return None
    environ = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        return None
    return host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _quietly(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except OSError:
        return False


def add_base_image(host: str, *, python: bool = True) -> None:
    """Import an image with a shell and, unless that is not needed, this machine's Python and pip."""
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
            _add_shell(tar)
            if python:
                _add_python(tar)
        archive.seek(0)
        imported = subprocess.run(
            ["docker", "import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", "-", BASE_IMAGE],
            env={**os.environ, "DOCKER_HOST": host},
            stdin=archive,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert imported.returncode == 0, imported.stderr


def _add_shell(tar: tarfile.TarFile) -> None:
    for folder in ("tmp", "etc", "proc", "sys", "dev", "root"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
        tar.addfile(entry)
    for name, text in {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": "root:x:0:\n",
        "etc/hosts": "127.0.0.1 localhost\n",
        "etc/nsswitch.conf": "hosts: files dns\n",
    }.items():
        _write(tar, name, text.encode())
    programs = [Path(program) for program in _PROGRAMS if Path(program).exists()]
    _add_files(tar, {*programs, *_libraries(programs)})


def _add_python(tar: tarfile.TarFile) -> None:
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}").resolve()
    library = Path(sysconfig.get_paths()["stdlib"])
    modules = sorted((library / "lib-dynload").glob("*.so"))
    _add_files(tar, {python, *_libraries([python, *modules]), *_standard_library(library)})
    for name in ("python3", "python"):
        link = tarfile.TarInfo(f"usr/local/bin/{name}")
        link.type, link.linkname, link.mode = tarfile.SYMTYPE, str(python), 0o755
        if python != Path("/usr/local/bin", name):
            tar.addfile(link)
    (bundled,) = (library / "ensurepip" / "_bundled").glob("pip-*.whl")
    with zipfile.ZipFile(bundled) as wheel:
        for name in wheel.namelist():
            _write(tar, f"{str(library).lstrip('/')}/site-packages/{name}", wheel.read(name))


def _add_files(tar: tarfile.TarFile, paths: Iterable[Path]) -> None:
    member_names = set(tar.getnames())
    for name, path in {str(path).lstrip("/"): path for path in paths}.items():
        if name not in member_names:
            tar.add(path, name, recursive=False)


def _standard_library(library: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _SKIPPED_MODULES and not name.startswith("config-")]
        yield from (Path(folder, name) for name in names if not name.endswith(".a") and ".opt-" not in name)


def _libraries(files: Iterable[Path]) -> set[Path]:
    """Return the shared libraries the files need, and those that look up names."""
    ldd_output = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    libraries = {Path(name) for name in re.findall(r"(/\S+\.so\S*)(?=\s|$)", ldd_output) if not name.endswith(":")}
    return {path for path in libraries | set(Path("/lib/x86_64-linux-gnu").glob("libnss_*.so.2")) if path.is_file()}


def _write(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def server_wheels() -> Path:
    """Return a folder with wheels of what the benchmark environment needs, made once and kept in the user's cache."""
    requirements = Path(__file__).parents[1] / "deploy" / "docker" / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "pytest-openenv-scale" / "wheels" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_name(f"{key}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            download_wheels(partial, "--requirement", str(requirements))
            partial.rename(folder)
    return folder
