"""`openenv-scale check`, as a person or a training script meets it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from defects.running import in_thread
from goldens import TIMES
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.checks.isolation import reference
from pytest_openenv_scale.checks.preflight import questions as preflight_questions
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult
from scripted_server import refused_port
from server_process import running_server

SLOW = ("interleaved", "sequential", "health", "parallel")
"""Checks of the suite, which have tests of their own."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr("pytest_openenv_scale.targets.url.ATTACH_RETRY_S", 0.1)
    # Nothing here asks what the server uses: looking for its process reads every socket of this machine.
    monkeypatch.setattr("pytest_openenv_scale.targets.common.sampling.listening_processes", lambda port: ())
    return tmp_path


@pytest.fixture
def answering(monkeypatch):
    """Answer the questions of the suite at once: they are met, unless told otherwise."""

    def answer(name: str, outcome: CheckOutcome, headline: str = "so it was", remedy: str | None = None) -> None:
        async def check(subject):
            return CheckResult(outcome, headline, remedy)

        monkeypatch.setattr(preflight_questions, name, check)

    for name in SLOW:
        answer(name, CheckOutcome.MET)
    return answer


def check(capsys, *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, standard error; sessions are not left quiet, which takes ten seconds."""
    code = main(["check", "--idle", "0", *arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def signs(lines: list[str]) -> dict[str, str]:
    """The sign of each question by its name."""
    return {line.split()[1]: line.split()[0] for line in lines[1:-1] if line[2:3] in "✓✗?–!" and line[2:3].strip()}


def test_a_sound_server_passes_every_question_and_exits_0(capsys, monkeypatch):
    # Its environment knows no clock that counts whole seconds.
    monkeypatch.setattr(reference, "_PAUSE_S", 0.05)
    with in_thread(limit=16) as address:
        code, lines, err = check(capsys, f"http://{address}", "--sessions", "8")
    assert (code, err) == (0, "")
    assert lines[0] == f"http://{address} · 8 sessions · ends within 60 s"
    expected = (
        "reachable second capacity slots client isolation freshness seed health parallel replies handshake messages"
    )
    assert signs(lines) == dict.fromkeys([*expected.split(), "validate"], "✓")
    assert lines[-1].startswith("✓ 8 sessions fit (")
    assert len(lines) <= 24


def test_sessions_that_do_not_fit_exit_1_with_the_limit_and_the_setting(golden, answering, capsys):
    with in_thread(limit=4) as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "6")
    assert code == 1
    assert signs(lines)["capacity"] == "✗"
    golden(lines[-2])
    text = " ".join(" ".join(lines).split())
    golden(text[text.index("✗ capacity") : text.index("✓ slots")], masks=TIMES)


def test_a_server_of_one_session_exits_1_with_the_line_to_change(answering, capsys):
    with in_thread("one_session") as address:
        code, lines, _ = check(capsys, f"http://{address}")
    assert code == 1
    assert (signs(lines)["second"], signs(lines)["capacity"], signs(lines)["slots"]) == ("✗", "✗", "✓")
    assert "1 of 64 sessions fit" in lines[-2]
    assert "→ the steps above" in lines[-1]
    assert "3. max_concurrent_envs=64 in create_app(...)" in " ".join(" ".join(lines).split())


def test_one_session_is_enough_for_who_asks_for_one(answering, capsys):
    with in_thread("one_session") as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "1")
    assert code == 0
    assert signs(lines)["second"] == "!"
    assert lines[-1].startswith("✓ 1 session fits (")


def test_a_question_that_is_missed_exits_1_with_what_to_do(golden, answering, capsys):
    answering("interleaved", CheckOutcome.MISSED, "session 1 saw session 2", "one each")
    with in_thread() as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "2")
    assert code == 1
    at = next(number for number, line in enumerate(lines) if "isolation" in line)
    assert lines[at : at + 2] == ["  ✗ isolation  session 1 saw session 2", "               → one each"]
    golden(lines[-1], masks=TIMES)


def test_a_question_that_cannot_be_told_exits_3(golden, answering, capsys):
    answering("health", CheckOutcome.INCONCLUSIVE)
    with in_thread() as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "2")
    assert (code, signs(lines)["health"]) == (3, "?")
    golden(lines[-1], masks=TIMES)


def test_what_the_budget_leaves_no_time_for_is_named_and_exits_3(answering, capsys):
    with in_thread() as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "2", "--budget", "1ms")
    assert code == 3
    assert set(signs(lines).values()) == {"–"}
    assert "a longer --budget gives all questions more time" in " ".join(" ".join(lines).split())


def test_what_was_advised_before_is_not_repeated(answering, capsys):
    answering("health", CheckOutcome.MISSED, "slow", "free the loop")
    answering("parallel", CheckOutcome.MISSED, "in a row", "free the loop")
    with in_thread() as address:
        _, lines, _ = check(capsys, f"http://{address}", "--sessions", "2")
    assert "\n".join(lines).count("→ free the loop") == 1


def test_notes_decide_nothing(answering, capsys):
    answering("http_endpoints", CheckOutcome.MISSED, "5 of 6")
    action = json.dumps({"text": "x" * 1_100_000})
    Path("large.jsonl").write_text(action)
    with in_thread() as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "2", "--action", "@large.jsonl")
    assert (code, signs(lines)["validate"], signs(lines)["replies"]) == (0, "!", "!")


def test_sessions_are_spread_over_several_urls(answering, capsys):
    with in_thread(limit=4) as one, in_thread(limit=4) as other:
        code, lines, _ = check(capsys, f"http://{one},http://{other}", "--sessions", "8")
    assert code == 0, lines


def test_the_url_may_be_in_a_file(answering, capsys):
    with in_thread() as address:
        Path("server.env").write_text(f"OPENENV_URL=ws://{address}\n")
        code, lines, _ = check(capsys, "env:server.env", "--sessions", "2")
    assert (code, lines[0]) == (0, f"ws://{address} · 2 sessions · ends within 60 s")


def test_a_function_of_the_current_folder_makes_the_actions(answering, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_moves.py").write_text("def move(session, step):\n    return {'text': f'{session}/{step}'}\n")
    with in_thread() as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "2", "--action", "my_moves:move")
    assert code == 0
    assert '{"text": "0/0"} was answered' in " ".join(" ".join(lines[1:3]).split())


def test_an_action_the_environment_rejects_exits_3_and_names_the_option_of_this_command(golden, capsys):
    with in_thread() as address:
        code, lines, err = check(capsys, f"http://{address}", "--sessions", "2", "--action", '{"unheard": 1}')
    assert (code, err) == (3, "")
    text = " ".join(" ".join(lines).split())
    golden(text, masks=TIMES)
    assert "--openenv" not in text


def test_everything_is_in_the_json_file(golden, answering, capsys):
    with in_thread(limit=2) as address:
        code, lines, _ = check(capsys, f"http://{address}", "--sessions", "3", "--json", "found.json")
    report = json.loads(Path("found.json").read_text())
    assert (report["format"], report["target"], report["sessions"]) == (1, f"http://{address}", 3)
    assert (report["outcome"], report["exit_code"]) == ("missed", code)
    golden(report["answer"])
    questions = {question["name"]: question for question in report["questions"]}
    assert list(questions) == list(signs(lines))
    capacity = questions["capacity"]
    assert (capacity["outcome"], capacity["decides"], capacity["figures"]["held"]) == ("missed", True, 2)
    texts = [line["text"] for line in capacity["transcripts"][0]["said"]]
    assert [text for text in texts if "CAPACITY_REACHED" in text]
    assert questions["validate"]["decides"] is False


def test_json_is_all_of_standard_output_also_with_words_that_no_file_takes(answering, capsys):
    answering("sequential", CheckOutcome.INCONCLUSIVE, "what \ud800?")
    with in_thread() as address:
        code, lines, err = check(capsys, f"http://{address}", "--sessions", "2", "--json", "-")
    assert code == json.loads("\n".join(lines))["exit_code"] == 3
    assert "what ??" in "\n".join(lines)
    assert "reachable" in signs(err.splitlines())


def test_the_exit_code_is_true_also_where_nobody_reads_on(elsewhere):
    # What plays no session is asked nothing that takes long.
    action = """--sessions 2 --idle 0 --action '{"unheard": 1}'"""
    with in_thread() as address:
        command = f"{sys.executable} -m pytest_openenv_scale check http://{address} {action} --json x | true"
        command += "; echo ${PIPESTATUS[0]}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert json.loads(Path("x").read_text())["exit_code"] == 3


def test_header_values_are_never_shown(answering, capsys, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret-of-the-day")
    arguments = ("--header", "Authorization: env:TOKEN", "--header", "X-Key: t0p", "--json", "found.json")
    with in_thread(limit=1) as address:
        code, lines, err = check(capsys, f"http://user:hunter2@{address}", "--sessions", "2", *arguments)
    output = "\n".join(lines) + err + Path("found.json").read_text()
    assert code == 1
    assert not [secret for secret in ("s3cret", "t0p", "hunter2") if secret in output]


def test_where_nothing_listens_it_exits_2_with_one_line(capsys):
    with refused_port() as port:
        code, lines, err = check(capsys, f"http://127.0.0.1:{port}", "--header", "Authorization: s3cret")
    expected = f"http://127.0.0.1:{port} refused the connection: nothing listens on 127.0.0.1:{port}"
    heading = f"http://127.0.0.1:{port} · 64 sessions · ends within 60 s"
    assert (code, lines, err) == (2, [heading], f"openenv-scale check: {expected}\n")


def test_a_web_server_that_is_no_openenv_exits_2(golden, capsys):
    with running_server() as (_, address):
        code, lines, err = check(capsys, f"http://{address}/elsewhere")
    assert (code, len(lines), err.count("\n")) == (2, 1, 1)
    golden(err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["127.0.0.1"],
        ["env:none.env"],
        ["http://h?x=1"],
        ["http://h", "--sessions", "0"],
        ["http://h", "--sessions", "many"],
        ["http://h", "--timeout", "0"],
        ["http://h", "--seed", "x"],
        ["http://h", "--action", "{"],
        ["http://h", "--action", "@none.jsonl"],
        ["http://h", "--reset", "[]"],
        ["http://h", "--header", "s3cret"],
        ["http://h", "--header", "A: env:UNSET_HERE"],
        ["http://h", "--json", "."],
        ["http://h", "--json", "none/found.json"],
        ["http://h", "--idle", "soon"],
        ["http://h", "--budget", "0"],
    ],
)
def test_bad_input_exits_2_before_anything_is_asked(golden, arguments, capsys):
    code, lines, err = check(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert err.startswith("openenv-scale check: ")
    golden(err, masks={r"'/[^'…]*['…]": "FILE"})  # A path is cut where it is long.
    assert err.count("\n") == 1
    assert "s3cret" not in err


def test_an_action_whose_module_does_not_import_exits_2(golden, capsys):
    with in_thread() as address:
        code, _, err = check(capsys, f"http://{address}", "--action", "no_such_module:move")
    assert code == 2
    golden(err)


@pytest.mark.parametrize("columns", [80, 110])
def test_the_screen_is_one_screen_of_the_terminals_width_also_where_much_is_wrong(
    columns, answering, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    with in_thread("one_session") as address:
        _, lines, _ = check(capsys, f"http://{address}")
    assert max(map(len, lines)) <= columns
    assert len(lines) <= {80: 37, 110: 29}[columns]


def test_a_terminal_that_speaks_ascii_only_gets_ascii(golden, answering, capfdbinary, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with in_thread("one_session") as address, open(1, "w", encoding="ascii", closefd=False) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["check", f"http://{address}", "--sessions", "2", "--idle", "0"]) == 1
    out, err = capfdbinary.readouterr()
    assert err == b""
    text = out.decode("ascii")
    assert "\n  x capacity " in text
    golden([line for line in text.splitlines() if "->" in line], masks=TIMES)


class Terminal(io.StringIO):
    """What a terminal is sent, standard output and error together."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_what_is_being_asked_is_shown_and_wiped_away(answering, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    with in_thread() as address:
        assert main(["check", f"http://{address}", "--sessions", "2", "--idle", "0"]) == 0
    sent = terminal.getvalue()
    shown = ("waiting for a first session", "asking for its schema", "playing one session", "opening 2 sessions")
    places = [sent.index(text) for text in shown]
    assert places == sorted(places)
    before_answers = sent[: sent.index("reachable")].rpartition("\n")[2]
    assert before_answers.startswith("\r\x1b[1A\x1b[2K")  # What was drawn is gone when something else is printed.
    assert "\x1b[1;32m✓ 2 sessions fit" in sent
