"""The questions of `openenv-scale check`, in their order, and the one answer they add up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median

from pytest_openenv_scale.checks.isolation.concurrent import interleaved
from pytest_openenv_scale.checks.isolation.sequential import sequential
from pytest_openenv_scale.checks.run import SERVER_DIED, Check, run_check
from pytest_openenv_scale.checks.session import Answer, wire_text
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.checks.under_load.responsiveness import health, parallel
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult

from .hold import HoldResult, hold
from .judge import fits, second_session, slots_back
from .openenv_validate import validate

MOST = 8
"""Sessions at once in every question but that of capacity."""

_ACTION_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the screen.

    `asking` is what is shown meanwhile. A question with `broken` decides the exit code, and those words say what a
    miss means for a trainer; one without is a note. `plays` says that it uses up slots of a server that leaks them.
    """

    name: str
    asking: str
    check: Check
    broken: str | None = None
    plays: bool = False

    @property
    def decides(self) -> bool:
        """Whether a miss makes the answer "no"."""
        return self.broken is not None


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and what came of it; `took_s` seconds."""

    question: Question
    result: CheckResult
    took_s: float


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The answer for a trainer, in one sentence: met, missed or inconclusive."""

    outcome: CheckOutcome
    text: str


def questions(sessions: int) -> tuple[Question, ...]:
    """Return what is asked of a server that is to hold so many sessions, the first question first."""
    held = partial(hold, sessions=sessions)

    def of_held(judge: Callable[[HoldResult, Subject], CheckResult]) -> Check:
        async def check(subject: Subject) -> CheckResult:
            return judge(await subject.ask_once(held), subject)

        return check

    second = of_held(lambda found, _: second_session(found))
    fitting = of_held(lambda found, subject: fits(found, subject.endpoint))
    slots = of_held(lambda found, _: slots_back(found))
    wanted = formatting.count_of(sessions, "session")
    return (
        Question("reachable", "playing one session", reachable, "a session does not play"),
        Question("second", f"opening {wanted}", second, "a second session is refused" if sessions > 1 else None),
        Question("capacity", f"opening {wanted}", fitting, "they do not fit"),
        Question("slots", "closing them", slots, "slots do not come back"),
        Question("isolation", "playing sessions side by side", interleaved, "sessions are not isolated", plays=True),
        Question(
            "freshness", "playing one after another", sequential, "a session shows the last one's episode", plays=True
        ),
        Question("health", "stepping, and asking /health meanwhile", health, "a step blocks the others", plays=True),
        Question("parallel", "stepping at once", parallel, "a step blocks the others", plays=True),
        Question("replies", "measuring replies", largest_reply),
        Question("validate", "asking what openenv validate asks", validate),
    )


def ask(
    subject: Subject, asked: tuple[Question, ...], began: Callable[[Question], None] = lambda question: None
) -> Iterator[Answered]:
    """Ask one question after the other; a server on which no session plays is asked no further ones.

    One that does not give slots back is asked nothing that would use up more of them.
    """
    outcomes: dict[str, CheckOutcome] = {}
    for question in asked:
        began(question)
        started = time.monotonic()
        if question.plays and outcomes.get("slots") is CheckOutcome.MISSED:
            result = CheckResult(CheckOutcome.SKIPPED, "not asked: each session may cost this server a slot for good")
        else:
            result = run_check(subject, question.check)
        outcomes[question.name] = result.outcome
        yield Answered(question, result, time.monotonic() - started)
        if outcomes["reachable"] is not CheckOutcome.MET:
            return


async def reachable(subject: Subject) -> CheckResult:
    """Play one session and say what each part of it took, and which action it played."""
    found = await subject.ask_once(play_session)
    asked = [("connect", found.connect), ("reset", found.reset), *(("step", step) for step in found.steps)]
    for name, answer in asked:
        if not answer.good:
            return CheckResult(CheckOutcome.INCONCLUSIVE, f"a session on its own does not play: {name}: {answer}")
    action = wire_text(subject.action(wait_s=0.0))
    if len(action) > _ACTION_CHARACTERS:
        action = f"{action[:_ACTION_CHARACTERS]}…"
    figures = {
        "connect_s": found.connect.latency_s,
        "reset_s": found.reset.latency_s,
        "step_s": found.step_s,
        "close_s": found.closed.latency_s,
    }
    took = (
        f"connect {formatting.seconds(found.connect.latency_s)}, reset {formatting.seconds(found.reset.latency_s)}, "
        f"step {formatting.seconds(found.step_s)}, close {_close(found.closed)}"
    )
    return CheckResult(
        CheckOutcome.MET, f"/ws answers: {took}; the action is {action} ({subject.workload.source})", figures=figures
    )


def _close(closed: Answer) -> str:
    return formatting.seconds(closed.latency_s) if closed.ended else f"not answered ({closed})"


