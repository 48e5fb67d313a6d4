"""The questions of `openenv-scale check`, in their order, and the verdict they add up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pytest_openenv_scale.checks.background import SingleSession, play_single, single_session
from pytest_openenv_scale.checks.isolation.concurrent import interleaved
from pytest_openenv_scale.checks.isolation.repeatability import repeatable
from pytest_openenv_scale.checks.isolation.sequential import sequential
from pytest_openenv_scale.checks.run import Check, Needs, run_check
from pytest_openenv_scale.checks.session import Answer
from pytest_openenv_scale.checks.subject import Subject, sample_action, sample_text
from pytest_openenv_scale.checks.under_load.responsiveness import health, parallel
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, skip_unmet

from .hold import HoldResult, hold
from .http_endpoints import http_endpoints
from .judge import quiet_sessions, second_session, sessions_fit, slots_returned, within_stock_limits
from .messages import odd_messages

MAX_SESSIONS = 8
"""The most sessions at once in every question but that of capacity."""


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the screen.

    `progress_text` is shown meanwhile. A question with a `failure_text` decides the exit code, and the text says what a
    miss means for a trainer; one without is a note. `needs` says what a lone session must be able to do for it, and
    `uses_slots` that it uses up slots of a server that leaks them.
    """

    name: str
    progress_text: str
    check: Check
    failure_text: str | None = None
    needs: Needs = "steps"
    uses_slots: bool = False

    @property
    def decides(self) -> bool:
        """Whether a miss makes the answer "no"."""
        return self.failure_text is not None


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question with its result, how long it took, in seconds, and whether it was `asked` at all."""

    question: Question
    result: CheckResult
    took_s: float
    asked: bool = True


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The answer for a trainer, in one sentence: met, missed or inconclusive."""

    outcome: CheckOutcome
    text: str


def questions(sessions: int, idle_s: float = 0.0) -> tuple[Question, ...]:
    """Return the questions for a server that is to hold `sessions` sessions, in order: those that take long come last.

    Sessions are left quiet for `idle_s` seconds; 0: that is not asked.
    """
    hold_sessions = partial(hold, sessions=sessions, idle_s=idle_s)

    def judging_hold(judge: Callable[[HoldResult, Subject], CheckResult]) -> Check:
        async def check(subject: Subject) -> CheckResult:
            return judge(await subject.learn(hold_sessions), subject)

        return check

    second = judging_hold(lambda result, _: second_session(result))
    fitting = judging_hold(lambda result, subject: sessions_fit(result, subject.endpoint))
    slots = judging_hold(lambda result, _: slots_returned(result))
    quiet = judging_hold(lambda result, _: quiet_sessions(result))

    async def patient(subject: Subject) -> CheckResult:
        return within_stock_limits(await subject.learn(hold_sessions), await subject.learn(play_session))

    session_count = formatting.count_of(sessions, "session")
    return (
        Question("reachable", "playing one session", reachable, "a session does not play"),
        Question(
            "second",
            f"opening {session_count}",
            second,
            "a second session is refused" if sessions > 1 else None,
            needs="sessions",
        ),
        Question("capacity", f"opening {session_count}", fitting, "they do not fit", needs="sessions"),
        Question("slots", "closing them", slots, "slots do not come back", needs="sessions"),
        *(
            [Question("idle", "leaving them quiet", quiet, "quiet sessions are gone", needs="sessions")]
            if idle_s
            else []
        ),
        Question(
            "client", "comparing with the stock client", patient, "the stock client would give up", needs="sessions"
        ),
        Question(
            "health", "stepping, and asking /health meanwhile", health, "a step blocks the others", uses_slots=True
        ),
        Question("parallel", "stepping at once", parallel, "a step blocks the others", uses_slots=True),
        Question("replies", "measuring replies", largest_reply, needs="sessions"),
        Question("handshake", "reading the handshake", handshake, needs="sessions"),
        Question("validate", "asking what openenv validate asks", http_endpoints, needs="http"),
        Question(
            "isolation", "playing sessions side by side", interleaved, "sessions are not isolated", uses_slots=True
        ),
        Question(
            "freshness",
            "playing one after another",
            sequential,
            "a session shows the last one's episode",
            uses_slots=True,
        ),
        Question("seed", "playing one seed twice", repeatable, uses_slots=True),
        Question("messages", "sending what no client should", odd_messages, needs="sessions", uses_slots=True),
    )


