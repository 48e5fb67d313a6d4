"""The suite on servers nobody here wrote: every version of the real packages, sound and therefore passed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openenv_servers import SERVERS, openenv_server
from suite_run import run_suite

pytestmark = pytest.mark.real

ROOM = 6
"""Sessions per worker, so that every server is taken past its limit."""

PER_COMMIT = "openenv-0.10-seeded-sync-1w"
"""The newest version and the environment that every subject can be asked of: a suite takes a minute."""

MATRIX = [server for server in SERVERS if "0.10" in server.id or "async" in server.id]
"""Every version, sync and async, one worker and several."""


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(server, id=server.id, marks=pytest.mark.alone if server.id == PER_COMMIT else pytest.mark.matrix)
        for server in MATRIX
    ],
)
def test_a_sound_server_fails_nothing(server, tmp_path):
    with openenv_server(replace(server, max_envs=ROOM), tmp_path) as running:
        run = run_suite(tmp_path, "--openenv-url", running.url)
    assert run.subjects("missed") == set(), run.told
    assert run.subjects("inconclusive") == set(), run.told
    assert run.subjects("skipped") == set(), run.told
