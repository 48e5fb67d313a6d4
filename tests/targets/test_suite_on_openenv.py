"""The suite on servers nobody here wrote: every version of the real packages, sound and therefore passed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openenv_servers import SERVERS, openenv_server
from suite_run import run_suite

pytestmark = [pytest.mark.real, pytest.mark.side_by_side]

ROOM = 6
"""Sessions per worker, so that every server is taken past its limit."""

ASKED = [server for server in SERVERS if "0.10" in server.id or "async" in server.id]
"""Every version, sync and async, one worker and several: a suite takes a minute."""


@pytest.mark.parametrize("server", ASKED, ids=lambda server: server.id)
def test_a_sound_server_fails_nothing(server, tmp_path):
    seeded = server.environment == "seeded"
    with openenv_server(replace(server, max_envs=ROOM), tmp_path) as running:
        run = run_suite(tmp_path, "--openenv-url", running.url)
    assert run.subjects("missed") == set(), run.told
    assert run.subjects("inconclusive") == set(), run.told
    assert run.subjects("skipped") == (set() if seeded else {"determinism"}), run.told
