"""What a mark outranks, which limits apply, and the command that reruns a curve."""

from __future__ import annotations

import shlex

import pytest
from configured import Resolve, resolver

from pytest_openenv_scale.config.limits import Limit, Slo, slo_for_curve
from pytest_openenv_scale.config.search import SearchRange
from pytest_openenv_scale.config.settings import ScalingMark, Steps, option_name, rerun_options
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.config.workload import ActionSource
from pytest_openenv_scale.core.parsing import Arrival
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.plugin.marks import scaling

LINES = ActionSource("lines", ({"a": 1}, {"a": 2}, {"a": 3}))


@pytest.fixture
def settle(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    return resolver(pytester, monkeypatch)


def test_without_a_mark_nothing_changes(settle):
    settings = settle("--openenv-batches=4")
    assert settings.with_mark(None) == settings
    assert settings.with_mark(ScalingMark()) == settings


MARKED = [
    ("batches", "2", "4", (4,), (2,)),
    ("waits", "2", 0.5, (0.5,), (2.0,)),
    ("reps", "2", 3, 3, 2),
    ("modes", "http", "ws", ("ws",), ("http",)),
    ("steps", "2", 3, 3, 2),
    ("arrival", "burst", "rate=5", Arrival("rate", 5.0), Arrival("burst")),
    ("think", "1s", "exponential=2s", ThinkTime("exponential", (2.0,)), ThinkTime("fixed", (1.0,))),
    ("ramp", "1s", 2, 2.0, 1.0),
    ("for_", "1s", "2s", 2.0, 1.0),
    ("timeout", "1s", "2s", 2.0, 1.0),
    ("action", '{"a": 1}', {"a": 2}, ActionSource("json", {"a": 2}), ActionSource("json", {"a": 1})),
    ("reset", '{"seed": 1}', {"seed": 2}, {"seed": 2}, {"seed": 1}),
    ("search", "16..4096", True, SearchRange(), SearchRange(16, 4096)),
    ("precision", "10%", 0, 0.0, 0.1),
]


def test_every_argument_of_the_mark_is_an_option_too():
    assert {case[0] for case in MARKED} == set(ScalingMark.__dataclass_fields__)


@pytest.mark.parametrize(("name", "text", "marked", "value", "other"), MARKED)
def test_a_mark_outranks_ini_and_default(settle, name, text, marked, value, other):
    mark = scaling(**{name: marked})
    for settings in (settle().with_mark(mark), settle(ini=f"openenv_{option_name(name)} = {text}").with_mark(mark)):
        assert getattr(settings, name) == value
        assert settings.sources[option_name(name)] == "mark"


@pytest.mark.parametrize(("name", "text", "marked", "value", "other"), MARKED)
def test_the_command_line_outranks_a_mark(settle, name, text, marked, value, other):
    settings = settle(f"--openenv-{option_name(name)}={text}").with_mark(scaling(**{name: marked}))
    assert getattr(settings, name) == other
    assert settings.sources[option_name(name)] == "command line"


def test_a_mark_takes_the_think_time_of_an_ini_file_back(settle):
    assert settle(ini="openenv_think = 2s").with_mark(scaling(think=0)).think is None
    assert settle("--openenv-think=0").with_mark(scaling(think=2)).think is None


def test_a_mark_changes_only_what_it_writes(settle):
    settings = settle(ini="openenv_reps = 2").with_mark(scaling(batches=4))
    assert (settings.batches, settings.reps, settings.waits) == ((4,), 2, (0.1, 1.0))
    assert (settings.sources["batches"], settings.sources["reps"], settings.sources["waits"]) == (
        "mark",
        "ini",
        "default",
    )


# One step per line of an action file


def test_an_action_file_gives_as_many_steps_as_it_has_lines(settle, pytester):
    pytester.path.joinpath("actions.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    settings = settle("--openenv-action=@actions.jsonl")
    assert (settings.steps, settings.sources["steps"]) == (2, "default")
    assert settings.with_mark(ScalingMark(action=LINES)).steps == 2
    assert settle().with_mark(ScalingMark(action=LINES)).steps == 3


def test_steps_that_are_written_stay(settle):
    assert settle("--openenv-steps=5").with_mark(ScalingMark(action=LINES)).steps == 5
    assert settle(ini="openenv_steps = 5").with_mark(ScalingMark(action=LINES)).steps == 5
    assert settle().with_mark(ScalingMark(action=LINES, steps=Steps(1))).steps == 1


def test_a_mark_with_one_action_takes_the_steps_of_an_ini_file_back(settle, pytester):
    pytester.path.joinpath("actions.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    settings = settle(ini="openenv_action = @actions.jsonl")
    assert settings.steps == 2
    assert settings.with_mark(scaling(action={"a": 1})).steps == 1


# Axes and limits


def test_an_axis_keeps_what_was_declared_before_the_command_line_narrowed_it(settle):
    settings = settle("--openenv-waits=1", "--openenv-modes=http", ini="openenv_waits = 2").with_mark(
        scaling(modes="ws", batches=[4, 8])
    )
    assert settings.axis("waits") == (1.0, 2.0)
    assert settings.axis("modes") == ("http", "ws")
    assert settings.axis("batches") == (4, 8)


def test_limits_come_from_the_command_line_then_the_marks_then_ini(settle):
    settings = settle("--openenv-slo=max_batch>=8", ini="openenv_slo =\n  success>=0.5\n  rps>=1")
    slos = settings.slos([Slo((Limit("max_batch", 64), Limit("success", 0.9)))])
    chosen = slo_for_curve(slos, 1.0, "ws")
    assert [(limit.name, limit.allowed, limit.source) for limit in chosen.limits] == [
        ("max_batch", 8, "command line"),
        ("success", 0.9, "mark"),
        ("rps", 1.0, "ini"),
    ]


def test_without_limits_there_are_none(settle):
    assert settle().slos() == ()


# The command that reruns a curve


def rerun(settings, *, target="local", mode="ws", wait=1.0):
    return rerun_options(settings, target=parse_target(target), mode=mode, wait=wait)


def test_a_test_that_has_one_curve_needs_no_options(settle):
    assert rerun(settle(ini="openenv_waits = 1")) == ""


def test_a_rerun_picks_the_curve_among_several(golden, settle):
    settings = settle(ini="openenv_modes = ws,http\nopenenv_target =\n  local\n  local,server=uvicorn")
    golden(rerun(settings, target="local,server=uvicorn", mode="http", wait=0.1))


@pytest.mark.parametrize(
    "target", ['local,env.X="0,1"', 'slurm:partition="short,long"', 'local:"a,b",label="it\'s, x"']
)
def test_a_rerun_writes_values_with_commas_as_they_are_read(settle, target):
    option, text = shlex.split(rerun(settle(f"--openenv-target={target}", ini="openenv_waits = 1"), target=target))
    assert option == "--openenv-target"
    assert parse_target(text) == parse_target(target)


def test_a_rerun_repeats_what_the_command_line_gave_and_nothing_else(settle):
    settings = settle(
        "--openenv-target=local,server=uvicorn",
        "--openenv-batches=1,8..32",
        "--openenv-waits=1,2",
        "--openenv-slo=max_batch>=8",
        "--openenv-slo=success>=0.9",
        '--openenv-action={"a": 1}',
        "--openenv-full-grid",
        "--openenv-header=X-A: hunter2",
        "--openenv-note=a note",
        "--openenv-results=runs",
        ini="openenv_reps = 3",
    )
    assert shlex.split(rerun(settings, target="local,server=uvicorn", wait=2.0)) == [
        *("--openenv-target", "local,server=uvicorn", "--openenv-waits", "2", "--openenv-batches", "1,8..32"),
        *("--openenv-action", '{"a": 1}', "--openenv-slo", "max_batch>=8", "--openenv-slo", "success>=0.9"),
        *("--openenv-header", "X-A: …", "--openenv-full-grid"),
    ]


def test_a_rerun_keeps_a_file_of_actions_in_one_word_since_pytest_reads_a_lone_one_as_arguments(settle, tmp_path):
    (tmp_path / "two.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    option = f"--openenv-action=@{tmp_path}/two.jsonl"
    assert shlex.split(rerun(settle(option), wait=None)) == [option]


def test_a_rerun_of_a_curve_without_a_wait_names_none(settle):
    assert rerun(settle("--openenv-waits=1"), wait=None) == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--openenv-url=https://u:hunter2@h/p?k=hunter2"], "--openenv-url 'https://h/p?k=***'"),
        (["--openenv-target=https://u:hunter2@h"], "--openenv-target https://h"),
        (
            ["--openenv-target=local,env.MY_TOKEN=hunter2"],
            "--openenv-target 'local,env.MY_TOKEN=***'",
        ),
    ],
)
def test_a_rerun_holds_no_secret(settle, arguments, expected):
    settings = settle(*arguments, ini="openenv_waits = 1")
    assert rerun_options(settings, target=settings.targets[0], mode="ws", wait=1.0) == expected


def test_a_rerun_names_the_file_that_a_url_was_read_from(settle, pytester):
    pytester.path.joinpath(".env").write_text("OPENENV_URL=http://u:hunter2@h\n")
    settings = settle("--openenv-url=env:.env", ini="openenv_waits = 1")
    assert rerun_options(settings, target=settings.targets[0], mode="ws", wait=1.0) == "--openenv-url env:.env"


def test_the_options_of_a_rerun_give_the_same_settings(settle):
    settings = settle("--openenv-target=local,a=1", "--openenv-batches=3", "--openenv-seed=7", "--openenv-until-done")
    repeated = settle(*shlex.split(rerun(settings, target="local,a=1", wait=0.1)))
    assert (repeated.targets, repeated.batches, repeated.seed, repeated.until_done) == (settings.targets, (3,), 7, True)
    assert repeated.waits == (0.1,)


def test_a_rerun_thinks_and_arrives_alike(settle, pytester):
    pytester.path.joinpath("times.txt").write_text("1\n2s\n")
    written = ("--openenv-think=@times.txt", "--openenv-arrival=rate=5", "--openenv-for=1m", "--openenv-ramp=5s")
    settings = settle(*written, "--openenv-steps=until_done=9", ini="openenv_waits = 1")
    words = shlex.split(rerun(settings))
    assert "--openenv-think=@times.txt" in words  # One word: pytest takes one that begins with @ for a file of its own.
    repeated = settle(*words)
    for name in ("think", "arrival", "ramp", "for_", "steps", "until_done"):
        assert getattr(repeated, name) == getattr(settings, name)
