"""What an Envoy target may be asked for; a mistake is one line, before anything is started."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from goldens import Golden
from pytest_openenv_scale.core.endpoint import ExitStatus, HostEvent, ServerSample
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.plugin.target import label_suffix
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.envoy import pool
from pytest_openenv_scale.targets.envoy.config import (
    EnvoyOptions,
    EnvoySettings,
    ImageOptions,
    LocalReplicaOptions,
    UrlReplicaOptions,
    parse_envoy,
)
from pytest_openenv_scale.targets.envoy.endpoint import ReplicaWatch
from pytest_openenv_scale.targets.envoy.pool import AdminError, HostState, LocalEnvoyPool, find_envoy
from pytest_openenv_scale.targets.envoy.replicas import (
    ContainerReplicas,
    numbered_log_path,
    replica_address,
    resolve_backend,
    sum_samples,
)

_Options = TypeVar("_Options", bound=EnvoyOptions)


def parsed_options(text: str, kind: type[_Options]) -> _Options:
    options = parse_envoy(parse_target(text))
    assert isinstance(options, kind)
    return options


@pytest.mark.parametrize("text", ["envoy:replicas=3,lb=least_request", "envoy,lb=least_request,replicas=3"])
def test_the_first_key_may_stand_after_the_colon(text: str) -> None:
    options = parsed_options(text, LocalReplicaOptions)
    assert (options.replicas, options.lb) == (3, "least_request")


def test_a_replica_is_one_process_unless_asked_otherwise() -> None:
    assert parsed_options("envoy:replicas=2", LocalReplicaOptions).workers == 1
    text = "envoy:replicas=2,workers=3,app=server.app:app,server=uvicorn,max_envs=9,env.MODE=fast,nofile=64"
    server = parsed_options(text, LocalReplicaOptions)
    assert (server.workers, server.app, server.server, server.max_envs) == (3, "server.app:app", "uvicorn", 9)
    assert (dict(server.env), server.nofile) == ({"MODE": "fast"}, 64)


def test_urls_are_separated_by_bars() -> None:
    options = parsed_options(
        "envoy:urls=http://127.0.0.2:8000|http://[::1]:8001/,workers=2,max_envs=64", UrlReplicaOptions
    )
    assert (options.replicas, options.workers, options.max_envs) == (2, 2, 64)
    assert options.urls == ("http://127.0.0.2:8000", "http://[::1]:8001")


def test_an_image_makes_the_replicas_containers() -> None:
    text = "envoy:replicas=4,image=my-env:1,cpus=0.5,memory=512m,pull=never,max_envs=8,env.A=b"
    image = parsed_options(text, ImageOptions)
    assert (image.replicas, image.image, image.cpus, image.memory) == (4, "my-env:1", 0.5, 512 * 1024**2)
    replicas = ContainerReplicas(image, TargetContext(Path()), target="envoy")
    assert (image.pull, replicas.options(1).address) == ("never", "127.0.0.3")
    assert replicas.options(1).env == {"MAX_CONCURRENT_ENVS": "8", "A": "b"}


@pytest.mark.parametrize(
    "text",
    [
        "envoy",
        "envoy:3",
        "envoy:replicas=2,replicas=3",
        "envoy:replicas=0",
        "envoy:replicas=251",
        "envoy:replicas=2,lb=random",
        "envoy:replicas=2,app=app",
        "envoy:replicas=2,urls=http://a",
        "envoy:urls=http://a,env.A=b",
        "envoy:replicas=2,cpus=1",
        "envoy:replicas=2,image=x,app=a:b",
        "envoy:urls=https://a",
        "envoy:urls=a:8000",
        "envoy:urls=http://a/prefix",
        "envoy:urls=http://a|http://a/",
        "envoy:urls=http://a:x",
        "envoy:replicas=2,replica=2",
    ],
)
def test_a_mistake_is_one_line(golden: Golden, text: str) -> None:
    with pytest.raises(GrammarError) as caught:
        open_target(parse_target(text), root=Path())
    golden(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_in_a_url_is_refused_and_never_shown() -> None:
    spec = parse_target("envoy:urls=http://someone:hunter2@a:8000")
    with pytest.raises(GrammarError, match="give it with --openenv-header") as caught:
        open_target(spec, root=Path())
    assert "hunter2" not in f"{caught.value}{spec!r}"


def test_targets_that_differ_in_replicas_are_told_apart() -> None:
    specs = [parse_target(f"envoy:replicas={count}") for count in (1, 2, 4)]
    assert [label_suffix(spec, specs) for spec in specs] == ["-replicas1", "-replicas2", "-replicas4"]


def test_envoy_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own_envoy = tmp_path / "envoy"
    own_envoy.write_text("#!/bin/sh\n")
    own_envoy.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_envoy() == str(own_envoy)


def test_without_any_envoy_one_line_says_what_to_install(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib, "import_module", missing)
    with (
        pytest.raises(TargetError) as caught,
        open_target(parse_target("envoy:replicas=2"), root=tmp_path),
    ):
        pytest.fail("the target started")
    golden(caught.value)


def test_descriptors_for_next_to_no_sessions_are_refused_before_anything_starts(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "envoy").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(TargetError) as caught,
        open_target(parse_target("envoy:replicas=2,nofile=300"), root=tmp_path, largest_batch=5000),
    ):
        pytest.fail("the target started")
    golden(caught.value)


def test_a_port_that_is_taken_is_told(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(pool, "find_envoy", lambda: "envoy")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(TargetError) as caught,
            ExitStack() as stack,
        ):
            LocalEnvoyPool(EnvoySettings(port=port), 1).start(stack, ())
        golden(caught.value)


def test_every_replica_has_a_loopback_address_and_a_log_of_its_own() -> None:
    assert [replica_address(number) for number in (0, 1, 249)] == ["127.0.0.2", "127.0.0.3", "127.0.0.251"]
    logs = [numbered_log_path(Path("logs/server.log"), number) for number in (0, 1)]
    assert logs == [Path("logs/server.log"), Path("logs/server-2.log")]
    assert numbered_log_path(None, 1) is None


def test_a_url_is_resolved_to_what_envoy_reports() -> None:
    assert resolve_backend("http://localhost:8000").name in ("127.0.0.1:8000", "[::1]:8000")
    assert resolve_backend("http://127.0.0.9").name == "127.0.0.9:80"


def test_samples_are_summed_but_descriptors_are_those_of_the_fullest() -> None:
    first = ServerSample(1.0, 1, 2.0, 300, 4, 10, 20, all_descriptors=15)
    second = ServerSample(1.0, 2, 0.5, 100, 1, 40, 1000, all_descriptors=60)
    total = sum_samples([first, None, second])
    assert total is not None
    assert (total.processes, total.cpu_seconds, total.rss_bytes, total.threads) == (3, 2.5, 400, 5)
    assert (total.descriptors, total.descriptor_limit, total.restarts) == (10, 20, None)
    assert total.all_descriptors == 75
    assert sum_samples([None]) is None


class Scene:
    """Two replicas, as a watch sees them; nothing listens at either."""

    hosts = ("127.0.0.1:1", "127.0.0.1:2")

    def __init__(self, *envoys: tuple[str, str]) -> None:
        self.ended: dict[int, ExitStatus] = {}
        self.envoys = list(envoys)

    def watch(self) -> ReplicaWatch:
        return ReplicaWatch(self.hosts, self.ended.get, self.each)

    def each(self) -> list[list[HostState]]:
        return [self._told(*one) for one in self.envoys]

    def _told(self, *troubles: str) -> list[HostState]:
        return [HostState(host, 0, 0, trouble) for host, trouble in zip(self.hosts, troubles, strict=True)]


def kinds(events: tuple[HostEvent, ...]) -> list[tuple[str, str, str]]:
    return [(event.host, event.kind, str(event.exit or event.text)) for event in events]


def test_a_watch_tells_who_died_and_when_the_last_envoy_took_it_out() -> None:
    scene = Scene(("", ""), ("", ""))
    watch = scene.watch()
    assert kinds(watch.events()) == []
    scene.ended[1] = ExitStatus.from_returncode(-9)
    scene.envoys = [("", "failed"), ("", "")]
    assert kinds(watch.events()) == [("127.0.0.1:2", "died", "killed by SIGKILL")]
    scene.envoys = [("", "failed"), ("", "failed")]
    assert kinds(watch.events())[1:] == [("127.0.0.1:2", "out", "failed")]
    scene.envoys = [("", ""), ("", "")]
    assert kinds(watch.events())[2:] == [("127.0.0.1:2", "back", "")]


def test_a_watch_waits_for_nothing_once_envoy_itself_is_gone() -> None:
    looks: list[int] = []

    def each() -> list[list[HostState]]:
        looks.append(1)
        assert len(looks) == 1  # Nobody is left to take a replica out.
        raise AdminError("gone")

    assert ReplicaWatch(Scene.hosts, {}.get, each).events(settle_s=60) == ()


def test_a_watch_waits_until_what_does_not_answer_is_out() -> None:
    scene = Scene(("", ""))
    looks: list[int] = []

    def each() -> list[list[HostState]]:
        looks.append(1)
        if len(looks) == 3:
            scene.envoys = [("failed", "failed")]
        return scene.each()

    watch = ReplicaWatch(scene.hosts, scene.ended.get, each)
    assert len(watch.events(settle_s=60)) == 2
    assert len(looks) == 3
