"""`spaces:USER/NAME` against a stand-in of the Hub that the real huggingface_hub talks to, in this process."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from goldens import Golden
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import gc, open_target
from pytest_openenv_scale.targets.spaces import api, settings
from pytest_openenv_scale.targets.spaces.settings import NEVER, VCPUS, parse_space

pytest.importorskip("huggingface_hub", reason="needs the huggingface_hub package")

from hub import TOKEN, Hub, HubError, hub
from hub import spaces as hub_spaces
from server_process import running_server

__all__ = ["hub"]
ENV = "alice/env"
Opener = Callable[..., Any]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """One real server for every Space: what it is told by its variables is not looked at here."""
    with running_server() as (_, server_address):
        host, _, port = server_address.partition(":")
        yield host, int(port)


@pytest.fixture(autouse=True)
def one_server(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Shared:
        def __init__(self, variables: dict[str, str]) -> None:
            self.address, self.log = address, ["listening on"]

        def stop(self) -> None:
            pass

    monkeypatch.setattr(hub_spaces, "Server", Shared)


@pytest.fixture
def space(hub: Hub, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Open a target on the stand-in; `token=None` for somebody who is not logged in."""
    monkeypatch.setattr(api, "FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(api, "_FIRST_LOOK_PAUSE_S", 0.02)

    def opened(text: str = f"spaces:{ENV}", *, token: str | None = TOKEN, modes: tuple[str, ...] = ("ws",)) -> Any:
        hub.patch(monkeypatch, tmp_path, token)
        return open_target(parse_target(text), root=tmp_path, show_progress=lines.append, modes=modes, run_id="run-1")

    return opened


def refusal(target: Any) -> str:
    with pytest.raises(TargetError) as caught, target:
        pytest.fail("the target opened")
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def changes(hub: Hub) -> list[tuple[str, Any]]:
    """What was changed on the Hub, in order: the last part of the path and the body."""
    return [(one.path.rpartition("/")[2], one.json()) for one in hub.requests if one.method != "GET"]


# --- what is asked for


def test_keys_become_settings_and_variables() -> None:
    spec = parse_space(
        parse_target(f"spaces:{ENV},hardware=cpu-upgrade,sleep_time=5m,workers=4,max_envs=64,env.MODE=fast")
    )
    assert (spec.repo_id, spec.hardware, spec.sleep_time) == (ENV, "cpu-upgrade", 300)
    assert spec.variables == {"MODE": "fast", "WORKERS": "4", "MAX_CONCURRENT_ENVS": "64"}


def test_temporary_is_written_without_a_value_wherever_it_stands() -> None:
    for text in ("spaces,temporary", f"spaces:{ENV},temporary", f"spaces:{ENV},temporary,hardware=t4-small"):
        assert parse_space(parse_target(text)).temporary
    assert str(parse_target("spaces,temporary")) == "spaces,temporary=yes"


def test_a_url_may_still_hold_the_word_temporary() -> None:
    assert parse_target("http://host/a,temporary").urls == ("http://host/a,temporary",)


@pytest.mark.parametrize(
    "text",
    [
        "spaces",
        "spaces:env",
        "spaces:https://huggingface.co/spaces/a/b",
        f"spaces:{ENV},sleep_time=soon",
        f"spaces:{ENV},hardware=cpu-basic,sleep_time=300",
        f"spaces:{ENV},app=server.app:app",
        f"spaces:{ENV},temporary=no",
        f"spaces:{ENV},env.API_KEY=x",
        f"spaces:{ENV},hardwear=cpu-basic",
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_hub_is_asked(golden: Golden, text: str) -> None:
    with pytest.raises(GrammarError) as caught:
        open_target(parse_target(text), root=Path())
    golden(caught.value)
    assert "\n" not in str(caught.value)


def test_never_sleeping_is_a_sleep_time() -> None:
    assert parse_space(parse_target(f"spaces:{ENV},sleep_time=never")).sleep_time == NEVER


def test_a_missing_package_is_one_line_with_what_to_install(
    golden: Golden, space: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = space()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    golden(refusal(target))


def test_an_old_package_is_told_too(golden: Golden, space: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    target = space()
    monkeypatch.setattr(huggingface_hub, "__version__", "1.4.2")
    golden(refusal(target))


# --- attaching


def test_a_running_space_is_attached_to_and_left_alone(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV).space
    with space() as endpoint:
        assert endpoint.urls == (there.front.url,)
        assert (endpoint.label, endpoint.hardware, endpoint.cores, endpoint.hosts) == ("hf-spaces", "cpu-basic", 2, 1)
        assert endpoint.exit_status() is None
        assert "listening on" in endpoint.log_tail()
    assert changes(hub) == []
    assert endpoint.headers == {}
    assert settings.pending_changes() == []


@pytest.mark.parametrize(("hardware", "cores"), [("cpu-upgrade", 8), ("t4-small", 4), ("quantum-x1", None)])
def test_cores_follow_the_name_of_the_hardware_and_are_unknown_where_it_is(
    hub: Hub, space: Opener, hardware: str, cores: int | None
) -> None:
    hub.add_space(ENV, hardware=hardware, requested=hardware)
    with space() as endpoint:
        assert (endpoint.hardware, endpoint.cores) == (hardware, cores)


def test_replicas_count(hub: Hub, space: Opener) -> None:
    hub.add_space(ENV, replicas=3)
    with space() as endpoint:
        assert (endpoint.hosts, endpoint.cores) == (3, 3 * VCPUS["cpu-basic"])


def test_the_settings_of_the_space_are_known_limits(hub: Hub, space: Opener) -> None:
    hub.add_space(ENV, variables={"WORKERS": "2", "MAX_CONCURRENT_ENVS": "16"})
    with space() as endpoint:
        assert endpoint.limits == {"workers": 2, "max_envs": 16}


def test_somebody_elses_space_is_measured_without_a_token(hub: Hub, space: Opener) -> None:
    hub.add_space("bob/env")
    with space("spaces:bob/env", token=None) as endpoint:
        assert endpoint.limits == {}
        assert endpoint.log_tail() == ""


def test_a_private_space_gets_the_token_and_nobody_else_does(hub: Hub, space: Opener) -> None:
    private = hub.add_space(ENV, private=True).space
    public = hub.add_space("bob/env").space
    with space() as endpoint:
        assert endpoint.headers == {"Authorization": f"Bearer {TOKEN}"}
        assert TOKEN not in repr(endpoint)
    with space("spaces:bob/env"):
        pass
    assert all(TOKEN.encode() in head for head in private.front.seen)
    assert public.front.seen
    assert not any(TOKEN.encode() in head for head in public.front.seen)


def test_a_space_that_sleeps_is_woken_by_a_request(golden: Golden, hub: Hub, space: Opener, lines: list[str]) -> None:
    hub.add_space(ENV, stage="SLEEPING")
    with space(token=None) as endpoint:
        assert endpoint.startup_s > 0
    golden([line.partition(" (after")[0] for line in lines])
    assert changes(hub) == []


def test_a_paused_space_is_restarted_and_paused_again(
    golden: Golden, hub: Hub, space: Opener, lines: list[str]
) -> None:
    there = hub.add_space(ENV, stage="PAUSED").space
    with space():
        assert there.stage == "RUNNING"
    assert there.stage == "PAUSED"
    assert [name for name, _ in changes(hub)] == ["restart", "pause"]
    golden(lines[0])


def test_a_paused_space_of_somebody_else_stays_so(golden: Golden, hub: Hub, space: Opener) -> None:
    hub.add_space("bob/env", stage="PAUSED")
    golden(refusal(space("spaces:bob/env")))


@pytest.mark.parametrize(
    "state",
    [
        {"stage": "BUILDING", "ends": "BUILD_ERROR", "build_log": ["step 3\n", "no such file\n"]},
        {"stage": "APP_STARTING", "ends": "RUNTIME_ERROR", "error_message": "Exit 1\n", "run_log": ["boom\n"]},
        {"stage": "BUILDING", "ends": "CONFIG_ERROR"},
        {"stage": "NO_APP_FILE"},
    ],
    ids=lambda state: state.get("ends", state["stage"]),
)
def test_what_failed_is_told_with_the_end_of_its_log(
    golden: Golden, hub: Hub, space: Opener, state: dict[str, Any]
) -> None:
    hub.add_space(ENV, **state)
    golden(refusal(space()))


def test_a_space_that_takes_too_long_is_given_up(
    golden: Golden, hub: Hub, space: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_openenv_scale.targets.spaces.target.RUNNING_S", 0.0)
    hub.add_space(ENV, stage="BUILDING", build_log=["pulling\n"], run_log=[])
    golden(refusal(space()))


def test_what_runs_but_is_no_openenv_server_is_told_with_the_log(
    golden: Golden, hub: Hub, space: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_openenv_scale.targets.common.readiness.ATTACH_S", 0.3)
    repo = hub.add_space(ENV, private=True, run_log=["serving a demo\n"])
    repo.sdk = "gradio"
    repo.space.rules.private = False
    repo.space.front.backend = None  # Its proxy answers 503, as if nothing listened.
    hub.failures.append(("/variables", HubError(403, "no")))
    golden(refusal(space(modes=("ws",))))


@pytest.mark.parametrize("token", [None, TOKEN], ids=["nobody", "somebody"])
def test_a_space_nobody_knows_is_told(golden: Golden, space: Opener, token: str | None) -> None:
    golden(refusal(space(token=token)))


@pytest.mark.parametrize(
    "error",
    [
        HubError(429, "slow down", headers={"Retry-After": "42"}),
        HubError(502, f"upstream said {TOKEN}"),
        HubError(418, f"a teapot with {TOKEN}"),
    ],
    ids=lambda error: str(error.status),
)
def test_trouble_of_the_hub_is_one_line_without_the_token(
    golden: Golden, hub: Hub, space: Opener, error: HubError
) -> None:
    hub.failures.append(("/api/spaces", error))
    message = refusal(space())
    golden(message)
    assert "\n" not in message


def test_what_passes_by_itself_is_waited_for_and_said_once(
    golden: Golden, hub: Hub, space: Opener, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_space(ENV)
    target = space()
    monkeypatch.setattr(api, "FIRST_RETRY_S", 5.0)
    monkeypatch.setattr(api, "_PAUSE_S", 0.01)
    hub.failures += [("/runtime", HubError(503, "busy")), ("/runtime", HubError(429, "slow down"))]
    with target as endpoint:
        assert endpoint.urls
    golden([line for line in lines if "cannot" in line])


def test_a_space_that_leaves_its_stage_is_seen(golden: Golden, hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV).space
    with space() as endpoint:
        hub.failures.append(("/runtime", HubError(500, "hiccup")))
        assert endpoint.exit_status() is None
        there.halt("SLEEPING")
        golden(endpoint.exit_status())
        there.error_message = "OOM"
        there.halt("RUNTIME_ERROR")
        golden(endpoint.exit_status())


# --- settings


def test_settings_are_set_measured_with_and_put_back(golden: Golden, hub: Hub, space: Opener, lines: list[str]) -> None:
    there = hub.add_space(ENV, variables={"WORKERS": "1", "MODE": "calm"}).space
    with space(f"spaces:{ENV},hardware=cpu-upgrade,sleep_time=600,workers=2,max_envs=8") as endpoint:
        assert (there.hardware, there.sleep_time) == ("cpu-upgrade", 600)
        assert there.variables == {"WORKERS": "2", "MAX_CONCURRENT_ENVS": "8", "MODE": "calm"}
        assert (endpoint.hardware, endpoint.cores) == ("cpu-upgrade", 8)
        assert endpoint.limits == {"workers": 2, "max_envs": 8}
        assert "hardware cpu-basic → cpu-upgrade" in endpoint.notes[0]
    assert changes(hub) == [
        ("variables", {"key": "WORKERS", "value": "2"}),
        ("variables", {"key": "MAX_CONCURRENT_ENVS", "value": "8"}),
        ("hardware", {"flavor": "cpu-upgrade", "sleepTimeSeconds": 600}),
        ("hardware", {"flavor": "cpu-basic"}),
        ("variables", {"key": "WORKERS", "value": "1"}),
        ("variables", {"key": "MAX_CONCURRENT_ENVS"}),
    ]
    assert (there.requested, there.variables) == ("cpu-basic", {"WORKERS": "1", "MODE": "calm"})
    assert settings.pending_changes() == []
    golden(lines[-2:])


def test_hardware_that_was_only_asked_for_is_not_measured_on(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV).space
    with space(f"spaces:{ENV},hardware=cpu-upgrade"):
        assert there.stages == ["RUNNING", "BUILDING", "APP_STARTING", "RUNNING"]
        assert there.hardware == "cpu-upgrade"


def test_hardware_for_a_run_sleeps_by_itself_unless_told_otherwise(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV).space
    with space(f"spaces:{ENV},hardware=cpu-upgrade"):
        assert there.sleep_time == 3600
    with space(f"spaces:{ENV},hardware=cpu-upgrade,sleep_time=never"):
        assert there.sleep_time is None


def test_a_sleep_time_alone_is_changed_and_put_back(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV, hardware="cpu-upgrade", requested="cpu-upgrade", sleep_time=None).space
    with space(f"spaces:{ENV},hardware=cpu-upgrade,sleep_time=300") as endpoint:
        assert there.sleep_time == 300
        assert endpoint.startup_s < api._SETTLE_S  # It does not restart for that.
    assert there.sleep_time is None
    assert changes(hub) == [("sleeptime", {"seconds": 300}), ("sleeptime", {"seconds": -1})]


def test_what_is_as_asked_already_is_left_alone(hub: Hub, space: Opener) -> None:
    hub.add_space(ENV, hardware="cpu-upgrade", requested="cpu-upgrade", variables={"WORKERS": "2"})
    with space(f"spaces:{ENV},hardware=cpu-upgrade,workers=2"):
        pass
    assert changes(hub) == []


def test_the_sleep_time_of_free_hardware_is_refused(golden: Golden, hub: Hub, space: Opener) -> None:
    hub.add_space(ENV)
    golden(refusal(space(f"spaces:{ENV},sleep_time=300")))
    assert changes(hub) == []


def test_hardware_nobody_pays_for_is_told_and_the_rest_put_back(golden: Golden, hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV, pays=False).space
    golden(refusal(space(f"spaces:{ENV},hardware=cpu-upgrade,max_envs=4")))
    assert there.variables == {}
    assert settings.pending_changes() == []


def test_settings_of_somebody_else_cannot_be_changed(golden: Golden, hub: Hub, space: Opener, lines: list[str]) -> None:
    hub.add_space("bob/env")
    golden(refusal(space("spaces:bob/env,hardware=cpu-upgrade")))
    assert not [line for line in lines if "gets back" in line]  # Nothing was changed.
    hub.requests.clear()
    golden(refusal(space("spaces:bob/env,workers=2")))
    assert changes(hub) == []


def test_settings_are_put_back_after_an_error_in_between(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV, ends="BUILD_ERROR").space
    message = refusal(space(f"spaces:{ENV},hardware=cpu-upgrade"))
    assert "could not be built" in message
    assert there.requested == "cpu-basic"


def test_what_cannot_be_put_back_is_told_and_stays_on_file(golden: Golden, hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV).space
    target = space(f"spaces:{ENV},max_envs=4")
    target.__enter__()
    hub.failures.append(("DELETE /api/spaces/alice/env/variables", HubError(403, "no")))
    with pytest.raises(TargetError) as caught:
        target.__exit__(None, None, None)
    golden(caught.value)
    (entry,) = settings.pending_changes()
    assert (entry.repo_id, entry.before.variables) == (ENV, {"MAX_CONCURRENT_ENVS": None})
    assert there.variables == {"MAX_CONCURRENT_ENVS": "4"}
    assert TOKEN not in (settings.state_folder() / f"{entry.id}.json").read_text()


def test_what_is_billed_is_put_back_though_something_else_is_refused(golden: Golden, hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV).space
    target = space(f"spaces:{ENV},hardware=cpu-upgrade,max_envs=4")
    target.__enter__()
    hub.failures.append(("DELETE /api/spaces/alice/env/variables", HubError(403, "no")))
    with pytest.raises(TargetError) as caught:
        target.__exit__(None, None, None)
    golden(caught.value)
    assert (there.requested, there.variables) == ("cpu-basic", {"MAX_CONCURRENT_ENVS": "4"})


def test_a_hub_out_of_reach_at_the_end_is_told_with_all_that_is_left(
    golden: Golden, hub: Hub, space: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    there = hub.add_space(ENV).space
    target = space(f"spaces:{ENV},hardware=cpu-upgrade,max_envs=4")
    target.__enter__()
    monkeypatch.setattr(api.SpaceApi.runtime, "__defaults__", (0.0,))
    with pytest.MonkeyPatch.context() as down:
        session_class = huggingface_hub.get_session().__class__
        down.setattr(session_class, "send", unreachable)
        with pytest.raises(TargetError) as caught:
            target.__exit__(None, None, None)
    golden(caught.value)
    assert there.requested == "cpu-upgrade"
    (entry,) = settings.pending_changes()
    left_by_a_dead_process(entry)
    assert len(gc.collect(["spaces"]).lines) == 1
    assert (there.requested, there.variables) == ("cpu-basic", {})


def unreachable(*arguments: object, **options: object) -> None:
    import huggingface_hub

    # Versions of the client differ in the library they speak HTTP with.
    library = importlib.import_module(type(huggingface_hub.get_session()).__module__.partition(".")[0])
    raise library.ConnectError("[Errno 111] Connection refused")


def test_a_restart_is_waited_for_also_on_the_hardware_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = ["RUNNING", "RUNNING", "APP_STARTING", "RUNNING"]

    class Slow(api.SpaceApi):
        def runtime(self, patience_s: float = 0.0) -> api.Runtime:
            return api.Runtime(stages.pop(0), "cpu-upgrade", "cpu-upgrade", 3600, 1, "")

    monkeypatch.setattr(api, "_FIRST_LOOK_PAUSE_S", 0.0)
    changes = api.AppliedChanges("cpu-upgrade", restarts=True)
    api.wait_until_running(Slow(None, ENV), changes, lambda: None, lambda line: None, start_s=1800.0)
    assert stages == []


def test_what_cannot_be_put_on_file_is_not_changed(
    golden: Golden, hub: Hub, space: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_space(ENV)
    target = space(f"spaces:{ENV},max_envs=4")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    golden(refusal(target))
    assert changes(hub) == []


def test_two_workers_of_one_run_are_told_from_two_runs(golden: Golden, hub: Hub, space: Opener) -> None:
    hub.add_space(ENV)
    target = space(f"spaces:{ENV},max_envs=4")
    other = settings.new_pending_change(hub.url, ENV, "run-1")
    replace(other, owner=other.owner.replace(":", ":1", 1).rpartition(":")[0] + ":elsewhere").write()
    golden(refusal(target))


def test_a_space_another_run_has_changed_is_refused(golden: Golden, hub: Hub, space: Opener) -> None:
    hub.add_space(ENV)
    with space(f"spaces:{ENV},max_envs=4"):
        golden(refusal(space(f"spaces:{ENV},max_envs=9")))


# --- temporary Spaces


def test_a_temporary_space_is_made_private_and_deleted(
    golden: Golden, hub: Hub, space: Opener, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with space("spaces,temporary,max_envs=8,app=builtin") as endpoint:
        ((_, name),) = hub.repos
        repo = hub.repos["space", name]
        assert repo.private
        assert repo.sdk == "docker"
        assert "Dockerfile" in repo.files
        assert endpoint.limits == {"workers": 2, "max_envs": 8}
        assert endpoint.headers == {"Authorization": f"Bearer {TOKEN}"}
        assert name.startswith("alice/openenv-scale-")
    assert hub.repos == {}
    assert settings.pending_changes() == []
    golden([lines[0], lines[-1]], masks={name: "NAME"})


def test_a_space_that_is_there_is_never_made_temporary(golden: Golden, hub: Hub, space: Opener) -> None:
    hub.add_space(ENV)
    golden(refusal(space(f"spaces:{ENV},temporary,app=builtin")))
    assert ("space", ENV) in hub.repos
    assert changes(hub) == []


def test_one_that_comes_up_meanwhile_is_not_taken_either(hub: Hub, space: Opener) -> None:
    hub.failures.append(("POST /api/repos/create", HubError(409, "You already created this space repo")))
    assert "alice/env exists" in refusal(space(f"spaces:{ENV},temporary,app=builtin"))
    assert settings.pending_changes() == []


def test_a_temporary_space_that_fails_to_upload_is_deleted(hub: Hub, space: Opener) -> None:
    hub.failures.append(("/commit/", HubError(403, "no")))
    assert refusal(space("spaces,temporary,app=builtin")).startswith("target spaces: ")
    assert hub.repos == {}


def test_a_temporary_space_is_not_made_of_what_is_not_there(hub: Hub, space: Opener) -> None:
    assert "there is no folder" in refusal(space("spaces,temporary,folder=./nope"))
    assert changes(hub) == []


def test_a_temporary_space_is_made_of_the_environment_in_reach_or_of_what_is_named(
    space: Opener, tmp_path: Path
) -> None:
    assert "there is no openenv.yaml in" in (line := refusal(space("spaces,temporary")))
    assert "add app=module:app or folder=./folder for yours, or app=builtin" in line
    (tmp_path / "openenv.yaml").write_text("app: server.app:app\n")
    sources = {text: space(f"spaces,temporary{text}").source() for text in ("", ",app=a:b", ",app=builtin")}
    assert {text: (source.folder, source.app) for text, source in sources.items()} == {
        "": (tmp_path, None),
        ",app=a:b": (tmp_path, "a:b"),
        ",app=builtin": (None, None),
    }


def test_a_temporary_space_needs_a_token(hub: Hub, space: Opener) -> None:
    assert "run hf auth login" in refusal(space("spaces,temporary", token=None))


# --- what a kill leaves


def left_by_a_dead_process(entry: settings.PendingChange) -> settings.PendingChange:
    """Put an entry on file whose owner has ended."""
    pid, _, machine = entry.owner.split(":")
    left = replace(entry, owner=f"{pid}:of another time:{machine}")
    left.write()
    return left


def test_gc_puts_settings_back_and_leaves_those_of_living_runs(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV, hardware="cpu-upgrade", requested="cpu-upgrade", variables={"MODE": "fast"}).space
    busy = hub.add_space("alice/busy", variables={"MODE": "fast"}).space
    space()
    before = settings.SpaceSettings(hardware="cpu-basic", sleep_time=172800, variables={"MODE": None})
    left_by_a_dead_process(settings.new_pending_change(hub.url, ENV, "run-7", before=before))
    living = settings.new_pending_change(hub.url, "alice/busy", "run-8", before=before)
    living.write()
    line = "changed settings of the Space alice/env: hardware cpu-basic, MODE unset (run run-7)"
    assert gc.collect(["spaces"], dry_run=True).lines == (line,)
    assert changes(hub) == []
    assert gc.collect(["spaces"]).lines == (line,)
    assert (there.requested, there.variables, busy.variables) == ("cpu-basic", {}, {"MODE": "fast"})
    assert settings.pending_changes() == [living]


def test_gc_deletes_a_temporary_space_but_not_a_later_one_of_its_name(golden: Golden, hub: Hub, space: Opener) -> None:
    space()
    entries = [
        left_by_a_dead_process(settings.new_pending_change(hub.url, f"alice/{name}", "run-7", temporary=True))
        for name in ("ours", "later", "gone")
    ]
    hub.add_space("alice/ours", stage="PAUSED", variables={"OPENENV_SCALE_TEMPORARY": entries[0].id})
    hub.add_space("alice/later", stage="PAUSED")
    golden(gc.collect(["spaces"]).lines)
    assert set(hub.repos) == {("space", "alice/later")}
    assert settings.pending_changes() == []


def test_gc_leaves_what_was_changed_on_another_hub(golden: Golden, hub: Hub, space: Opener) -> None:
    space()
    left = left_by_a_dead_process(settings.new_pending_change("http://127.0.0.9:1", ENV, None, temporary=True))
    collected = gc.collect(["spaces"])
    assert collected.lines == ()
    golden(collected.problems)
    assert settings.pending_changes() == [left]


def test_gc_that_may_not_put_back_says_so_and_keeps_the_entry(golden: Golden, hub: Hub, space: Opener) -> None:
    hub.add_space(ENV)
    space(token=None)
    before = settings.SpaceSettings(variables={"WORKERS": None})
    left = left_by_a_dead_process(settings.new_pending_change(hub.url, ENV, None, before=before))
    collected = gc.collect(["spaces"])
    assert collected.lines == ()
    (problem,) = collected.problems
    golden(problem)
    assert settings.pending_changes() == [left]


def test_the_next_run_puts_back_what_a_killed_one_left(
    golden: Golden, hub: Hub, space: Opener, lines: list[str]
) -> None:
    there = hub.add_space(ENV, variables={"MODE": "fast"}).space
    target = space(f"spaces:{ENV},env.MODE=slow")
    before = settings.SpaceSettings(variables={"MODE": "calm"})
    left_by_a_dead_process(settings.new_pending_change(hub.url, ENV, "run-7", before=before))
    with target:
        assert there.variables == {"MODE": "slow"}
    assert there.variables == {"MODE": "calm"}
    golden(lines[0])


def test_hardware_a_killed_run_left_is_not_taken_for_the_spaces_own(hub: Hub, space: Opener) -> None:
    there = hub.add_space(ENV, hardware="cpu-upgrade", requested="cpu-upgrade", sleep_time=3600).space
    target = space(f"spaces:{ENV},hardware=cpu-upgrade")
    before = settings.SpaceSettings(hardware="cpu-basic", sleep_time=172800)
    left_by_a_dead_process(settings.new_pending_change(hub.url, ENV, "run-7", before=before))
    with target as endpoint:
        assert endpoint.hardware == there.requested == "cpu-upgrade"
    assert there.requested == "cpu-basic"


def test_a_journal_that_cannot_be_read_is_passed_over(hub: Hub, space: Opener) -> None:
    space()
    folder = settings.state_folder()
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text(json.dumps({"before": {}}))
    assert settings.pending_changes() == []