def verdict(findings: list[Answered], sessions: int) -> CheckVerdict:
    """Add up what was found: missed if anything that decides is missed, met only where nothing of it is in doubt."""
    deciding = [finding for finding in findings if finding.question.decides]
    missed = [finding for finding in deciding if finding.result.outcome is CheckOutcome.MISSED]
    doubtful = [finding for finding in deciding if finding.result.outcome is CheckOutcome.INCONCLUSIVE]
    capacity = next((finding.result for finding in findings if finding.question.name == "capacity"), None)
    if capacity is None:
        first = findings[0].result
        return CheckVerdict(
            _outcome(missed, doubtful, deciding), f"it cannot be told whether they fit: {first.headline}"
        )
    said = _capacity(capacity, sessions)
    broken = [_broken(finding) for finding in missed if finding.question.name not in ("capacity", "second")]
    if broken:
        joined = "; and" if capacity.outcome is CheckOutcome.MISSED else ", but"
        said += f"{joined} {' and '.join(dict.fromkeys(broken))}"
    if doubtful:
        said += f"; not known: {', '.join(dict.fromkeys(finding.question.name for finding in doubtful))}"
    return CheckVerdict(_outcome(missed, doubtful, deciding), said)


def _broken(finding: Answered) -> str:
    return "the server died" if finding.result.headline.startswith(SERVER_DIED) else finding.question.broken or ""


def _capacity(result: CheckResult, sessions: int) -> str:
    if result.outcome is CheckOutcome.MET:
        return f"{formatting.count_of(sessions, 'session')} {'fits' if sessions == 1 else 'fit'}"
    if result.remedy is None:
        return result.headline
    # The whole of it stands beside the question.
    return f"{result.headline} → {result.remedy.partition(';')[0].partition(' (')[0]}"


def _outcome(missed: list[Answered], doubtful: list[Answered], deciding: list[Answered]) -> CheckOutcome:
    if missed:
        return CheckOutcome.MISSED
    met = any(finding.result.outcome is CheckOutcome.MET for finding in deciding)
    return CheckOutcome.MET if met and not doubtful else CheckOutcome.INCONCLUSIVE


DEFAULT_LIMIT_BYTES = 1024 * 1024
"""The largest message the `websockets` library reads unless it is told otherwise, in bytes (its `max_size`)."""

_STEPS, _PLAY_S = 20, 1.5
"""The most steps of the episode that is played, and seconds after which no further one is taken."""


@dataclass(frozen=True, slots=True)
class PlayedSession:
    """A session from its connection to its end, steps without a wait: its answers, and the largest reply in bytes.

    `replies` is how many messages answered the reset, the state and the steps.
    """

    connect: Answer
    reset: Answer
    steps: tuple[Answer, ...]
    closed: Answer
    largest_bytes: int
    largest: str
    replies: int

    @property
    def step_s(self) -> float:
        """The median latency of a step, in seconds."""
        return median([step.latency_s or 0.0 for step in self.steps])


async def play_session(subject: Subject) -> PlayedSession:
    """Play one session, with a state and up to 20 steps; ask with `subject.learn(played)` to play once.

    Its slowest answer tells later questions how patient to be.
    """
    async with subject.client() as client:
        session = await client.connect()
        connect, heard_of, sizes = session.first_answer, [session.first_answer], list[tuple[int, str]]()

        def heard(answer: Answer, name: str) -> Answer:
            heard_of.append(answer)
            if answer.kind != "silence" and not answer.ended:
                sizes.append((session.last_bytes, name))
            return answer

        reset = heard(await session.reset(subject.reset_data(subject.seed)), "reset")
        steps: list[Answer] = []
        if reset.good:
            heard(await session.state(), "state")
        began = time.perf_counter()
        while reset.good and len(steps) < _STEPS and (not steps or time.perf_counter() - began < _PLAY_S):
            steps.append(heard(await session.step(subject.action(0, len(steps), wait_s=0.0)), f"step {len(steps) + 1}"))
            if steps[-1].kind != "observation" or steps[-1].done:
                break
        subject.slowest_single_s = max(subject.slowest_single_s, *(answer.latency_s or 0.0 for answer in heard_of))
        largest, name = max(sizes, key=lambda size: size[0], default=(0, "reset"))
        return PlayedSession(connect, reset, tuple(steps), await session.close(), largest, name, len(sizes))


async def largest_reply(subject: Subject) -> CheckResult:
    """Say how large replies get, and whether clients that read up to 1 MiB can read them."""
    found = await subject.ask_once(play_session)
    said = f"largest of {found.replies} replies: {_size(found.largest_bytes)}, the answer to {_the(found.largest)}"
    figures = {"largest_reply_bytes": found.largest_bytes, "replies": found.replies}
    if found.largest_bytes <= DEFAULT_LIMIT_BYTES:
        return CheckResult(CheckOutcome.MET, said, figures=figures)
    return CheckResult(
        CheckOutcome.MISSED,
        f"{said}; a client that reads up to 1 MiB ends the session there (1009)",
        "OpenEnv's own client reads up to 100 MB; others need a larger limit (websockets: max_size), or send less",
        figures=figures,
    )


def _size(number: int) -> str:
    return f"{number:,} bytes" if number < 10_000 else f"{number:,} bytes ({formatting.size(number)})"


def _the(name: str) -> str:
    return name if name.startswith("step ") else f"the {name}"
