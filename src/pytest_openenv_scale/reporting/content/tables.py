"""Tables as plain values: verdicts, workloads, targets, plan, environment, failures, hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pytest_openenv_scale.analysis.study import BatchPoint, Study, StudyCurve
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.loads import arrival_text
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.results.outcome import CheckRecord, CheckResult, WarmUp
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from . import verdicts, wording
from .refusals import refusal_sentence
from .searches import search_sentences
from .server_cost import cost_sentence
from .windows import check_windows, moment, unjudged_name, window_spans, windows_sentences
from .wording import CHECK_MARKS, check_name, figure_text, visible_columns

_MESSAGE_CHARACTERS = 300
"""The most characters of a server's message that are shown."""


@dataclass(frozen=True, slots=True)
class Value:
    """One cell: the text that is shown and, where there is one, the number it stands for.

    Numbers are in the units of the run: seconds, bytes, fractions of 1, sessions, sessions per second.
    """

    text: str
    number: float | None = None

    def __str__(self) -> str:
        return self.text


MISSING = Value(formatting.MISSING)
"""The cell of a figure that is not known; never 0."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in which nothing has been escaped; `notes` say how to read it.

    Heads are unique: `right` names the columns of numbers by them, `code` those of names and commands, `bold` those
    that matter most. `drop` are those left out where there is no room, the first first, and how that names them.
    """

    key: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    right: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    code: frozenset[str] = frozenset()
    bold: frozenset[str] = frozenset()
    drop: Mapping[str, str] = field(default_factory=dict[str, str])

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def texts(self) -> list[list[str]]:
        """What the rows show."""
        return [[cell.text for cell in row] for row in self.rows]

    def value(self, row: Sequence[Value], head: str) -> Value:
        """Return the cell of a row under a head."""
        return row[self.heads.index(head)]

    def select(self, **texts: str) -> tuple[tuple[Value, ...], ...]:
        """Return the rows that show these texts: `table.select(infrastructure="local-docker", mode="ws")`."""
        return tuple(
            row for row in self.rows if all(self.value(row, head).text == text for head, text in texts.items())
        )


def text_table(
    key: str,
    title: str,
    heads: str,
    rows: Iterable[Iterable[str]],
    *,
    right: str = "",
    code: str = "",
    bold: str = "",
) -> Table:
    """Return a table of text alone; `heads` and those of them in `right`, `code` and `bold` are separated by `|`."""
    cells = tuple(tuple(map(Value, row)) for row in rows)
    numbers, names, strong = (frozenset(filter(None, columns.split("|"))) for columns in (right, code, bold))
    return Table(key, title, tuple(heads.split("|")), cells, numbers, code=names, bold=strong)


def drop_order(*heads: str) -> Mapping[str, str]:
    """Return the columns that may be left out of a table, the first first, which go by their heads."""
    return {head: head for head in heads}


VERDICT_HEADS = "test|target|mode|wait|max batch|per core|verdict|because"


def verdicts_table(curves: Iterable[tuple[str, SweepView, CurveView]]) -> Table:
    """Return a row per curve, after the name of what was measured: its max batch, its verdict and why."""
    rows = [
        (
            on_one_line(view.test),
            on_one_line(name),
            curve.curve.mode,
            wait_text(curve.curve.wait),
            wording.max_batch_text(curve.verdict),
            formatting.number(curve.verdict.max_batch_per_core),
            f"{wording.OUTCOME_MARKS[curve.verdict.outcome]} {curve.verdict.outcome}",
            on_one_line(verdicts.verdict_reason(curve)),
        )
        for name, view, curve in curves
    ]
    right = "wait|max batch|per core"
    return text_table("verdicts", "Verdicts", VERDICT_HEADS, rows, right=right, code="test", bold="verdict")


def checks_table(checks: Sequence[CheckRecord]) -> Table:
    """Return a row per check: the server it was asked of, its verdict and why."""
    rows = [
        (
            check_name(check),
            check.infrastructure,
            f"{CHECK_MARKS[check.result.outcome]} {check.result.outcome}",
            check.result.headline,
        )
        for check in checks
    ]
    table = text_table("checks", "Checks", "check|target|verdict|because", rows, code="check", bold="verdict")
    notes = dict.fromkeys(f"{check.infrastructure}: {note}" for check in checks for note in check.notes)
    return replace(table, notes=tuple(notes))


