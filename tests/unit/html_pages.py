"""Studies for tests of the HTML report, and a report taken apart into its elements."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

from study_samples import a_run_of, a_study, an_slo, sample

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import Study, join_runs
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.verdict.sweep import view_sweep

HOSTILE = "<script>document.title='taken'</script></svg></style><img src=x onerror=alert(1)>\"'&amp;{{ 7*7 }}\x1b[31m"
"""What a server, a test or a person could write to get into the page."""

GOOD, BAD = (1.0, 0.05), (0.5, 0.4)
BATCHES = {1: GOOD, 8: GOOD, 32: GOOD, 128: BAD}


def hostile_study() -> Study:
    """A study in which everything that others can write is hostile."""
    study = sample(
        f"local {HOSTILE}",
        BATCHES,
        target=f"http://127.0.0.1:1/{HOSTILE}",
        test=f"t.py::test[{HOSTILE}]",
        hardware=HOSTILE,
        hosts=2,
        limits={HOSTILE: HOSTILE},
        slo=an_slo(max_batch=128),
        error=("reset", HOSTILE, HOSTILE, HOSTILE),
    )
    run = a_run_of(
        study, note=HOSTILE, command=("pytest", HOSTILE), fingerprint={HOSTILE: HOSTILE, "git": {"commit": HOSTILE}}
    )
    sweeps = tuple(
        view_sweep(
            replace(sweep.record, notes=(HOSTILE,), rerun="pytest 'x" + HOSTILE.replace("'", "") + "'"),
            [
                replace(
                    summary,
                    log_tail=HOSTILE,
                    server_exit=ExitStatus("other", HOSTILE),
                    host_counts={HOSTILE: 1, "b": 1},
                )
                for summary in sweep.summaries
            ],
        )
        for sweep in run.sweeps
    )
    return join_runs([replace(run, sweeps=sweeps, problems=(HOSTILE,))])


def large_study() -> Study:
    """Seven infrastructures, forty curves: met, missed and open ends."""
    names = (
        "local-uvicorn",
        "local-hypercorn",
        "local-docker",
        "hf-spaces",
        "slurm-single",
        "slurm-multi",
        "envoy-local",
    )
    places = [(mode, wait) for mode in ("ws", "http") for wait in (0.1, 1.0, 5.0)]
    samples = []
    for at, name in enumerate(names):
        present = places if at < 5 else places[:5]
        curves = {
            mode_and_wait: BATCHES if (at + number) % 3 else {1: GOOD, 8: BAD}
            for number, mode_and_wait in enumerate(present)
        }
        slo = an_slo(max_batch=32) if at % 2 else an_slo(success=0.9)
        samples.append(sample(name, target=f"local:m{at}:app", curves=curves, reps=2, slo=slo))
    return a_study(*samples)


def interrupted_run() -> Run:
    """A run that ended before its second batch."""
    run = a_run_of(sample("a", BATCHES))
    (sweep,) = run.sweeps
    interrupted = view_sweep(replace(sweep.record, status="interrupted"), [sweep.summaries[0]])
    return replace(run, record=replace(run.record, status="interrupted"), sweeps=(interrupted,))


def empty_run(status="failed") -> Run:
    run = a_run_of(sample("a", BATCHES))
    return replace(run, record=replace(run.record, status=status, sweeps=()), sweeps=())


@dataclass
class Parts(HTMLParser):
    """A page as a list of elements and the text that is read."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def parsed(page: str) -> Parts:
    parts = Parts()
    parts.feed(page)
    return parts
