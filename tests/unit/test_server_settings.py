"""Settings come from the environment and are refused in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.server.app import create_app
from pytest_openenv_scale.server.settings import ClientBounds, ServerSettings, SettingError, settings_from
from server_process import server_environ


def test_nothing_set_serves_locally_on_all_cores_without_a_limit():
    assert settings_from({}) == ServerSettings("127.0.0.1", 8000, usable_cores(), None)


def test_every_setting_is_read():
    environ = {"HOST": "127.0.0.3", "PORT": "9", "WORKERS": "3", "MAX_CONCURRENT_ENVS": "64"}
    bounds = {"MAX_SESSIONS_PER_ADDRESS": "8", "SESSION_TIMEOUT": "600", "IDLE_TIMEOUT": "60"}
    assert settings_from(environ | bounds) == ServerSettings("127.0.0.3", 9, 3, 64, ClientBounds(8, 600, 60))


def test_empty_and_zero_limits_mean_unlimited():
    assert settings_from({"MAX_CONCURRENT_ENVS": "0"}).max_envs is None
    assert settings_from({"MAX_CONCURRENT_ENVS": " "}).max_envs is None
    zeros = {"MAX_SESSIONS_PER_ADDRESS": "0", "SESSION_TIMEOUT": "0", "IDLE_TIMEOUT": "0"}
    assert settings_from(zeros).bounds == ClientBounds(None, None, None)


def test_settings_survive_the_way_to_a_worker():
    for bounds in (ClientBounds(), ClientBounds(None, None, None), ClientBounds(1, 2, 3)):
        settings = ServerSettings("::1", 9, 3, None, bounds)
        assert settings_from(settings.environ()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("WORKERS", "0"),
        ("WORKERS", "1.5"),
        ("MAX_CONCURRENT_ENVS", "many"),
        ("MAX_CONCURRENT_ENVS", "-2"),
        ("MAX_CONCURRENT_ENVS", "²"),
        ("MAX_SESSIONS_PER_ADDRESS", "some"),
        ("SESSION_TIMEOUT", "1h"),
        ("IDLE_TIMEOUT", "-1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(name, value):
    with pytest.raises(SettingError) as wrong:
        settings_from({name: value})
    assert str(wrong.value).startswith(f"{name}={value!r}: expected a whole number from ")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "localhost"])
def test_an_address_that_names_no_machine_is_reported_as_the_hostname(host):
    assert ServerSettings(host=host, port=8001).host_url == f"{socket.gethostname()}:8001"


def test_an_address_that_tells_servers_apart_is_reported_itself():
    assert ServerSettings(host="127.0.0.3").host_url == "127.0.0.3:8000"
    assert ServerSettings(host="fd00::3").host_url == "[fd00::3]:8000"


def test_importing_the_application_with_a_wrong_setting_is_one_line_and_exit_code_2():
    command = [sys.executable, "-c", "import pytest_openenv_scale.server.app"]
    environ = server_environ(MAX_CONCURRENT_ENVS="many")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    line = "MAX_CONCURRENT_ENVS='many': expected a whole number from 0 to 1000000000 (0 = unlimited)"
    assert done.stderr == f"pytest-openenv-scale server: {line}\n"


def test_an_application_with_a_negative_limit_is_refused():
    with pytest.raises(SettingError, match="max_concurrent_envs=-1"):
        create_app(-1)


def test_an_argument_outranks_the_environment(monkeypatch):
    monkeypatch.setitem(os.environ, "MAX_CONCURRENT_ENVS", "1")
    sessions = create_app(2).state.sessions
    with sessions.hold_slot(), sessions.hold_slot():
        assert sessions.active == 2
    with create_app(0).state.sessions.hold_slot():
        pass
