"""Which call of a provider gets which key of a specification, and what is said where that cannot work."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Optional

import pytest

from goldens import Golden
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import parse_target, redact_target
from pytest_openenv_scale.core.text import redact_command
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.provider.host import (
    ProviderCalls,
    ProviderError,
    ServerRequest,
    load_class,
    plan_calls,
    secret_values,
)


class Process:
    """As UVProvider."""

    def __init__(self, *, project_path: str, env_vars: dict[str, str] | None = None, reload: bool = False) -> None: ...

    def start(
        self,
        port: int | None = None,
        env_vars: dict[str, str] | None = None,
        workers: int = 1,
        **_: Any,
    ) -> str:
        return ""

    def wait_for_ready(self, timeout_s: float | None = None) -> None: ...

    def stop(self) -> None: ...


class Container:
    """As LocalDockerProvider; the annotation of `image` is one that openenv writes."""

    def start_container(
        self,
        image: Optional[str],  # noqa: UP045
        port: int | None = None,
        env_vars: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> str:
        return ""

    def wait_for_ready(self, base_url: str, timeout_s: float = 30.0) -> None: ...

    def stop_container(self) -> None: ...


class Bare:
    """A class somebody wrote with nothing but start and stop."""

    def start(self) -> str:
        return ""

    def stop(self) -> None: ...


class DockerSwarmProvider(Container):
    """Takes replicas=, without saying so in its signature."""


class OwnReplicas(Bare):
    def start(self, replicas: int = 2) -> str:
        return ""


def planned(provider: type, env: dict[str, str] | None = None, **options: Any) -> ProviderCalls:
    counts = {key: options.pop(key) for key in ("replicas", "workers") if key in options}
    arguments = {key.replace("__", "."): text for key, text in options.items()}
    return plan_calls(provider, ServerRequest(arguments, env or {}, **counts), 60)


def refusal(provider: type, **options: Any) -> str:
    with pytest.raises(ProviderError) as caught:
        planned(provider, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_key_goes_to_the_call_that_names_it() -> None:
    calls = planned(Process, project_path=".", port="8001", timeout_s="5")
    assert (calls.init, calls.start, calls.ready) == ({"project_path": "."}, {"port": 8001}, {"timeout_s": 5})
    assert (calls.start_name, calls.stop_name) == ("start", "stop")
    assert planned(Container, image="x").start_name == "start_container"


def test_values_are_json_where_they_parse_and_text_where_the_provider_wants_text() -> None:
    calls = planned(Process, project_path="2026", reload="true", start__note="fast one")
    assert calls.init == {"project_path": "2026", "reload": True}
    assert calls.start == {"note": "fast one"}
    assert planned(Container, image="1.0").start == {"image": "1.0"}
    assert planned(Container, image='"1.0"').start == {"image": "1.0"}


def test_a_prefix_names_the_call_and_reaches_its_open_arguments(golden: Golden) -> None:
    calls = planned(Process, init__project_path=".", start__anything="1", ready__timeout_s="7")
    assert (calls.init, calls.start, calls.ready) == ({"project_path": "."}, {"anything": 1}, {"timeout_s": 7})
    golden(refusal(Process, project_path=".", init__anything="1"))


def test_an_unknown_key_is_refused_with_the_nearest_one_and_all_of_them(golden: Golden) -> None:
    golden(refusal(Process, project_pth="."))
    golden(refusal(Bare, image="x"))
    assert "'base_url'" in refusal(Container, image="x", base_url="http://h")


def test_a_missing_argument_is_named(golden: Golden) -> None:
    golden(refusal(Process))
    golden(refusal(Container))


def test_variables_travel_as_env_vars(golden: Golden) -> None:
    calls = planned(Process, {"MODE": "fast"}, project_path=".", workers=2)
    assert calls.start == {"workers": 2, "env_vars": {"MODE": "fast"}}
    assert planned(Container, image="x", workers=2).start["env_vars"] == {"WORKERS": "2"}
    assert planned(Container, {"WORKERS": "3"}, image="x", workers=2).start["env_vars"] == {"WORKERS": "3"}
    with pytest.raises(ProviderError) as caught:
        planned(Bare, {"MODE": "fast"})
    golden(caught.value)
    with pytest.raises(ProviderError, match=r"write env\.NAME=VALUE"):
        planned(Container, {"MODE": "fast"}, image="x", env_vars="{}")


def test_replicas_are_providers_of_their_own_unless_the_provider_replicates_by_itself(golden: Golden) -> None:
    assert (planned(Bare).copies, planned(Bare).hosts) == (1, 1)
    assert (planned(Bare, replicas=3).copies, planned(Bare, replicas=3).hosts) == (3, 3)
    for provider in (OwnReplicas, DockerSwarmProvider):
        options = {"image": "x"} if provider is DockerSwarmProvider else {}
        calls = planned(provider, replicas=3, **options)
        assert (calls.copies, calls.hosts, calls.start["replicas"]) == (1, 3, 3)
        assert planned(provider, **options).hosts is None
    golden(refusal(Container, image="x", port="8000", replicas=2))


def test_a_readiness_of_30_seconds_is_raised_and_a_longer_one_left() -> None:
    assert planned(Container, image="x").ready == {"timeout_s": 60}
    assert planned(Process, project_path=".").ready == {}
    assert planned(Bare).ready == {}


def test_a_class_that_cannot_start_anything_is_no_provider(golden: Golden) -> None:
    golden(refusal(dict))


def test_classes_are_imported_by_name() -> None:
    assert load_class("collections:OrderedDict").__name__ == "OrderedDict"
    for name, says in {
        "no_such_module.x:P": "no_such_module.x:P does not import: there is no module 'no_such_module' here",
        "collections:NoSuch": "collections has no 'NoSuch'",
        "json:dumps": "json:dumps is no class but of type function",
    }.items():
        with pytest.raises(ProviderError) as caught:
            load_class(name)
        assert str(caught.value).startswith(says)


def test_without_openenv_one_line_says_how_to_get_it(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'openenv'", name="openenv")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ProviderError) as caught:
        load_class("openenv.core.containers.runtime:UVProvider")
    golden(caught.value)


@pytest.mark.parametrize("text", ["provider", "provider:mine", "provider:mine.P", "provider:a:b c"])
def test_the_class_must_be_written_as_module_and_class(text: str) -> None:
    with pytest.raises(GrammarError, match="write provider:MODULE:CLASS"):
        open_target(parse_target(text), root=Path("/nowhere"))


def test_our_own_keys_are_checked_before_anything_starts(golden: Golden) -> None:
    with pytest.raises(GrammarError) as caught:
        open_target(parse_target("provider:m:P,replicas=none"), root=Path("/nowhere"))
    golden(caught.value)


def test_what_may_be_a_secret_is_never_shown_whatever_its_key() -> None:
    text = "provider:m:P,api_key=hush1,env.TOKEN=hush2,init.password=hush3,image=fine,url=https://me:hush4@h/x"
    spec = parse_target(text)
    assert redact_target(spec) == "provider:m:P,api_key=***,env.TOKEN=***,image=fine,init.password=***,url=https://h/x"
    stored = " ".join(redact_command(["pytest", "--openenv-target", text]))
    assert "hush" not in stored
    assert "image=fine" in stored
    assert secret_values(ServerRequest({"api_key": "hush1", "image": "fine"}, {"TOKEN": "hush2"})) == {"hush1", "hush2"}
