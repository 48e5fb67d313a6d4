"""A uvicorn as an operator starts it, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_process import server_environ


@contextmanager
def uvicorn_server(folder: Path, *options: str, prefix: str = "", app: str = "", python: str = "") -> Iterator[str]:
    """A uvicorn as an operator starts it; yields its URL."""
    app = app or "pytest_openenv_scale.server.app:app"
    log = folder / "uvicorn.log"
    words = [python or sys.executable, "-m", "uvicorn", app, "--port", "0", "--ws", "websockets-sansio", *options]
    shell = f"{prefix} exec " + " ".join(words)
    with log.open("w") as out:
        server = subprocess.Popen(["bash", "-c", shell], cwd=folder, env=server_environ(), stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while not (match := re.search(r"running on (http://\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield match[1]
    finally:
        server.terminate()
        server.wait(20)
