"""A pytest configuration that knows the options and nothing else of the plugin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.plugin.option_values import register_options
from pytest_openenv_scale.plugin.settings import resolve_settings

Resolve = Callable[..., Settings]


class OptionsOnly:
    """A plugin that adds the options."""

    @staticmethod
    def pytest_addoption(parser: pytest.Parser) -> None:
        register_options(parser)


def resolver(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Return a function that resolves a command line, with the ini text given as `ini`."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.plugins.append(OptionsOnly())

    def run(*arguments: str, ini: str = "", file: str = "tox.ini", table: str = "tool.pytest.ini_options") -> Settings:
        if ini:
            section = table if file == "pyproject.toml" else "pytest"
            (pytester.path / file).write_text(f"[{section}]\n{ini}\n", encoding="utf-8")
        return resolve_settings(pytester.parseconfig(*arguments))

    return run
