"""`openenv-scale check`: whether the sessions of a training run fit on a server."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .console import complain, print_lines, stop_printing, width

if TYPE_CHECKING:
    from pytest_openenv_scale.checks.preflight.questions import AnsweredQuestion, CheckVerdict
    from pytest_openenv_scale.checks.subject import Subject
    from pytest_openenv_scale.config.workload import ActionSource
    from pytest_openenv_scale.core.endpoint import Endpoint
    from pytest_openenv_scale.reporting import Line
    from pytest_openenv_scale.targets.url import UrlTarget

T = TypeVar("T")

HELP = "say in seconds whether a server holds the sessions of a training run"

EXIT_CODES = {"met": 0, "missed": 1, "inconclusive": 3}
"""By what the questions add up to; 2 is a server that cannot be reached, or bad input."""

_SESSIONS, _TIMEOUT, _MOST_SESSIONS, _WAIT_S = "64", "30s", 16_384, 0.02


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "url", metavar="URL", help="the server; several joined by commas share the sessions; env:FILE reads OPENENV_URL"
    )
    parser.add_argument(
        "--sessions", default=_SESSIONS, metavar="N", help=f"how many it should hold at once (default: {_SESSIONS})"
    )
    parser.add_argument(
        "--action",
        metavar="JSON",
        help='send this action: JSON in which "$wait" stands for a wait, @FILE.jsonl with one per step, or '
        "module:function called with (session, step); without it the server's /schema decides",
    )
    parser.add_argument("--reset", metavar="JSON", help="send this JSON object with every reset")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="HEADER",
        help="send 'Name: value' or 'Name: env:VARIABLE' with every request; never shown; repeatable",
    )
    parser.add_argument(
        "--timeout", default=_TIMEOUT, metavar="TIME", help=f"wait for any one answer so long (default: {_TIMEOUT})"
    )
    parser.add_argument("--seed", default="0", metavar="N", help="seed everything random (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file as well")


def run(given: argparse.Namespace) -> int:
    """Ask a running server, in seconds, what a training run needs of it.

    Do so many sessions fit, which limit refused the rest, are sessions isolated, do slots come back, does a step
    block the others. Exit code 0 where they fit, 1 where they do not or one of these is missed, 2 where the server
    cannot be reached or the input is wrong, 3 where something that decides could not be told.
    """
    from pytest_openenv_scale.config.workload import WorkloadError
    from pytest_openenv_scale.core.errors import GrammarError, TargetError
    from pytest_openenv_scale.reporting.text.checks import with_command_options

    progress = _Progress()
    try:
        asked = _read(given)
        progress.say("waiting for a first session")
        with asked.target as endpoint:
            return _check(asked, _subject(asked, endpoint), endpoint, progress)
    except (GrammarError, TargetError, WorkloadError) as error:
        progress.end()
        return complain("check", with_command_options(str(error)))
    finally:
        progress.end()


@dataclass(frozen=True)
class _Options:
    """The command line, read; `timeout` in seconds."""

    target: UrlTarget
    sessions: int
    action: ActionSource | None
    reset: dict[str, Any] | None
    timeout: float
    seed: int
    json: Path | None


def _read(given: argparse.Namespace) -> _Options:
    """Read the command line.

    Raises:
        GrammarError: a value cannot be used; one line that names the option.
    """
    from pytest_openenv_scale.config import values
    from pytest_openenv_scale.config.workload import parse_action, parse_reset
    from pytest_openenv_scale.core.parsing import parse_count, parse_seconds
    from pytest_openenv_scale.targets.common.options import TargetContext
    from pytest_openenv_scale.targets.url import UrlTarget

    here = values.ValueOrigin("command line", "the command line", Path.cwd())
    sessions = parse_count(given.sessions, maximum=_MOST_SESSIONS, what="--sessions")
    headers = _option("--header", lambda: values.headers(given.header, here))
    return _Options(
        UrlTarget(values.url(given.url, here)[0], TargetContext(here.directory, sessions, headers)),
        sessions,
        _option("--action", lambda: parse_action(given.action, here.directory)) if given.action is not None else None,
        _option("--reset", lambda: parse_reset(given.reset)) if given.reset is not None else None,
        parse_seconds(given.timeout, positive=True, what="--timeout"),
        _option("--seed", lambda: values.seed(given.seed, here)),
        _writable(given.json) if given.json is not None else None,
    )


def _option(name: str, parse: Callable[[], T]) -> T:
    from pytest_openenv_scale.core.errors import GrammarError

    try:
        return parse()
    except GrammarError as error:
        raise GrammarError(f"{name}: {error}") from None


def _writable(path: Path) -> Path:
    from pytest_openenv_scale.core.errors import GrammarError

    if path.is_dir():
        raise GrammarError(f"--json: {path} is a directory; name a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise GrammarError(f"--json: {path} cannot be written; name a file in a directory that can")
    return path


def _subject(asked: _Options, endpoint: Endpoint) -> Subject:
    """Return the server as checks see it.

    Raises:
        WorkloadError: no action can be made of what `/schema` says, or the callable does not import.
    """
    from pytest_openenv_scale.checks.preflight.questions import MAX_SESSIONS
    from pytest_openenv_scale.checks.subject import Subject
    from pytest_openenv_scale.client.http import server_schema
    from pytest_openenv_scale.config.workload import make_workload
    from pytest_openenv_scale.core.own_process import standard_library_first

    schema = server_schema(endpoint.urls[0], endpoint.headers)
    of_action: Any = (schema or {}).get("action")
    if asked.action is not None and asked.action.kind == "callable":
        # The folder is where a user's modules are; a script's own would be on the path in its place.
        sys.path[:] = standard_library_first([str(Path.cwd()), *sys.path])
    taken = cast("dict[str, Any]", of_action) if isinstance(of_action, dict) else None
    workload = make_workload(taken, asked.action, asked.reset)
    workload.maker(None)
    return Subject(
        endpoint=endpoint,
        workload=workload,
        max_sessions=min(MAX_SESSIONS, max(2, asked.sessions)),
        wait_s=_WAIT_S if workload.waits else None,
        timeout_s=asked.timeout,
        soak_s=0.0,
        seed=asked.seed,
        schema=schema,
    )


def _check(asked: _Options, subject: Subject, endpoint: Endpoint, progress: _Progress) -> int:
    """Ask, print while asking, and return the exit code."""
    from pytest_openenv_scale.checks.preflight.questions import ask_questions, questions, verdict
    from pytest_openenv_scale.core import formatting
    from pytest_openenv_scale.reporting.text.checks import answer_lines, check_heading, question_lines

    columns, encoding = width(), sys.stdout.encoding
    started, began = datetime.now(UTC), time.monotonic()
    subject.report_progress = progress.say
    progress.end()
    _tell(check_heading(endpoint.target, asked.sessions, width=columns, encoding=encoding))
    findings: list[AnsweredQuestion] = []
    for finding in ask_questions(
        subject, questions(asked.sessions), lambda question: progress.say(question.progress_text)
    ):
        progress.end()
        lines = question_lines(
            finding.question.name,
            finding.result,
            decides=finding.question.decides,
            advised=[before.result.remedy or "" for before in findings],
            width=columns,
            encoding=encoding,
        )
        _tell(lines)
        findings.append(finding)
    found, took_s = verdict(findings, asked.sessions), time.monotonic() - began
    said = f"{found.text} ({formatting.seconds(took_s)})"
    _tell(answer_lines(found.outcome, said, width=columns, encoding=encoding))
    if asked.json is not None:
        _write(asked.json, _document(asked, endpoint, findings, found, started, took_s))
    return EXIT_CODES[found.outcome]


def _tell(lines: list[Line]) -> None:
    """Print, as long as somebody reads: the exit code is an answer too."""
    try:
        print_lines(lines)
        sys.stdout.flush()
    except BrokenPipeError:
        stop_printing()


def _document(
    asked: _Options,
    endpoint: Endpoint,
    findings: list[AnsweredQuestion],
    found: CheckVerdict,
    started: datetime,
    took_s: float,
) -> dict[str, Any]:
    return {
        "format": 1,
        "target": endpoint.target,
        "sessions": asked.sessions,
        "outcome": found.outcome.value,
        "exit_code": EXIT_CODES[found.outcome],
        "answer": found.text,
        "started_at": started.isoformat(),
        "took_s": round(took_s, 3),
        "questions": [
            {
                "name": finding.question.name,
                "decides": finding.question.decides,
                "took_s": round(finding.took_s, 3),
                **finding.result.to_json(),
            }
            for finding in findings
        ],
    }


def _write(path: Path, document: dict[str, Any]) -> None:
    from pytest_openenv_scale.core.errors import GrammarError

    try:
        path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise GrammarError(f"--json: {path} cannot be written: {error.strerror}") from None


class _Progress:
    """One line on a terminal's standard error that says what is being asked; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._shown = False

    def say(self, text: str) -> None:
        """Show this instead of what was shown."""
        from pytest_openenv_scale.reporting.text.checks import progress_line

        if sys.stderr.isatty():
            sys.stdout.flush()
            sys.stderr.write(f"\r\x1b[K{progress_line(text, width=width(), encoding=sys.stderr.encoding)}")
            sys.stderr.flush()
            self._shown = True

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
