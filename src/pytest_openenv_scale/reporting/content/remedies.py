"""What to change on a server, in words: a few per step, numbered where there are several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pytest_openenv_scale.results.outcome import Step


def steps_words(steps: Sequence[Step], scope: str = "") -> str:
    """Return steps in their order: "1. …; 2. …; then …". `scope` follows the first that sets a limit of sessions."""
    limiting = next((step for step in steps if step.kind in _LIMITS), None)
    changes = [_WORDS[step.kind](step) + (scope if step is limiting else "") for step in steps if step.kind != "ask"]
    after = [f"then ask for {step.name} too: {step.value}" for step in steps if step.kind == "ask"]
    if len(changes) > 1:
        changes = [f"{number}. {change}" for number, change in enumerate(changes, 1)]
    return "; ".join([*changes, *after])


def environment_remedy(code: str | None, phase: str | None, sent: str = "") -> str:
    """Return what to do about an error that an environment answers: only some are of what was sent (`sent`).

    A ValidationError raised inside reset() or step() has the code of one that what was sent raises.
    """
    function, option = ("reset", "--openenv-reset") if phase == "reset" else ("step", "--openenv-action")
    was_sent = f" ({sent} was sent)" if sent else ""
    if code == "FACTORY_ERROR":
        return (
            "its class could not be made, whatever is sent, and OpenEnv does not log why: make one in Python for the "
            "traceback; where only some fail, see what they share: ports, files, memory"
        )
    if code == "422":
        return f"give data it takes: {option}{was_sent}"
    given = "reset data" if phase == "reset" else "action"
    if code == "VALIDATION_ERROR":
        return (
            f"where the field it names is one of the {given}, give data it takes: {option}{was_sent}; where it is of "
            f"the observation, mend {function}()"
        )
    if code == "EXECUTION_ERROR":
        needs = f", or give what it needs with {option}" if phase == "reset" else ""
        return (
            f"mend {function}(), which raised this{needs}: OpenEnv does not log where, so call it in Python with the "
            f"same {given}{was_sent}"
        )
    return "see the server's log"


def breakers_words(steps: Sequence[Step]) -> str:
    """Return how a proxy's circuit breakers are raised: one without the others changes nothing."""
    *names, last = (step.name for step in steps)
    return f"raise {', '.join(names)} and {last} together, to {steps[0].value} or more"


def _object(step: Step) -> str:
    return f"give each session an environment of its own: all get the one made at {step.where}"


def _attribute(step: Step) -> str:
    where = f"class {step.where}" if step.sure else "the environment's class, where it is missing"
    return f"{step.name} = {step.value} in {where}"


def _argument(step: Step) -> str:
    unsure = "" if step.sure else ", where the app does not read MAX_CONCURRENT_ENVS"
    return f"{step.name}={step.value} in {step.where}{unsure}"


def _variable(step: Step) -> str:
    return f"{step.name}={step.value} where the server is started"


def _key(step: Step) -> str:
    if step.name in ("limit_concurrency", "max_connections"):
        return f"leave out {step.name}= in the target, or make it {step.value} or more"
    return f"{step.name}={step.value} in the target"


def _option(step: Step) -> str:
    if step.name == "--limit-concurrency":
        return f"start uvicorn without {step.name}, or with {step.value} or more"
    return f"start {'the server' if step.name == '--max-envs' else 'uvicorn'} with {step.name} {step.value}"


def _ulimit(step: Step) -> str:
    return f"`ulimit {step.name} {step.value}` or more where the server is started"


_LIMITS = ("argument", "variable", "key", "option")

_WORDS: Mapping[str, Callable[[Step], str]] = {
    "object": _object,
    "attribute": _attribute,
    "argument": _argument,
    "variable": _variable,
    "key": _key,
    "option": _option,
    "ulimit": _ulimit,
}
