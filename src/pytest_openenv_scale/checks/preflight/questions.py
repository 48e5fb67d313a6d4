"""The questions of `openenv-scale check`, in their order, and the one answer they add up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckResult

from .answer import Answer, wire_text
from .fitting import fits, second_session, slots_back
from .freshness import sequential
from .holding import Held, hold
from .isolation import interleaved
from .replies import largest_reply, played
from .responsiveness import health, parallel
from .run import DIED, Check, run_check
from .subject import Subject
from .validate import validate

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
class Finding:
    """A question and what came of it; `took_s` seconds."""

    question: Question
    result: CheckResult
    took_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for a trainer, in one sentence: met, missed or inconclusive."""

    outcome: CheckOutcome
    text: str


def questions(sessions: int) -> tuple[Question, ...]:
    """Return what is asked of a server that is to hold so many sessions, the first question first."""
    held = partial(hold, sessions=sessions)

    def of_held(judge: Callable[[Held, Subject], CheckResult]) -> Check:
        async def check(subject: Subject) -> CheckResult:
            return judge(await subject.learn(held), subject)

        return check

    second = of_held(lambda found, _: second_session(found))
    fitting = of_held(lambda found, subject: fits(found, subject.endpoint))
    slots = of_held(lambda found, _: slots_back(found))
    wanted = text_of.count_of(sessions, "session")
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
) -> Iterator[Finding]:
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
        yield Finding(question, result, time.monotonic() - started)
        if outcomes["reachable"] is not CheckOutcome.MET:
            return


async def reachable(subject: Subject) -> CheckResult:
    """Play one session and say what each part of it took, and which action it played."""
    found = await subject.learn(played)
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
        f"connect {text_of.seconds(found.connect.latency_s)}, reset {text_of.seconds(found.reset.latency_s)}, "
        f"step {text_of.seconds(found.step_s)}, close {_close(found.closed)}"
    )
    return CheckResult(
        CheckOutcome.MET, f"/ws answers: {took}; the action is {action} ({subject.workload.source})", figures=figures
    )


def _close(closed: Answer) -> str:
    return text_of.seconds(closed.latency_s) if closed.over else f"not answered ({closed})"


def verdict(findings: list[Finding], sessions: int) -> Verdict:
    """Add up what was found: missed if anything that decides is missed, met only where nothing of it is in doubt."""
    deciding = [finding for finding in findings if finding.question.decides]
    missed = [finding for finding in deciding if finding.result.outcome is CheckOutcome.MISSED]
    doubtful = [finding for finding in deciding if finding.result.outcome is CheckOutcome.INCONCLUSIVE]
    capacity = next((finding.result for finding in findings if finding.question.name == "capacity"), None)
    if capacity is None:
        first = findings[0].result
        return Verdict(_outcome(missed, doubtful, deciding), f"it cannot be told whether they fit: {first.headline}")
    said = _capacity(capacity, sessions)
    broken = [_broken(finding) for finding in missed if finding.question.name not in ("capacity", "second")]
    if broken:
        joined = "; and" if capacity.outcome is CheckOutcome.MISSED else ", but"
        said += f"{joined} {' and '.join(dict.fromkeys(broken))}"
    if doubtful:
        said += f"; not known: {', '.join(dict.fromkeys(finding.question.name for finding in doubtful))}"
    return Verdict(_outcome(missed, doubtful, deciding), said)


def _broken(finding: Finding) -> str:
    return "the server died" if finding.result.headline.startswith(DIED) else finding.question.broken or ""


def _capacity(result: CheckResult, sessions: int) -> str:
    if result.outcome is CheckOutcome.MET:
        return f"{text_of.count_of(sessions, 'session')} {'fits' if sessions == 1 else 'fit'}"
    if result.remedy is None:
        return result.headline
    # The whole of it stands beside the question.
    return f"{result.headline} → {result.remedy.partition(';')[0].partition(' (')[0]}"


def _outcome(missed: list[Finding], doubtful: list[Finding], deciding: list[Finding]) -> CheckOutcome:
    if missed:
        return CheckOutcome.MISSED
    met = any(finding.result.outcome is CheckOutcome.MET for finding in deciding)
    return CheckOutcome.MET if met and not doubtful else CheckOutcome.INCONCLUSIVE
