"""No report opens the network, in whatever process it is made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from study_samples import sample, stored_run

WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        if event != "socket.connect" or isinstance(arguments[1], tuple):
            with open(os.environ["SEEN"], "a") as file:
                print(event, arguments[1:], file=file)

sys.addaudithook(watch)
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which every Python process writes to SEEN which addresses it looks for."""
    folder = tmp_path / "watch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WATCH)
    return {**os.environ, "PYTHONPATH": str(folder), "SEEN": str(tmp_path / "seen.txt")}


def test_the_watch_sees_a_connection(watched: dict[str, str]) -> None:
    program = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    subprocess.run([sys.executable, "-c", program], env=watched, check=True, timeout=60)
    assert "127.0.0.1" in Path(watched["SEEN"]).read_text()


def test_every_format_is_written_without_looking_for_an_address(watched: dict[str, str], tmp_path: Path) -> None:
    run = stored_run(tmp_path / "results", sample(batches={1: (1.0, 0.01), 8: (0.5, 0.4)}))
    command = [sys.executable, "-m", "pytest_openenv_scale", "report", str(run.path), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--formats", "md,html,figures,latex,csv,log"],
        env=watched,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.md", "report.html", "figures", "tables", "EXPERIMENT_LOG.md"} <= written
    assert not Path(watched["SEEN"]).exists()