def ask_questions(
    subject: Subject, to_ask: tuple[Question, ...], on_start: Callable[[Question], None] = lambda question: None
) -> Iterator[AnsweredQuestion]:
    """Ask one question after another; where a lone session does not play, those that need one that does are not asked.

    Nor are those that use up slots where slots do not come back. `on_start` is called before each question.
    """
    outcomes: dict[str, CheckOutcome] = {}
    for question in to_ask:
        on_start(question)
        started = time.monotonic()
        asked = not (question.uses_slots and outcomes.get("slots") is CheckOutcome.MISSED)
        result = (
            run_check(subject, question.check, question.needs)
            if asked
            else CheckResult(CheckOutcome.SKIPPED, "not asked: each session may cost this server a slot for good")
        )
        if result.unmet in ("steps", "sessions") and outcomes:
            need = "a step that is answered" if result.unmet == "steps" else "a session that opens"
            result = skip_unmet(result, f"it needs {need}")
        outcomes[question.name] = result.outcome
        yield AnsweredQuestion(question, result, time.monotonic() - started, asked and not result.not_asked)


async def reachable(subject: Subject) -> CheckResult:
    """Check that one session plays; report the latency of each phase and the action."""
    played = await subject.learn(play_session)
    for name, answer in [("connect", played.connect), ("reset", played.reset), *played.numbered_steps]:
        if not answer.good:
            return CheckResult(CheckOutcome.INCONCLUSIVE, f"a session on its own does not play: {name}: {answer}")
    answer = sample_text(played.steps[0].data)
    figures = {
        "connect_s": played.connect.latency_s,
        "reset_s": played.reset.latency_s,
        "step_s": played.step_s,
        "close_s": played.closed.latency_s,
    }
    latencies = (
        f"connect {formatting.seconds(played.connect.latency_s)}, reset {formatting.seconds(played.reset.latency_s)}, "
        f"step {formatting.seconds(played.step_s)}, close {_close_text(played.closed)}"
    )
    return CheckResult(
        CheckOutcome.MET,
        f"/ws answers: {latencies}; {sample_action(subject)} was answered {answer}",
        figures=figures,
    )


def _close_text(closed: Answer) -> str:
    return formatting.seconds(closed.latency_s) if closed.ended else f"not answered ({closed})"


def verdict(findings: list[AnsweredQuestion], sessions: int) -> CheckVerdict:
    """Return the verdict: missed if any deciding question is missed, met only where all were asked and answered."""
    deciding = [finding for finding in findings if finding.question.decides]
    missed = [finding for finding in deciding if finding.result.outcome is CheckOutcome.MISSED]
    doubtful = [finding for finding in deciding if finding.result.outcome is CheckOutcome.INCONCLUSIVE]
    not_asked = [finding.question.name for finding in deciding if not finding.asked]
    met = any(finding.result.outcome is CheckOutcome.MET for finding in deciding)
    outcome = CheckOutcome.MET if met and not doubtful and not not_asked else CheckOutcome.INCONCLUSIVE
    outcome = CheckOutcome.MISSED if missed else outcome
    short_of_time = any(finding.result.unmet == "time" for finding in findings)
    more_time = " (a longer --budget gives all questions more time)" if short_of_time else ""
    capacity = next(finding for finding in findings if finding.question.name == "capacity")
    if not capacity.asked:
        why = next(finding.result.headline for finding in findings if finding.result.outcome is not CheckOutcome.MET)
        return CheckVerdict(outcome, f"it cannot be told whether they fit: {why}{more_time}")
    text = _capacity_text(capacity.result, sessions)
    failures = [_failure_text(finding) for finding in missed if finding.question.name not in ("capacity", "second")]
    if failures:
        joined = "; and" if capacity.result.outcome is CheckOutcome.MISSED else ", but"
        text += f"{joined} {' and '.join(dict.fromkeys(failures))}"
    # Where a lone session does not play, what was not asked for it says more.
    unknown = [f.question.name for f in doubtful if not (not_asked and f.question.name == "reachable")]
    if unknown:
        text += f"; not known: {', '.join(unknown)}"
    if not_asked:
        text += f"; not asked: {', '.join(not_asked)}{more_time}"
    return CheckVerdict(outcome, text)


