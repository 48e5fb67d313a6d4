"""What operators edit is what targets read: the files of deploy/, found from a checkout and from a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common import files

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_checkout_serves_its_own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PACKAGE", CHECKOUT / "src" / "pytest_openenv_scale")
    script = files.deploy_file("local/run_uvicorn.sh")
    assert script == CHECKOUT / "deploy" / "local" / "run_uvicorn.sh"
    assert files.deploy_file("docker").is_dir()


def test_an_installed_package_serves_the_copy_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "lib" / "site-packages" / "pytest_openenv_scale"
    (installed / "deploy" / "local").mkdir(parents=True)
    monkeypatch.setattr(files, "_PACKAGE", installed)
    assert files.deploy_file("local") == installed / "deploy" / "local"


def test_a_file_that_was_left_out_is_named(golden: Golden) -> None:
    with pytest.raises(TargetError) as caught:
        files.deploy_file("local/run_cobol.sh")
    golden(caught.value)
