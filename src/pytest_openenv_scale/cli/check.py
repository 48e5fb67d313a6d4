"""`openenv-scale check`: whether the sessions of a training run fit on a server."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .console import print_lines, stop_printing, terminal_width

if TYPE_CHECKING:
    from pytest_openenv_scale.checks.preflight.questions import AnsweredQuestion, CheckVerdict
    from pytest_openenv_scale.checks.subject import Subject
    from pytest_openenv_scale.config.workload import ActionSource
    from pytest_openenv_scale.core.endpoint import Endpoint
    from pytest_openenv_scale.reporting import Line
    from pytest_openenv_scale.reporting.content.progress import Status
    from pytest_openenv_scale.reporting.text.live import LiveLine
    from pytest_openenv_scale.targets.url import UrlTarget

EXIT_CODES = {"met": 0, "missed": 1, "inconclusive": 3}
"""Exit codes by outcome; 2 is a server that cannot be reached, or bad input."""

_SESSIONS = "64"
_MAX_SESSIONS = 16_384
_TIMEOUT, _IDLE, _BUDGET = "30s", "5s", "30s"

_RESERVE_S = 5.0
"""How long before the time that is printed questions end, in seconds: what they found is then judged and printed."""

_WAIT_S = 0.02
"""How long each step of a held session is asked to take, in seconds, where the environment takes a wait."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "url", metavar="URL", help="server; commas spread sessions over several URLs, env:FILE reads OPENENV_URL"
    )
    parser.add_argument(
        "--sessions",
        default=_SESSIONS,
        metavar="N",
        help=f"number of sessions it should hold at once (default: {_SESSIONS})",
    )
    parser.add_argument(
        "--action",
        metavar="JSON",
        help='action to send: JSON in which "$wait" stands for the wait, @FILE.jsonl with one per step, or '
        "module:function, called with (session, step[, observation]); else it is made from the server's /schema",
    )
    parser.add_argument(
        "--reset",
        metavar="JSON",
        help="JSON object to send with every reset; @FILE.jsonl has one per session, module:function is called with "
        "the session's number",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="HEADER",
        help="header to send with every request: 'Name: value' or 'Name: env:VARIABLE'; never shown; repeatable",
    )
    parser.add_argument(
        "--proxy",
        metavar="URL",
        help="HTTP proxy (CONNECT) to the server: http://[user:password@]host:port or env:VARIABLE",
    )
    parser.add_argument("--insecure", action="store_true", help="accept any TLS certificate; the answer says so")
    parser.add_argument(
        "--timeout", default=_TIMEOUT, metavar="TIME", help=f"time limit for any one answer (default: {_TIMEOUT})"
    )
    parser.add_argument(
        "--idle",
        default=_IDLE,
        metavar="TIME",
        help="time without messages after which sessions must still be there; takes 5 s more, as OpenEnv looks for "
        f"idle ones at intervals (default: {_IDLE}; 0: do not ask)",
    )
    parser.add_argument(
        "--budget",
        default=_BUDGET,
        metavar="TIME",
        help="ask for so long at most, once a first session was waited for and but for the time that sessions are left "
        f"quiet; what is left out is named (default: {_BUDGET})",
    )
    parser.add_argument(
        "--played",
        default="required",
        metavar="WHAT",
        help="whether a session played alone must get more than errors first: required (the default) or any",
    )
    parser.add_argument("--seed", default="0", metavar="N", help="seed of everything that is random (default: 0)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all results to this file as well; - is standard output, the rest goes to standard error",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check whether a running server holds a training run, within a time that is printed first.

    Do that many sessions fit, and which limit refuses the rest? Are sessions isolated? Do slots become free again? Are
    quiet sessions kept? Is the server fast enough for OpenEnv's own client? Does a step block the others? Exit code 0
    if all of it holds, 1 if something does not, 2 if the server cannot be reached or the input is wrong, 3 if something
    that decides is inconclusive or could not be asked.
    """
    from pytest_openenv_scale.core.errors import ScaleError
    from pytest_openenv_scale.core.files import json_output
    from pytest_openenv_scale.reporting.text.checks import with_command_options

    try:
        with json_output(arguments.json) as write_json, CheckProgress() as progress:
            options = _read_options(arguments, progress)
            progress.bound_s = options.bound_s
            _print_heading(options)
            progress.show("waiting for a first session")
            with options.target as endpoint:
                progress.show("asking for its schema")
                subject = _make_subject(options, endpoint, progress)
                return _ask_and_print(options, subject, endpoint, progress, write_json)
    except ScaleError as error:
        raise ScaleError(with_command_options(str(error))) from None


@dataclass(frozen=True)
class _Options:
    """The command line, read; `timeout`, `idle` and `budget` in seconds."""

    target: UrlTarget
    sessions: int
    action: ActionSource | None
    reset: dict[str, Any] | ActionSource | None
    played: str
    timeout: float
    idle: float
    budget: float
    seed: int

    @property
    def bound_s(self) -> float:
        """Within how many seconds everything ends."""
        from pytest_openenv_scale.checks.preflight.hold import quiet_s

        return self.timeout + quiet_s(self.idle) + self.budget

    @property
    def questions_s(self) -> float:
        """How many seconds questions may take, from the first session that was answered."""
        return self.bound_s - self.timeout


def _read_options(arguments: argparse.Namespace, progress: CheckProgress) -> _Options:
    """Read the command line.

    Raises:
        GrammarError: a value cannot be used; one line that names the option.
    """
    from pytest_openenv_scale.config.values import PARSERS, ValueOrigin
    from pytest_openenv_scale.config.workload import Workload, look_in
    from pytest_openenv_scale.core.endpoint import Network
    from pytest_openenv_scale.core.errors import GrammarError
    from pytest_openenv_scale.core.parsing import parse_count, parse_seconds
    from pytest_openenv_scale.targets.common.options import TargetContext
    from pytest_openenv_scale.targets.url import UrlTarget

    origin = ValueOrigin("command line", "the command line", Path.cwd())

    def read(name: str) -> Any:
        try:
            text = getattr(arguments, name)
            return None if text is None else PARSERS[name](text, origin)
        except GrammarError as error:
            raise GrammarError(f"--{name}: {error}") from None

    sessions = parse_count(arguments.sessions, maximum=_MAX_SESSIONS, what="--sessions")
    target = PARSERS["url"](arguments.url, origin)[0]
    timeout_s = parse_seconds(arguments.timeout, positive=True, what="--timeout")
    idle_s = parse_seconds(arguments.idle, what="--idle")
    budget_s = parse_seconds(arguments.budget, positive=True, what="--budget")
    seed, reset, action = read("seed"), read("reset"), read("action")
    # The folder is where a user's modules are; a script's own would be on the path in its place.
    look_in(Path.cwd(), action, reset)
    context = TargetContext(
        origin.directory,
        sessions,
        read("header"),
        timeout_s=timeout_s,
        show_progress=progress.show,
        show_status=progress.show,
        reset=Workload(reset=reset or {}).reset_data(0, seed),
        network=Network(arguments.insecure, read("proxy")),
    )
    return _Options(
        target=UrlTarget(target, context),
        sessions=sessions,
        action=action,
        reset=reset,
        played=read("played"),
        timeout=timeout_s,
        idle=idle_s,
        budget=budget_s,
        seed=seed,
    )


def _print_heading(options: _Options) -> None:
    from pytest_openenv_scale.reporting.text.checks import check_heading

    lines = check_heading(
        options.target.spec,
        options.sessions,
        options.bound_s,
        options.target.context.network,
        width=terminal_width(),
        encoding=sys.stdout.encoding,
    )
    _print_flushed(lines)


def _make_subject(options: _Options, endpoint: Endpoint, progress: CheckProgress) -> Subject:
    """Return the server as checks see it.

    Raises:
        WorkloadError: the callable does not import, or the tool that is named is not there.
    """
    from pytest_openenv_scale.checks.preflight.questions import MAX_SESSIONS
    from pytest_openenv_scale.checks.subject import Subject
    from pytest_openenv_scale.client.http_request import server_schema
    from pytest_openenv_scale.engine.workload import workload_of_checks

    workload = workload_of_checks(endpoint, options.action, options.reset)
    if workload.no_action is None:
        workload.maker(None)
    return Subject(
        endpoint=endpoint,
        workload=workload,
        max_sessions=min(MAX_SESSIONS, max(2, options.sessions)),
        wait_s=_WAIT_S if workload.waits else None,
        timeout_s=options.timeout,
        soak_s=0.0,
        seed=options.seed,
        schema=server_schema(endpoint.urls[0], endpoint.headers, endpoint.network),
        must_play=options.played == "required",
        report_progress=progress.show,
        deadline=min(progress.began + options.bound_s - _RESERVE_S, time.monotonic() + options.questions_s),
    )


def _ask_and_print(
    options: _Options,
    subject: Subject,
    endpoint: Endpoint,
    progress: CheckProgress,
    write_json: Callable[[Any], None],
) -> int:
    """Ask, print while asking, and return the exit code."""
    from pytest_openenv_scale.checks.preflight.questions import ask_questions, questions, verdict
    from pytest_openenv_scale.core import formatting
    from pytest_openenv_scale.reporting.text.checks import answer_lines, question_lines

    columns, encoding = terminal_width(), sys.stdout.encoding
    started, began = datetime.now(UTC), time.monotonic()
    findings: list[AnsweredQuestion] = []
    for finding in ask_questions(
        subject, questions(options.sessions, options.idle), lambda question: progress.show(question.progress_text)
    ):
        progress.clear()
        lines = question_lines(
            finding.question.name,
            finding.result,
            decides=finding.question.decides,
            advised=[earlier.result.remedy or "" for earlier in findings],
            width=columns,
            encoding=encoding,
        )
        _print_flushed(lines)
        findings.append(finding)
    check_verdict, took_s = verdict(findings, options.sessions), time.monotonic() - began
    summary = f"{check_verdict.text} ({formatting.seconds(took_s)})"
    _print_flushed(answer_lines(check_verdict.outcome, summary, width=columns, encoding=encoding))
    write_json(_json_document(options, endpoint, findings, check_verdict, started, took_s))
    return EXIT_CODES[check_verdict.outcome]


def _print_flushed(lines: list[Line]) -> None:
    """Print at once; where the reader is gone go on, as the exit code is an answer too."""
    try:
        print_lines(lines)
        sys.stdout.flush()
    except BrokenPipeError:
        stop_printing()


def _json_document(
    options: _Options,
    endpoint: Endpoint,
    findings: list[AnsweredQuestion],
    check_verdict: CheckVerdict,
    started: datetime,
    took_s: float,
) -> dict[str, Any]:
    return {
        "format": 1,
        "target": endpoint.target,
        "sessions": options.sessions,
        "notes": list(endpoint.network.notes),
        "outcome": check_verdict.outcome.value,
        "exit_code": EXIT_CODES[check_verdict.outcome],
        "bound_s": options.bound_s,
        "answer": check_verdict.text,
        "started_at": started.isoformat(),
        "took_s": round(took_s, 3),
        "questions": [
            {
                "name": finding.question.name,
                "decides": finding.question.decides,
                "asked": finding.asked,
                "took_s": round(finding.took_s, 3),
                **finding.result.to_json(),
            }
            for finding in findings
        ],
    }


class CheckProgress:
    """What is being asked, on standard error, and for how long it has been going on.

    On a terminal it is one line that moves; elsewhere a line is printed now and then. Everything ends within `bound_s`
    seconds. To be entered with `with`.
    """

    def __init__(self, bound_s: float = 0.0) -> None:
        self.began = time.monotonic()
        self.bound_s = bound_s
        self._text = ""
        self._line: LiveLine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Replace the line by this text."""
        if self._line is None:
            from pytest_openenv_scale.reporting.text.live import live_line
            from pytest_openenv_scale.reporting.text.output import Output, can_move

            output = Output(sys.stderr, terminal_width(), before=sys.stdout.flush)
            self._line = live_line(output, moves=can_move(sys.stderr))
        self._text = text
        self._line.show(self._status)

    def clear(self) -> None:
        """Remove the line, until there is something to show again."""
        if self._line is not None:
            self._line.clear()

    def _status(self) -> Status:
        from pytest_openenv_scale.reporting.content.progress import check_status

        return check_status(self._text, time.monotonic() - self.began, self.bound_s)