def targets_table(sweeps: Iterable[SweepView]) -> Table:
    """Return a row per target: its specification, start-up time, cores, hosts, hardware and settings."""
    rows: dict[str, tuple[str, ...]] = {}
    for view in sweeps:
        record = view.record
        limits = ", ".join(f"{name} {value}" for name, value in record.limits.items())
        rows[f"{record.infrastructure} {record.target}"] = (
            record.infrastructure,
            record.target,
            formatting.seconds(record.startup_s),
            formatting.count(record.cores),
            formatting.count(record.hosts),
            record.hardware or formatting.MISSING,
            limits or formatting.MISSING,
        )
    heads = "target|specification|start-up|cores|hosts|hardware|settings"
    return text_table("targets", "Targets", heads, rows.values(), right="start-up|cores|hosts", code="specification")


def workloads_table(sweeps: Iterable[SweepView]) -> Table:
    """Return a row per curve: the plan, the limits and the workload of its sessions."""
    rows = [
        (
            view.test,
            view.infrastructure,
            curve.mode,
            wait_text(curve.wait),
            _batches_text(view, curve),
            formatting.count(view.record.reps),
            formatting.count(curve.steps),
            arrival_text(curve.arrival),
            formatting.seconds(view.record.timeout_s),
            ", ".join(limit.text for limit in slo.limits) or formatting.MISSING,
            ", ".join(f"{name} {value}" for name, value in view.record.settings.items()),
        )
        for view in sweeps
        for curve, slo in zip(view.record.curves, view.record.slos, strict=True)
    ]
    heads = "test|target|mode|wait|batches|reps|steps|arrival|timeout|SLO|workload"
    return text_table("plan", "Plan and workload", heads, rows, right="wait|reps|steps|timeout", code="test")


def _batches_text(view: SweepView, curve: Curve) -> str:
    search = view.record.searches.get(curve.id)
    if search is None:
        return ", ".join(map(formatting.count, curve.batches))
    return f"search {formatting.count(search.low)} to {formatting.count(search.high)}"


def samples_table(sweeps: Iterable[SweepView]) -> Table:
    """Return a row per mode of a sweep: the first action that was sent, and the start of its answer."""
    rows = [
        (
            view.test,
            view.infrastructure,
            warm_up.mode,
            warm_up.sample.action or formatting.MISSING,
            _origin(warm_up),
            warm_up.sample.answer or formatting.MISSING,
        )
        for view in sweeps
        for warm_up in view.record.warm_ups
        if warm_up.sample is not None
    ]
    heads = "test|target|mode|first action|origin|its answer"
    return text_table("samples", "What sessions say", heads, rows, code="test|first action|its answer")


def _origin(warm_up: WarmUp) -> str:
    if warm_up.guessed_action:
        return "a guess, as there is no /schema"
    return "made from /schema, may mean nothing" if warm_up.made_action else "as written"


MOST_WINDOWS, _WINDOWS_AT_END = 30, 12
"""The most windows that a table shows, and how many it shows of either end where there are more."""

_WindowFigure = tuple[str, Callable[[Window], Value]]

_OF_WINDOW: Sequence[_WindowFigure] = (
    ("begun", lambda window: count_value(window.begun)),
    ("success", lambda window: percent_value(window.success_rate)),
    ("sess/s", lambda window: rate_value(window.sessions_per_second)),
    ("least open", lambda window: count_value(window.open_least)),
    ("step p50/p99", lambda window: _pair_value(window.step_p50_s, window.step_p99_s)),
    ("memory", lambda window: size_value(window.rss_bytes)),
    ("cores", lambda window: _cores_value(window.cpu_share)),
    ("threads", lambda window: count_value(window.threads)),
    ("descriptors", lambda window: count_value(window.descriptors)),
)
"""The figures of a window; those that no window of a cell has are left out."""

_WINDOW_DROP = ("descriptors", "threads", "begun", "cores", "sess/s", "memory", "least open", "step p50/p99")
"""Those that are left out where there is no room, the first first."""


def windows_tables(curve: StudyCurve) -> list[Table]:
    """Return the windows of the batches on either side of max batch, a table each, in their worst repetition."""
    return [
        _windows_table(f"{_repetition_name(point)} over time", windows, _OF_WINDOW, beginning="ramp")
        for point in curve.bracket
        if (windows := point.worst.windows)
    ]


