"""What all tests share: where temporary files lie, what an interrupt does, who stands guard, what is no garbage."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from goldens import Golden
from inner import unguarded


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Compares what people read with a file beside the test; `goldens.py` says how."""
    return Golden(request.path, request.node.name, tmp_path_factory.getbasetemp())


@pytest.fixture
def no_guard() -> Generator[None]:
    """For tests of servers that measure in this process: a client that is slowed down leaves nothing in doubt."""
    with unguarded.lifted():
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Share out real tests; None leaves it to `--dist`."""
    if config.getoption("dist") != "loadfile":
        return None
    # Not at the top: whoever runs pytest in a checkout reads this file, with nothing but pytest installed.
    from sharing_out import ByFile

    return ByFile(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes of xdist measure side by side, and tests be interrupted wherever they run."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        # The lock under which only one of a user's processes measures at a time lies among temporary files.
        folder = tempfile.mkdtemp(prefix=f"oe-{worker}-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        # Daemons that the tests start, munge's for one, refuse a folder that others cannot pass.
        Path(folder).chmod(0o711)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
    elif "MPLCONFIGDIR" not in os.environ:
        # What matplotlib finds out about fonts takes it a second, and is kept here for every process that draws.
        os.environ["MPLCONFIGDIR"] = fonts = tempfile.mkdtemp(prefix="oe-fonts-")
        config.add_cleanup(lambda: shutil.rmtree(fonts, ignore_errors=True))
    # What a shell starts in the background ignores interrupts, and so would all that is started here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let each process of xdist begin with other modules: what one has compiled, the others only read."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or [Path(folder).resolve() for folder in session.config.args] != [Path(__file__).parent]:
        return
    # Not at the top either.
    import unit_rules

    unit_rules.apply()
    folder = Path(__file__).with_name("unit")
    sys.path.insert(0, str(folder))
    modules = sorted(path.stem for path in folder.glob("test_*.py"))
    first = len(modules) * int(worker.removeprefix("gw")) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for module in [*modules[first:], *modules[:first]]:
        with suppress(Exception, pytest.skip.Exception):  # Collecting it tells.
            import_module(module)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: garbage is not looked for among thousands of tests."""
    gc.freeze()
