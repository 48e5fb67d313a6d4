"""Which object `module:app` names, and what is said where there is no application."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.targets.local import serving
from pytest_openenv_scale.targets.local.serving import AppError, ServeSettings, load_app

MODULE = """
class Object:
    async def __call__(self, scope, receive, send): ...

class Sync:
    def __call__(self, scope, receive, send): ...

class holder:
    app = Object()

async def function(scope, receive, send): ...
app, sync, number = Object(), Sync(), 5
def create_app(): return app
def create_with_default(debug=False): return app
def create_number(): return number
def create_badly(): raise RuntimeError("no model")
async def create_later(): return app
def wsgi(environ, start_response): ...
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return lambda name, text: (tmp_path / f"{name}.py").write_text(text) and None


@pytest.mark.parametrize("attribute", ["app", "sync", "function", "holder.app", "create_app", "create_with_default"])
def test_an_application_is_found_or_made(write: Callable[[str, str], None], attribute: str) -> None:
    write("env_a", MODULE)
    assert callable(load_app(f"env_a:{attribute}"))


def test_a_function_without_parameters_is_called(write: Callable[[str, str], None]) -> None:
    write("env_b", MODULE)
    assert load_app("env_b:create_app") is sys.modules["env_b"].app


@pytest.mark.parametrize(
    "attribute",
    [
        "aap",
        "holder.apx",
        "number",
        "create_number",
        "create_badly",
        "create_later",
        "wsgi",
    ],
)
def test_what_is_no_application_is_one_clear_line(
    golden: Golden, write: Callable[[str, str], None], attribute: str
) -> None:
    write("env_c", MODULE)
    with pytest.raises(AppError) as caught:
        load_app(f"env_c:{attribute}")
    assert str(caught.value).startswith(f"env_c:{attribute}")
    golden(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_is_told_from_one_it_needs(
    golden: Golden, write: Callable[[str, str], None]
) -> None:
    write("env_d", "import not_installed_anywhere\n")
    with pytest.raises(AppError) as caught:
        load_app("env_missing.app:app")
    golden(caught.value)
    with pytest.raises(AppError) as caught:
        load_app("env_d:app")
    golden(caught.value)


@pytest.mark.parametrize("folder", ["my_env", "my-env"])
@pytest.mark.parametrize("init", ["", "from .models import MAX\n", None])
def test_a_module_with_relative_imports_is_imported_as_part_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: str, init: str | None
) -> None:
    """As `openenv init` lays it out: the root is the package, and has whatever name a clone gets."""
    root = tmp_path / folder
    (root / "server").mkdir(parents=True)
    (root / "server" / "__init__.py").touch()
    (root / "models.py").write_text("MAX = 1\n")
    (root / "server" / "app.py").write_text(f"{MODULE}\nfrom ..models import MAX\nfrom .. import models\n")
    if init is not None:
        (root / "__init__.py").write_text(init)
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    app = load_app("server.app:app", root)
    assert type(app).__module__ == "my_env.server.app"
    assert "server.app imports relatively: it is imported as my_env.server.app" in capfd.readouterr().err


def test_a_function_that_imports_relatively_is_called_as_part_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my_env"
    root.mkdir()
    (root / "models.py").write_text("MAX = 1\n")
    (root / "app.py").write_text(f"{MODULE}\ndef create():\n    from .models import MAX\n    return app\n")
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    assert type(load_app("app:create", root)).__module__ == "my_env.app"
    with pytest.raises(AppError, match=r"write the module as its package is imported, such as local:my_env"):
        load_app("app:create")


def test_a_root_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "my-env"
    root.mkdir()
    (root / "apart.py").write_text("from . import models\n")
    (root / "__init__.py").write_text("import not_installed_anywhere\n")
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with pytest.raises(AppError, match=r"my-env/__init__\.py does not import: ModuleNotFoundError"):
        load_app("apart:app", root)
    with pytest.raises(AppError, match=r"write the module as its package is imported, such as local:my_env"):
        load_app("apart:app")


@pytest.mark.parametrize(
    "text", ["raise ValueError('\\n***\\n first\\nsecond')", "import sys; sys.exit('first')", "1 +"]
)
def test_a_module_that_fails_shows_only_its_own_part_of_the_traceback(
    golden: Golden, write: Callable[[str, str], None], text: str
) -> None:
    write("env_e", text)
    with pytest.raises(AppError) as caught:
        load_app("env_e:app")
    golden(caught.value)
    assert "\n" not in str(caught.value)
    assert "env_e.py" in caught.value.details
    assert "appload.py" not in caught.value.details


@pytest.mark.parametrize(("returned", "killed", "code"), [(0, [9], 137), (-15, [9], 137), (3, [], 3), (0, [], 0)])
def test_a_killed_worker_decides_the_exit_code_whatever_hypercorn_returns(monkeypatch, returned, killed, code):
    monkeypatch.setattr("hypercorn.run.run", lambda config: returned)
    monkeypatch.setattr(serving, "_notice_killed_workers", lambda: killed)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert serving._run_hypercorn(ServeSettings("app:app", "hypercorn", 2, 100, None), listener) == code