def _repetition_name(point: BatchPoint) -> str:
    cell = point.worst
    repetition = f", repetition {cell.repetition}" if len(point.repetitions) > 1 else ""
    name = wording.load_name(cell.cell)
    return f"{name[:1].upper()}{name[1:]}{repetition}"


def check_windows_table(result: CheckResult) -> Table:
    """Return a row per window of a check that let sessions play on; of other checks nothing."""
    return _windows_table("Over time", check_windows(result), _OF_WINDOW[1:], beginning="warm-up")


def _windows_table(title: str, windows: Sequence[Window], figures: Sequence[_WindowFigure], *, beginning: str) -> Table:
    names = [unjudged_name(windows, window, beginning) for window in windows]
    ends, unjudged = [*zip(names, windows, strict=True)], [*dict.fromkeys(filter(None, names))]
    notes = [f"{' and '.join(unjudged)} {'is' if len(unjudged) == 1 else 'are'} not judged"] if unjudged else []
    if len(windows) > MOST_WINDOWS:
        ends = [*ends[:_WINDOWS_AT_END], *ends[-_WINDOWS_AT_END:]]
        between = windows[_WINDOWS_AT_END:-_WINDOWS_AT_END]
        left_out = formatting.count_of(len(between), "window")
        notes.append(f"{left_out} between are left out: {', '.join(window_spans(between))}; report.json has all")
    known = [(head, value) for head, value in figures if any(value(window).number is not None for window in windows)]
    rows = [
        (
            Value(f"{f'{name}: ' if name else ''}{moment(window.start_s)} to {moment(window.end_s)}"),
            *(value(window) for _, value in known),
        )
        for name, window in ends
    ]
    heads = ("seconds", *(head for head, _ in known))
    drop = drop_order(*(head for head in _WINDOW_DROP if head in heads))
    return Table("windows", title, heads, tuple(rows), frozenset(heads), tuple(notes), drop=drop)


def failures_table(view: CurveView) -> Table:
    """Return a row per way sessions of a curve failed, in every repetition; the same message is shown once."""
    rows: list[tuple[str, ...]] = []
    shown: dict[tuple[str | None, ...], str] = {}
    for summary, error in ((cell, error) for cell in view.summaries for error in cell.errors):
        message = on_one_line(error.message or "")[:_MESSAGE_CHARACTERS]
        kind = error.phase, error.type, error.code
        rows.append(
            (
                formatting.count(summary.batch),
                f"{summary.repetition}",
                error.phase or formatting.MISSING,
                error.type or formatting.MISSING,
                error.code or formatting.MISSING,
                formatting.count(error.count),
                "as above" if message and shown.get(kind) == message else message,
            )
        )
        shown[kind] = message
    heads = "batch|repetition|phase|type|code|sessions|first message"
    return text_table("failures", "Failed sessions", heads, rows, right="batch|repetition|sessions")


def proxy_hosts_table(view: CurveView) -> Table:
    """Return a row per host of every repetition that was measured behind a proxy."""
    numbers = "batch|repetition|seen by the client|sent by the proxy|failed there"
    return text_table("spread", "Sessions per host", "|".join(PROXY_HOST_HEADS), proxy_host_rows(view), right=numbers)


def environment_table(fingerprint: Mapping[str, Any]) -> Table:
    """Return a row per fact about the machine that measured; the first head is empty."""
    return text_table("environment", "Environment", "|value", _flattened(fingerprint))


def batches_table(
    view: CurveView, rows: Sequence[BatchPoint], verdict_head: str, verdict: Callable[[BatchPoint], str]
) -> Table:
    """Return the figures of every batch of a curve worth showing; beside it stands what became of it."""
    columns = visible_columns(view, rows) if rows else []
    batch, *heads = [column.heading for column in columns] or [""]
    figures = zip(*(column.texts(rows) for column in columns), strict=True)
    cells = [[*map(str.strip, texts)] for texts in figures]
    texts = [[first, verdict(row), *others] for row, (first, *others) in zip(rows, cells, strict=True)]
    table = text_table(
        "batches", "Batches", "|".join([batch, verdict_head, *heads]), texts, right="|".join([batch, *heads])
    )
    droppable = sorted(columns[1:], key=lambda column: -column.drop)
    return replace(table, drop={column.heading: column.name for column in droppable})


