"""The application a target serves: found from where a test is, imported from where its folder says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target, serves_environment
from pytest_openenv_scale.targets.common.application import (
    find_application,
    find_environment,
    import_paths,
    package_of,
)
from pytest_openenv_scale.targets.common.options import TargetContext


def manifest(folder: Path, app: str = "server.app:app") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "openenv.yaml").write_text(f"app: {app}\n")
    return folder


def package(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    return tmp_path / "repository"


def test_the_nearest_openenv_yaml_upward_counts(repository: Path) -> None:
    inner, outer = manifest(repository / "envs" / "a"), manifest(repository)
    assert find_environment([inner / "tests" / "unit"]) == inner
    assert find_environment([inner]) == inner
    assert find_environment([repository / "tests"]) == outer


def test_the_first_start_that_finds_one_decides(repository: Path) -> None:
    first, second = manifest(repository / "a"), manifest(repository / "b")
    assert find_environment([repository / "tests", second, first]) == second
    assert find_environment([repository / "tests"]) is None
    assert find_environment([]) is None


@pytest.mark.parametrize("root_of_repository", [".git/", ".git", ".hg/"])
def test_what_lies_above_the_repository_is_never_looked_at(tmp_path: Path, root_of_repository: str) -> None:
    manifest(tmp_path)
    tests = tmp_path / "repository" / "tests"
    tests.mkdir(parents=True)
    assert find_environment([tests]) == tmp_path
    mark = tests.parent / root_of_repository
    mark.mkdir() if root_of_repository.endswith("/") else mark.write_text("gitdir: elsewhere")
    assert find_environment([tests]) is None
    assert find_environment([manifest(tests.parent) / "tests"]) == tests.parent


def test_outside_of_a_repository_a_folder_where_everybody_writes_ends_the_search(tmp_path: Path) -> None:
    manifest(tmp_path)
    tests = tmp_path / "mine" / "tests"
    tests.mkdir(parents=True)
    tmp_path.chmod(0o1777)
    assert find_environment([tests]) is None
    assert find_environment([tmp_path]) == tmp_path


def test_the_home_folder_belongs_to_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(manifest(tmp_path)))
    assert find_environment([tmp_path / "project"]) is None


def test_a_folder_of_that_name_is_no_manifest(repository: Path) -> None:
    (repository / "tests" / "openenv.yaml").mkdir(parents=True)
    assert find_environment([manifest(repository) / "tests"]) == repository


def context(root: Path, **fields: Any) -> TargetContext:
    return TargetContext(root, **fields)


def test_only_what_is_named_is_served(repository: Path) -> None:
    assert find_application(context(repository), "builtin", "local").built_in
    assert find_application(context(repository), "a:b", "local").name == "a:b"
    with pytest.raises(TargetError, match=r"there is no openenv\.yaml in .*local:builtin for the built-in"):
        find_application(context(repository), None, "local")
    assert find_application(context(manifest(repository)), None, "local").name == "server.app:app"
    assert find_application(context(repository), "builtin", "local").built_in


def test_where_was_looked_is_said(repository: Path) -> None:
    searched = (repository / "a", repository, repository / "a")
    with pytest.raises(TargetError) as caught:
        find_application(context(repository, searched=searched), None, "envoy")
    assert str(caught.value) == (
        f"target envoy: there is no openenv.yaml upward from {repository}/a or {repository}; "
        "add app=module:app for yours, or app=builtin for the built-in environment"
    )


def test_an_app_that_is_named_is_served_whatever_the_openenv_yaml_lacks(repository: Path) -> None:
    (repository / "openenv.yaml").write_text("name: e\n")
    assert find_application(context(repository), "server.app:app", "local").name == "server.app:app"


def test_an_environment_found_elsewhere_than_in_pytests_root_is_said(repository: Path) -> None:
    root = manifest(repository / "envs" / "a")
    (note,) = find_application(context(root, rootpath=repository), None, "local").notes
    assert note == "served: server.app:app of envs/a/openenv.yaml"
    (note,) = find_application(context(root, rootpath=repository / "tests"), None, "local").notes
    assert note == f"served: server.app:app of {root}/openenv.yaml"
    assert find_application(context(root, rootpath=root), None, "local").notes == ()


def test_an_app_is_imported_from_its_folder_its_src_pytests_pythonpath_and_where_its_package_is(
    repository: Path,
) -> None:
    root = manifest(package(package(repository / "acme") / "my_env"))
    (root / "src").mkdir()
    paths = import_paths(context(root, rootpath=repository, pythonpath=(repository / "lib",)))
    assert paths == (root, root / "src", repository / "lib", root.parent, repository)


def test_without_an_openenv_yaml_what_is_above_the_root_is_not_imported_from(repository: Path) -> None:
    assert import_paths(context(repository)) == (repository,)


def test_a_package_is_called_by_all_that_it_lies_in(repository: Path) -> None:
    inner = package(package(repository / "acme") / "my_env")
    assert package_of(inner) == (repository, "acme.my_env")
    assert package_of(repository / "plain") == (repository, "plain")
    assert package_of(package(repository / "no-name")) == (repository, None)


@pytest.mark.parametrize(
    ("text", "depends"),
    [
        ("local", True),
        ("local:a:b", True),
        ("local:./a", False),
        ("envoy:replicas=2", True),
        ("envoy:image=x,replicas=2", False),
        ("envoy:urls=http://a", False),
        ("docker", True),
        ("docker:x", False),
        ("spaces:a/b", False),
        ("spaces,temporary", True),
        ("spaces,temporary,folder=x", False),
        ("slurm:nodes=2", True),
        ("http://a", False),
        ("of-somebody", True),
    ],
)
def test_what_a_target_serves_depends_on_the_environment_unless_something_else_is_named(
    text: str, depends: bool
) -> None:
    assert serves_environment(parse_target(text)) is depends


def described(text: str, root: Path) -> str:
    return "\n".join(part.text for part in open_target(parse_target(text), root=root).describe())


def test_a_folder_may_be_named_from_the_working_directory_or_the_root(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(repository / "envs" / "a", "a_app:app")
    monkeypatch.chdir(repository / "envs")
    assert "--app a_app:app" in described("local:./a", repository)
    assert "--app a_app:app" in described("local:./envs/a", repository)
    assert "--app other:app" in described("local:./a,app=other:app", repository)
    with pytest.raises(TargetError) as caught:
        described("local:./b", repository)
    assert str(caught.value) == (
        f"target local: there is no folder './b' from {repository}/envs or {repository} to serve"
    )
    (repository / "envs" / "empty").mkdir()
    with pytest.raises(TargetError, match=r"there is no openenv\.yaml in .*/envs/empty; "):
        described("local:./empty", repository)


def test_docker_alone_serves_the_built_in_environment_only_where_there_is_no_other(repository: Path) -> None:
    assert "docker build" in described("docker", repository)
    manifest(repository)
    with pytest.raises(TargetError) as caught:
        described("docker", repository)
    assert str(caught.value) == (
        f"target docker: no image is named, and there is {repository}/openenv.yaml; write docker:{repository} to "
        "build that environment, docker:IMAGE, or docker,app=builtin for the built-in one"
    )
    assert "docker build" in described("docker,app=builtin", repository)
