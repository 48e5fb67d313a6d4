"""Options and ini keys become settings, or one line that names the option or the key."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path

import pytest
from configured import Resolve, resolver

from pytest_openenv_scale.config.limits import FailOn, Limit
from pytest_openenv_scale.config.options import OPTIONS
from pytest_openenv_scale.config.think import ThinkTime
from pytest_openenv_scale.config.values import PARSERS
from pytest_openenv_scale.config.workload import ActionSource
from pytest_openenv_scale.core.parsing import Arrival
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.plugin.option_values import HEADING


@pytest.fixture
def settle(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    return resolver(pytester, monkeypatch)


def refused(settle: Resolve, *arguments: str, ini: str = "", **where: str) -> str:
    with pytest.raises(pytest.UsageError) as error:
        settle(*arguments, ini=ini, **where)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_nothing_written_gives_the_defaults(settle, pytester):
    settings = settle()
    assert settings.targets == (parse_target("local"),)
    assert settings.batches == (1, 8, 32, 128)
    assert settings.waits == (0.1, 1.0)
    assert (settings.reps, settings.steps, settings.seed) == (1, 1, 0)
    assert settings.modes == ("ws",)
    assert settings.arrival == Arrival("hold")
    assert settings.timeout == 120.0
    assert (settings.action, settings.reset, settings.note, settings.json, settings.processes) == (None,) * 5
    assert (settings.until_done, settings.full_grid) == (False, False)
    assert settings.slo == ()
    assert settings.inconclusive == "fail"
    assert settings.headers == {}
    assert settings.results == pytester.path / ".openenv-results"
    assert settings.report == ("md",)
    assert set(settings.sources.values()) == {"default"}
    assert settings.command_line == {}


CASES = [
    # option, what is written, field, value
    ("target", "local,server=uvicorn", "targets", (parse_target("local,server=uvicorn"),)),
    ("batches", "1,8..32", "batches", (1, 8, 16, 32)),
    ("waits", "500ms", "waits", (0.5,)),
    ("reps", "3", "reps", 3),
    ("again", "0", "again", 0),
    ("modes", "http,ws", "modes", ("http", "ws")),
    ("steps", "20", "steps", 20),
    ("steps", "until_done=20", "steps", 20),
    ("steps", "until_done=20", "until_done", True),
    ("think", "2s", "think", ThinkTime("fixed", (2.0,))),
    ("think", "lognormal=2s,0.8", "think", ThinkTime("lognormal", (2.0, 0.8))),
    ("think", "0", "think", None),
    ("arrival", "rate=50", "arrival", Arrival("rate", 50.0)),
    ("arrival", "steady=1m", "arrival", Arrival("steady", None, 60.0)),
    ("ramp", "10s", "ramp", 10.0),
    ("for", "1m", "for_", 60.0),
    ("timeout", "2m", "timeout", 120.0),
    ("action", '{"wait_seconds": "$wait"}', "action", ActionSource("json", {"wait_seconds": "$wait"})),
    ("action", "pkg.module:make", "action", ActionSource("callable", "pkg.module:make")),
    ("reset", '{"seed": 1}', "reset", {"seed": 1}),
    ("inconclusive", "warn", "inconclusive", "warn"),
    ("processes", "2", "processes", 2),
    ("processes", "auto", "processes", None),
    ("seed", "7", "seed", 7),
    ("note", "a note", "note", "a note"),
    ("results", "none", "results", None),
    ("fail-on", "max_batch:-10%,rps:-5", "fail_on", (FailOn("max_batch", -0.1, True), FailOn("rps", -5.0, False))),
    ("report", "none", "report", ()),
    ("report", "md", "report", ("md",)),
    ("report", "html,md,figures,log,md", "report", ("html", "md", "figures", "log")),
    ("figure-formats", "svg,pdf,svg", "figure_formats", ("svg", "pdf")),
    ("dpi", "300", "dpi", 300),
]


def test_every_option_is_read_in_some_way():
    assert set(PARSERS) == {option.name for option in OPTIONS}


@pytest.mark.parametrize(("option", "text", "field", "value"), CASES)
def test_the_command_line_is_read(settle, option, text, field, value):
    settings = settle(f"--openenv-{option}={text}")
    assert getattr(settings, field) == value
    assert settings.sources[option] == "command line"


@pytest.mark.parametrize(("option", "text", "field", "value"), CASES)
def test_ini_is_read(settle, option, text, field, value):
    settings = settle(ini=f"openenv_{option.replace('-', '_')} = {text}")
    assert getattr(settings, field) == value
    assert settings.sources[option] == "ini"


@pytest.mark.parametrize(
    ("option", "text_given", "ini", "field", "value"),
    [
        ("batches", "4", "8", "batches", (4,)),
        ("reps", "2", "5", "reps", 2),
        ("target", "local,workers=2", "local,workers=3", "targets", (parse_target("local,workers=2"),)),
        ("report", "none", "md", "report", ()),
        ("processes", "auto", "4", "processes", None),
    ],
)
def test_the_command_line_outranks_ini(settle, option, text_given, ini, field, value):
    settings = settle(f"--openenv-{option}={text_given}", ini=f"openenv_{option} = {ini}")
    assert getattr(settings, field) == value
    assert settings.sources[option] == "command line"


@pytest.mark.parametrize("flag", ["until-done", "full-grid"])
def test_a_flag_is_on_when_it_is_written(settle, flag):
    key = flag.replace("-", "_")
    assert getattr(settle(f"--openenv-{flag}"), key) is True
    on = settle(ini=f"openenv_{key} = true")
    assert getattr(on, key) is True
    assert on.sources[flag] == "ini"
    assert getattr(settle(ini=f"openenv_{key} = false"), key) is False


def test_lists_and_numbers_of_toml_are_read(settle):
    ini = 'openenv_target = ["local", "local,server=uvicorn"]\nopenenv_reps = 2\nopenenv_full_grid = true'
    settings = settle(ini=ini, file="pyproject.toml")
    assert [str(spec) for spec in settings.targets] == ["local", "local,server=uvicorn"]
    assert settings.reps == 2
    assert settings.full_grid is True


def test_targets_repeat_and_are_kept_once_in_their_order(settle):
    settings = settle("--openenv-target=local,b=1,a=2", "--openenv-target", "local", "--openenv-target=local,a=2,b=1")
    assert [str(spec) for spec in settings.targets] == ["local,a=2,b=1", "local"]


def test_ini_names_one_target_per_line(settle):
    settings = settle(ini="openenv_target =\n  local\n  local,server=uvicorn")
    assert [str(spec) for spec in settings.targets] == ["local", "local,server=uvicorn"]


WRONG = [
    ("batches", "0", "batches must be whole numbers ≥ 1, got '0'; write for example \"1,8,32..512\""),
    ("waits", "-1", "waits must be ≥ 0 seconds, got '-1'"),
    ("reps", "0", "reps must be a whole number ≥ 1, got '0'"),
    ("reps", "1001", "reps must be at most 1,000, got '1001'"),
    ("again", "-1", "again must be a whole number ≥ 0, got '-1'"),
    ("modes", "wss", "modes are ws and http, got 'wss'; did you mean 'ws'?"),
    ("steps", "x", "steps must be a whole number ≥ 1, got 'x'"),
    ("arrival", "brust", "arrival is hold, burst, rate=R or steady=TIME, got 'brust'; did you mean 'burst'?"),
    ("timeout", "0", "timeout must be > 0 seconds, got '0'"),
    ("timeout", "nan", "timeout must be a number of seconds, got 'nan'; write for example \"2.5s\""),
    ("action", "{", "an action must be JSON, got '{'"),
    ("action", "[1]", 'an action must be a JSON object, "@file.jsonl" or "module:function", got \'[1]\''),
    ("reset", "[1]", 'reset data must be a JSON object, "@file.jsonl" or "module:function", got \'[1]\''),
    ("slo", "max_batch", 'a limit is written like "total_p99<=2s" or "max_batch>=64"'),
    ("slo", "p99<=2s", "'p99' is no limit anybody measures"),
    ("inconclusive", "maybe", "it must be fail or warn, got 'maybe'"),
    ("processes", "0", "processes must be a whole number ≥ 1, got '0'; write a number or \"auto\""),
    ("baseline", " ", 'a run is named by a path, an id, "latest" or a git commit'),
    ("fail-on", "max_batch:+10%", "write max_batch:-10%"),
    ("seed", "-1", "the seed must be a whole number ≥ 0, got '-1'"),
    ("json", ".", "is a directory; write the name of a file"),
    ("report", "pdf", "there is no report 'pdf'; write one of md, html, figures, latex, csv, log, none"),
    ("report", "md,none", "there is no report 'none'"),
    ("figure-formats", "svg,bitmap", "there is no figure format 'bitmap'; write one of svg, png, pdf"),
    ("dpi", "0", "the dots per inch must be a whole number ≥ 36, got '0'"),
    ("dpi", "2400", "the dots per inch must be at most 1,200, got '2400'"),
    ("url", "localhost:8000", "'localhost:8000' is not a URL; write http://host:port or env:FILE"),
    ("url", "local", "'local' is not a URL"),
    ("url", "http://", "names no host"),
    ("target", "local,server", "a target's settings are written key=value, got 'server'"),
]


@pytest.mark.parametrize(("option", "text", "problem"), WRONG)
def test_a_wrong_option_ends_the_run_with_a_line_that_names_it(settle, option, text, problem):
    message = refused(settle, f"--openenv-{option}={text}")
    assert message.startswith(f"--openenv-{option}: ")
    assert problem in message


@pytest.mark.parametrize(("option", "text", "problem"), WRONG)
def test_a_wrong_ini_key_ends_the_run_with_a_line_that_names_it_and_its_file(settle, option, text, problem):
    key = f"openenv_{option.replace('-', '_')}"
    message = refused(settle, ini=f"{key} = {text}")
    assert message.startswith(f"{key} in tox.ini: ")
    assert problem in message


@pytest.mark.parametrize("option", [option.name for option in OPTIONS if option.kind != "flag"])
def test_no_option_takes_an_empty_text(settle, option):
    if option == "header":
        return
    assert refused(settle, f"--openenv-{option}=").startswith(f"--openenv-{option}: ")


def test_a_key_set_with_o_is_named_so(golden, settle):
    golden(refused(settle, "-o", "openenv_reps=0"))


def test_a_flag_in_ini_that_is_neither_true_nor_false_is_refused(settle):
    assert "maybe" in refused(settle, ini="openenv_full_grid = maybe")


TYPED = """
openenv_batches = [1, 8]
openenv_waits = [0.1]
openenv_reps = 3
openenv_full_grid = true
openenv_reset = {seed = "$seed"}
openenv_report = ["md", "html"]
openenv_slo = "success>=99%"
openenv_target = ["local", "docker"]
"""


@pytest.mark.parametrize("table", ["tool.pytest", "tool.pytest.ini_options"])
def test_toml_may_write_values_of_their_own_types(settle, table):
    if table == "tool.pytest" and pytest.version_tuple < (9,):
        assert "below [tool.pytest.ini_options]" in refused(settle, ini=TYPED, file="pyproject.toml", table=table)
        return
    settings = settle(ini=TYPED, file="pyproject.toml", table=table)
    assert (settings.batches, settings.waits, settings.reps, settings.full_grid) == ((1, 8), (0.1,), 3, True)
    assert (settings.reset, settings.report) == ({"seed": "$seed"}, ("md", "html"))
    assert settings.slo == (Limit("success", 0.99, "ini"),)
    assert settings.targets == (parse_target("local"), parse_target("docker"))
    assert settle("-o", "openenv_reps=5", ini=TYPED, file="pyproject.toml", table=table).reps == 5


def test_a_table_that_this_pytest_does_not_read_is_named(golden, settle, monkeypatch):
    monkeypatch.setattr(pytest, "version_tuple", (8, 2, 0))
    monkeypatch.setattr(pytest, "__version__", "8.2.0")
    golden(refused(settle, ini=TYPED, file="pyproject.toml", table="tool.pytest"))


USELESS = ["reps = true", "batches = [[1]]", "waits = {a = 1}", "report = 5", "slo = [5]", "target = 1979-05-27"]


@pytest.mark.parametrize("line", USELESS)
def test_a_value_of_toml_that_is_of_no_use_is_one_line(settle, line):
    message = refused(settle, ini=f"openenv_{line}", file="pyproject.toml")
    assert message.startswith(f"openenv_{line.split()[0]} in pyproject.toml: ")


def test_an_empty_list_of_targets_is_refused(golden, settle):
    golden(refused(settle, ini="openenv_target ="))


# URLs


def test_a_url_becomes_the_one_target(settle):
    settings = settle("--openenv-url", "http://a:1/p,http://b:2,cores=8")
    assert settings.targets == (parse_target("http://a:1/p,http://b:2,cores=8"),)
    assert settings.sources["target"] == "command line"
    assert "url" not in settings.sources


@pytest.mark.parametrize(
    ("arguments", "ini", "labels"),
    [
        (("--openenv-url=http://h", "--openenv-target=local"), "", ("--openenv-url", "--openenv-target")),
        ((), "openenv_url = http://h\nopenenv_target = local", ("openenv_url in tox.ini", "openenv_target in tox.ini")),
    ],
)
def test_a_url_and_a_target_in_one_place_contradict_each_other(golden, settle, arguments, ini, labels):
    golden(refused(settle, *arguments, ini=ini))


def test_a_url_on_the_command_line_outranks_a_target_in_ini(settle):
    settings = settle("--openenv-url=http://h", ini="openenv_target = local,workers=2")
    assert settings.targets == (parse_target("http://h"),)


def test_a_target_on_the_command_line_outranks_a_url_in_ini(settle):
    settings = settle("--openenv-target=local", ini="openenv_url = http://h")
    assert settings.targets == (parse_target("local"),)
    assert settings.sources["target"] == "command line"


@pytest.mark.parametrize(
    "line",
    [
        "OPENENV_URL=http://h:1",
        "export OPENENV_URL=http://h:1",
        '  OPENENV_URL = "http://h:1"  # runs here',
        "OPENENV_URL='http://h:1'",
        "OPENENV_URL=http://h:1 # comment",
        "OPENENV_URL=http://old\nOTHER=1\n\n# OPENENV_URL=http://no\nOPENENV_URL=http://h:1",
        "\ufeffOPENENV_URL=http://h:1",
    ],
)
@pytest.mark.parametrize("source", ["command line", "ini"])
def test_a_url_is_read_from_a_file(settle, pytester, line, source):
    pytester.path.joinpath("my.env").write_text(line + "\n", encoding="utf-8")
    settings = (
        settle("--openenv-url=env:my.env") if source == "command line" else settle(ini="openenv_url = env:my.env")
    )
    assert settings.targets == (parse_target("http://h:1"),)
    assert settings.sources["target"] == source


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"OPENENV_URL=",
        b"OPENENV_URLS=http://h",
        b"OPENENV_URL=hunter2",
        b"OPENENV_URL=http://u:hunter2@",
        b"OPENENV_URL=local",
        b"\xff\xfe",
    ],
)
def test_a_file_without_a_url_is_refused(golden, settle, pytester, content):
    if content is not None:
        pytester.path.joinpath("my.env").write_bytes(content)
    message = refused(settle, "--openenv-url=env:my.env")
    assert message.startswith("--openenv-url: ")
    golden(message)
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("lines", "target"),
    [
        ("OPENENV_URL=http://h:1\nNUM_WORKERS=3", "http://h:1,hosts=3"),
        ('export OPENENV_URL="http://h:1,http://i:1"\nexport NUM_WORKERS="2"', "http://h:1,http://i:1,hosts=2"),
        ("OPENENV_URL=http://h:1,hosts=2,cores=4\nNUM_WORKERS=3", "http://h:1,hosts=2,cores=4"),
        ("OPENENV_URL=http://h:1\nNUM_WORKERS=", "http://h:1"),
        ("OPENENV_URL=http://h:1\nNUM_WORKERS=many", "http://h:1"),
    ],
)
def test_a_file_also_tells_how_many_hosts_are_behind_its_url(settle, pytester, lines, target):
    pytester.path.joinpath("my.env").write_text(lines, encoding="utf-8")
    assert settle("--openenv-url=env:my.env").targets == (parse_target(target),)


def test_env_without_a_file_is_refused(settle):
    assert "env: names no file" in refused(settle, "--openenv-url=env:")


# Limits, headers, paths


def test_limits_repeat_join_by_commas_and_the_last_of_one_name_counts(settle):
    settings = settle("--openenv-slo=max_batch>=8,success>=90%", "--openenv-slo", "max_batch>=16")
    assert settings.slo == (Limit("max_batch", 16, "command line"), Limit("success", 0.9, "command line"))


def test_limits_of_command_line_and_ini_are_both_kept(settle):
    settings = settle("--openenv-slo=max_batch>=8", ini="openenv_slo =\n  max_batch>=4\n  rps>=1")
    assert [(limit.text, limit.source) for limit in settings.slo] == [
        ("max_batch ≥ 8", "command line"),
        ("max_batch ≥ 4", "ini"),
        ("sessions_per_second ≥ 1/s", "ini"),
    ]
    assert settings.sources["slo"] == "command line"


def test_headers_repeat_and_are_never_shown(settle, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "Bearer hunter2")
    settings = settle("--openenv-header", "X-A: hunter2", "--openenv-header=Authorization: env:MY_TOKEN")
    assert settings.headers == {"X-A": "hunter2", "Authorization": "Bearer hunter2"}
    assert "hunter2" not in repr(settings)
    assert settings.command_line["header"] == ("X-A: …", "Authorization: env:MY_TOKEN")


def test_ini_reads_headers_from_the_environment_only(settle, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    settings = settle(
        "--openenv-header=x-token: mine", ini="openenv_header =\n  X-Token: env:MY_TOKEN\n  X-B: env:MY_TOKEN"
    )
    assert settings.headers == {"x-token": "mine", "X-B": "hunter2"}


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: hunter2",
        "Authorization: env:NOT_SET_ANYWHERE",
        "hunter2",
        "Upgrade: env:PATH",
    ],
)
def test_a_wrong_header_in_ini_is_refused_without_its_value(golden, settle, text):
    message = refused(settle, ini=f"openenv_header =\n  {text}")
    assert message.startswith("openenv_header in tox.ini: ")
    golden(message)
    assert "hunter2" not in message


def test_a_variable_that_cannot_be_a_header_is_refused(settle, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hunter2\nX: y")
    message = refused(settle, "--openenv-header=Authorization: env:MY_TOKEN")
    assert "must be one line" in message
    assert "hunter2" not in message


def test_paths_of_the_command_line_start_where_pytest_was_started(settle, pytester):
    settings = settle("--openenv-results=runs", "--openenv-json=out/report.json", "--openenv-outputs=job.env")
    assert settings.results == pytester.path / "runs"
    assert settings.json == pytester.path / "out/report.json"
    assert settings.outputs == pytester.path / "job.env"


def test_paths_of_ini_start_at_its_file(settle, pytester, monkeypatch):
    inner = pytester.mkdir("inner")
    monkeypatch.chdir(inner)
    settings = settle(ini="openenv_results = runs\nopenenv_json = /tmp/x.json\nopenenv_outputs = job.env")
    assert settings.outputs == pytester.path / "job.env"
    assert settings.results == pytester.path / "runs"
    assert settings.json == Path("/tmp/x.json")


# What others rely on


def test_settings_travel_to_other_processes(settle):
    settings = settle("--openenv-target=local,workers=2", "--openenv-slo=max_batch>=8", '--openenv-action={"a": 1}')
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_password_in_a_url_is_not_in_the_repr(settle):
    settings = settle("--openenv-url=http://u:hunter2@h/x?k=hunter2")
    assert settings.targets[0].urls == ("http://u:hunter2@h/x?k=hunter2",)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_has_one_sentence_of_help_with_its_default(option):
    assert re.fullmatch(r"[A-Z][^\n]*\((repeatable; )?default: [^)]+\)\.", option.full_help)
    assert len(option.full_help) < 240


def test_the_help_lists_every_option_in_one_group_and_every_ini_key(pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = pytester.run(sys.executable, "-m", "pytest", "--help").stdout.str()
    group = text.split(f"{HEADING}:")[1].split("\n\n")[0]
    for option in OPTIONS:
        assert f"  {option.flag}" in group
        assert f"  {option.ini} (" in text