def check_figures_table(result: CheckResult) -> Table:
    """Return the figures of a check."""
    rows = [(name, figure_text(value)) for name, value in result.figures.items()]
    return text_table("figures", "Figures", "figure|value", rows, right="value", code="figure")


def _flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of a dotted name and a text; what is unknown is left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flattened(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        elif value is not None:
            size = name.endswith("_bytes") and isinstance(value, int)
            pairs.append((f"{prefix}{name.removesuffix('_bytes') if size else name}", _fact_text(value, size)))
    return pairs


def _fact_text(value: object, is_size: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return formatting.number(value)
    return formatting.size(value) if is_size and isinstance(value, int) else f"{value}"


def curve_remarks(view: CurveView, rows: Sequence[BatchPoint]) -> list[str]:
    """Return the sentences that stand beneath the table of a curve, refusals included."""
    verdict = view.verdict
    sentences = [
        *windows_sentences(view),
        wording.max_batch_sentence(view),
        wording.certainty_sentence(view),
        *search_sentences(view),
        verdicts.first_breach_sentence(view),
        wording.breach_by_repetition(view),
    ]
    sentences += [refusal_sentence(refusal) for refusal in verdict.refused]
    sentences += [reason.text for reason in verdicts.further_reasons(view)]
    sentences += [wording.repetitions_note(rows), wording.few_sessions_note(rows)]
    sentences += [proxy_use_sentence(view), cost_sentence(verdict)]
    return [sentence for sentence in sentences if sentence]


_MOST_HOSTS_LISTED = 6
"""Up to this many hosts the sessions of each are shown, beyond it only the fewest and the most."""

PROXY_HOST_HEADS = ("batch", "repetition", "host", "seen by the client", "sent by the proxy", "failed there", "health")


def host_spread_sentences(view: CurveView) -> list[str]:
    """Return a sentence per batch of a curve behind a proxy, of its most uneven repetition."""
    worst: dict[int, CellSummary] = {}
    for summary in view.summaries:
        if summary.proxy is None or len(summary.proxy.requests) < 2:
            continue
        previous = worst.get(summary.batch)
        if previous is None or _unevenness(summary) > _unevenness(previous):
            worst[summary.batch] = summary
    return [_host_spread_sentence(summary) for summary in worst.values()]


def _unevenness(summary: CellSummary) -> int:
    counts = summary.proxy.requests.values() if summary.proxy else ()
    return max(counts, default=0) - min(counts, default=0)


def _host_spread_sentence(summary: CellSummary) -> str:
    proxy = summary.proxy
    assert proxy is not None
    client_counts = client_host_counts(summary)
    if client_counts == proxy.requests:
        counts = _counts_text(proxy.requests)
        return f"spread at batch {summary.batch:,}: {counts} by the client's count and by {proxy.name}'s"
    if client_counts is None:
        client_text = "not told to the client"
    elif set(client_counts) <= set(proxy.requests):
        client_text = (
            f"{_counts_text({host: client_counts.get(host, 0) for host in proxy.requests})} seen by the client"
        )
    else:
        client_text = f"{_counts_text(client_counts)} seen by the client under names of their own"
    # Over HTTP a session is several requests, each of which goes where the proxy likes.
    proxy_text = (
        f"{_counts_text(proxy.requests)}{' requests' if summary.cell.mode == 'http' else ''} sent by {proxy.name}"
    )
    return f"spread at batch {summary.batch:,}: {client_text}, {proxy_text}"


def proxy_use_sentence(view: CurveView) -> str | None:
    """Return what the proxy itself used at the largest batch of a curve; None where that is not known."""
    measured = [summary for summary in view.summaries if summary.proxy is not None]
    if not measured:
        return None
    last = max(measured, key=lambda summary: summary.batch)
    proxy = last.proxy
    if proxy is None or proxy.cpu_seconds is None or proxy.rss_bytes is None:
        return None
    used = f"{formatting.seconds(proxy.cpu_seconds)} of CPU, {formatting.size(proxy.rss_bytes)} of memory"
    return f"{proxy.name.partition(' ')[0]} itself used {used} at batch {last.batch:,}"


def client_host_counts(summary: CellSummary) -> Mapping[str, int] | None:
    """Return how many sessions each host answered, failed ones included; None where no answer named its host."""
    hosts = {*summary.host_counts, *summary.failed_hosts}
    counts = {host: summary.host_counts.get(host, 0) + summary.failed_hosts.get(host, 0) for host in sorted(hosts)}
    return counts or None


def _counts_text(counts: Mapping[str, int]) -> str:
    if len(counts) <= _MOST_HOSTS_LISTED:
        return " / ".join(formatting.count(count) for count in counts.values())
    return f"{min(counts.values()):,} to {max(counts.values()):,} on each of {len(counts)} hosts"


def proxy_host_rows(view: CurveView) -> Iterator[list[str]]:
    """Yield a row per host of every repetition behind a proxy, in the order of `PROXY_HOST_HEADS`."""
    for summary in view.summaries:
        if summary.proxy is None:
            continue
        client_counts = client_host_counts(summary) or {}
        troubles = {trouble.host: trouble.trouble for trouble in summary.proxy.troubles}
        for host in {**summary.proxy.requests, **client_counts}:
            yield [
                formatting.count(summary.batch),
                f"{summary.repetition}",
                host,
                formatting.count(client_counts.get(host, 0)) if client_counts else formatting.MISSING,
                formatting.count(summary.proxy.requests.get(host)),
                formatting.count(summary.failed_hosts.get(host, 0)),
                (troubles.get(host) or "healthy") if host in summary.proxy.requests else formatting.MISSING,
            ]


def count_value(value: int | None) -> Value:
    """Return a whole number as a cell."""
    return Value(formatting.count(value), value)


def _pair_value(first: float | None, second: float | None) -> Value:
    """Return two durations in seconds as a cell: "9 / 14 ms"; its number is the second."""
    return Value(formatting.seconds_pair(first, second), second)


def _cores_value(value: float | None) -> Value:
    """Return how many cores are busy as a cell."""
    return MISSING if value is None else Value(f"{value:.2f}", value)


def number_value(value: float | None) -> Value:
    """Return a number without a unit as a cell."""
    return Value(formatting.number(value), value)


def seconds_value(value: float | None) -> Value:
    """Return a duration in seconds as a cell."""
    return Value(formatting.seconds(value), value)


def percent_value(fraction: float | None) -> Value:
    """Return a fraction of 1 as a cell that shows per cent."""
    return Value(formatting.percent(fraction), fraction)


def rate_value(value: float | None) -> Value:
    """Return a number per second as a cell."""
    return Value(formatting.rate(value), value)


def size_value(value: float | None) -> Value:
    """Return bytes as a cell."""
    return Value(formatting.size(value), value)


def factor_value(value: float | None) -> Value:
    """Return a ratio as a cell: "×1.83"."""
    return MISSING if value is None else Value(f"×{value:.2f}", value)


def wait_text(wait: float | None) -> str:
    """Return a wait as a row shows it; "–" where waits mean nothing."""
    return formatting.MISSING if wait is None else f"{format_number(wait)} s"


def curve_cells(study: Study, curve: StudyCurve) -> tuple[Value, ...]:
    """Return the cells under `curve_heads`: which curve a row is of."""
    load = ", ".join(wording.arrival_words(curve.curve.curve)) or formatting.MISSING
    arrival = (Value(load),) if len(curve_heads(study)) > len(CURVE_HEADS) else ()
    return Value(curve.infrastructure), Value(curve.mode), Value(wait_text(curve.wait), curve.wait), *arrival


CURVE_HEADS = ("infrastructure", "mode", "wait")


def curve_heads(study: Study) -> tuple[str, ...]:
    """Return what says which curve a row is of; arrival and think time where a curve has others than a held batch."""
    has_arrivals = any(wording.arrival_words(curve.curve.curve) for curve in study.curves)
    return (*CURVE_HEADS, *(("arrival",) if has_arrivals else ()))


def reading_notes(points: Iterable[BatchPoint | None]) -> tuple[str, ...]:
    """Say how the figures of these points are to be read: repetitions, and percentiles of few sessions."""
    measured = [point for point in points if point is not None]
    repeated = any(len(point.repetitions) > 1 for point in measured)
    notes = (
        "each figure is the worst of its repetitions" if repeated else None,
        wording.few_samples_text(point.samples for point in measured),
    )
    return tuple(filter(None, notes))