def _failure_text(finding: AnsweredQuestion) -> str:
    if finding.result.exit is not None:
        return "the server died"
    # What the stock client would not wait for is said, as it is nobody's fault that it has limits.
    return finding.result.headline if finding.question.name == "client" else finding.question.failure_text or ""


def _capacity_text(result: CheckResult, sessions: int) -> str:
    if result.outcome is CheckOutcome.MET:
        return f"{formatting.count_of(sessions, 'session')} {'fits' if sessions == 1 else 'fit'}"
    if result.remedy is None:
        return result.headline
    if sum(step.kind != "ask" for step in result.steps) > 1:
        return f"{result.headline} → the steps above"
    # The full remedy is shown with the question.
    return f"{result.headline} → {result.remedy.partition(';')[0].partition(' (')[0]}"


DEFAULT_LIMIT_BYTES = 1024 * 1024
"""The largest message the `websockets` library reads unless it is told otherwise, in bytes (its `max_size`)."""

_SLOW_S = 1.5
_STEPS, _PLAY_S = 20, 1.5
"""The most steps of the session, and after how many seconds no further one is taken."""


async def play_session(subject: Subject) -> SingleSession:
    """Play one session of up to 20 steps without a wait; call it as `subject.learn(play_session)`.

    Where a reset or a step takes seconds, the session that played first is returned.
    """
    single = await subject.learn(single_session)
    if max(single.reset.latency_s or 0.0, single.step_s) >= _SLOW_S:
        return single
    reset = subject.reset_data(subject.seed)
    return await play_single(subject, reset, 0.0, most_steps=_STEPS, longest_s=_PLAY_S, ask_states=False)


async def largest_reply(subject: Subject) -> CheckResult:
    """Check that clients that read messages up to 1 MiB can read the largest reply."""
    replies = (await subject.learn(play_session)).replies
    name, largest = max(replies, key=lambda reply: reply[1].size_bytes, default=("reset", Answer("silence")))
    request = name if name.startswith("step ") else f"the {name}"
    headline = f"largest of {len(replies)} replies: {_size_text(largest.size_bytes)}, the answer to {request}"
    figures = {"largest_reply_bytes": largest.size_bytes, "replies": len(replies)}
    if largest.size_bytes <= DEFAULT_LIMIT_BYTES:
        return CheckResult(CheckOutcome.MET, headline, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"{headline}; a client that reads up to 1 MiB ends the session there (1009)",
        "OpenEnv's own client reads up to 100 MiB; others need a larger limit (websockets: max_size), or send less",
        figures=figures,
    )


async def handshake(subject: Subject) -> CheckResult:
    """Check that the stock client takes what the server accepts a WebSocket with."""
    refusals = (await subject.learn(play_session)).stock_refusals
    if not refusals:
        return CheckResult(CheckOutcome.MET, "the stock client takes it too")
    return CheckResult(
        CheckOutcome.MISSED,
        f"the stock client would refuse this: {'; '.join(refusals)}",
        "look at what answers the upgrade (proxy, ASGI server): it has to be written as RFC 9112 has it",
        figures={"refusals": len(refusals)},
    )


def _size_text(number: int) -> str:
    return f"{number:,} bytes" if number < 10_000 else f"{number:,} bytes ({formatting.size(number)})"
