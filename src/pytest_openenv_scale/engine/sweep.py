"""A sweep: every curve of one test on one target, measured cell by cell and judged."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.config.limits import Slo, make_limit, slo_for_curve
from pytest_openenv_scale.config.plan import Cell, Curve, limit_below_wait, plan_curves
from pytest_openenv_scale.config.settings import Settings
from pytest_openenv_scale.config.timing import Timing
from pytest_openenv_scale.config.workload import Workload
from pytest_openenv_scale.core.endpoint import Endpoint, proxy_facts_between
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.measure_lock import LockHolder
from pytest_openenv_scale.core.parsing import format_number, parse_arrival, short_repr
from pytest_openenv_scale.core.system import install_command, wait_for
from pytest_openenv_scale.core.text import LOG_LINES, count_new_lines
from pytest_openenv_scale.load.ipc import AnsweredError, CellRequest
from pytest_openenv_scale.load.machine import await_calm
from pytest_openenv_scale.load.runner import CellResult, LoadError, LoadGenerator
from pytest_openenv_scale.metrics.cost import most_open
from pytest_openenv_scale.metrics.summary import CellSummary, summarise_part
from pytest_openenv_scale.results.cell import CellMeta, ClientFinding, SessionRow
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import CurveVerdict, Outcome, StopReason, WarmUp
from pytest_openenv_scale.results.parts import Part, join_parts
from pytest_openenv_scale.results.progress import LoadProgress, Position
from pytest_openenv_scale.results.run_directory import RunDirectory
from pytest_openenv_scale.results.spool import PartWriter
from pytest_openenv_scale.verdict.cell import doubted_for_the_client
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView, join_curves, view_curve

from .allowance import Allowance, OutOfTime
from .cooldown import Cooldown
from .forecast import Forecast
from .search import possible_courses
from .server_watch import ServerWatch
from .source import CellSource, Grid, Searching, most_failures, plan_search
from .tally import SessionTally
from .warm_up import SoloSessions, read_warm_up, warm_up_steps
from .workload import find_workload

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_END_S = 1.0
"""Seconds a server gets to end after one of its processes has: its supervisor may end the others first."""

_UNRECORDED = 0
"""The repetition of sessions that are played for another reason than to be measured."""


class SweepError(Exception):
    """Nothing can be measured: no action can be made, or the environment rejects it; one line."""


class Observer:
    """Is called as a sweep goes on; each method does nothing unless overridden."""

    def curve_started(self, curve: Curve) -> None:
        """A curve begins."""

    def waits_for_lock(self, holder: LockHolder) -> None:
        """Another measurement on this machine is waited for; called several times a second."""

    def warm_up_started(self) -> None:
        """Nothing else is measured any more; a session of each mode plays alone."""

    def cell_started(self, cell: Cell, position: Position) -> None:
        """A repetition of a cell begins."""

    def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
        """A repetition of a cell goes on; called about twice a second."""

    def attempt_set_aside(self, cell: Cell, summary: CellSummary) -> None:
        """A repetition is in doubt by the client's fault alone: it is measured again once the machine is calm."""

    def cell_done(self, cell: Cell, summary: CellSummary) -> None:
        """One repetition of a cell is measured and stored."""

    def curve_done(self, view: CurveView) -> None:
        """A curve is complete, or was stopped, and is judged."""

    def note(self, text: str) -> None:
        """Something a person should know once."""


@dataclass(frozen=True)
class Sweep:
    """What `scaling.run()` returns: the curves, their cells, the verdicts and where the rows are."""

    view: SweepView
    run_dir: Path | None
    """The directory of the run; None where nothing is kept."""
    parts: tuple[Part, ...]
    """Where the rows are stored, one part per cell and repetition; a run that is not kept has them until it ends."""

    def __repr__(self) -> str:
        """A few words: pytest shows it where an assertion on a sweep fails."""
        record = self.view.record
        return f"<Sweep of {record.test} on {record.target}: {self.outcome}, {count_of(len(self.cells), 'cell')}>"

    @cached_property
    def table(self) -> pa.Table:
        """One row per session, read when first asked for.

        Those of attempts that were set aside are in the directory of the run alone.

        Raises:
            PartError: a part is damaged, or the run was not kept and is over.
        """
        return join_parts(self.parts)

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves, in the order they were measured."""
        return tuple(view.curve for view in self.view.curves)

    @property
    def cells(self) -> tuple[CellSummary, ...]:
        """One summary per cell and repetition."""
        return self.view.summaries

    @property
    def verdicts(self) -> tuple[CurveVerdict, ...]:
        """One verdict per curve."""
        return tuple(view.verdict for view in self.view.curves)

    @property
    def outcome(self) -> Outcome:
        """Missed if any curve is, met if all are, else inconclusive."""
        return self.view.outcome

    def max_batch(self, *, wait: float | None = None, mode: str | None = None) -> int | None:
        """Return the max batch of the one curve selected; None where not even its smallest batch passes.

        Raises:
            ValueError: no curve, or more than one, has this wait and mode.
        """
        matches = [
            verdict
            for verdict in self.verdicts
            if (wait is None or verdict.curve.wait == wait) and (mode is None or verdict.curve.mode == mode)
        ]
        if len(matches) != 1:
            choices = ", ".join(f"mode={item.mode!r} wait={item.wait}" for item in self.curves)
            raise ValueError(
                f"max_batch(wait={short_repr(wait)}, mode={short_repr(mode)}) selects {len(matches)} curves"
                f" of: {choices}"
            )
        return matches[0].max_batch

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame.

        Raises:
            ModuleNotFoundError: pandas is not installed, which the extra `figures` brings.
        """
        __tracebackhide__ = True
        if install := install_command("pandas"):
            raise ModuleNotFoundError(f"to_pandas() needs pandas: {install}", name="pandas")
        return self.table.to_pandas()


def measure_sweep(
    *,
    endpoint: Endpoint,
    test: str,
    settings: Settings,
    slos: tuple[Slo, ...],
    run: RunDirectory,
    observer: Observer,
    rerun: str | None = None,
    workload: Workload | None = None,
    hints: Mapping[tuple[str, float | None], Sequence[int]] | None = None,
    curves_of_run: int = 1,
) -> Sweep:
    """Measure every curve of a test on an endpoint, store each cell as it ends, and judge.

    Blocks; measurements of other processes on this machine wait for each other. `hints` are batches at which a curve,
    by mode and wait, ended in an earlier run: a search asks them. The budget is shared by all `curves_of_run`.

    Raises:
        SweepError: nothing can be measured.
        WorkloadError: no action can be made.
    """
    workload = workload or find_workload(endpoint, settings.action, settings.reset)
    slos = (*slos, Slo(tuple(make_limit(name, value, "default") for name, value in endpoint.default_limits.items())))

    def plan(waitless: Collection[str]) -> tuple[Curve, ...]:
        return plan_curves(
            test=test,
            target=endpoint.target,
            infrastructure=endpoint.label,
            modes=settings.modes,
            waits=settings.waits,
            batches=(settings.search.low,) if settings.search else settings.batches,
            steps=settings.steps,
            arrival=str(settings.arrival),
            slo_for=lambda mode, wait: slo_for_curve(slos, wait, mode),
            waitless=waitless,
            think=str(settings.think or ""),
        )

    def laid_out(curves: tuple[Curve, ...]) -> dict[str, Any]:
        """Return what a record says of its curves."""
        slos_of = tuple(slo_for_curve(slos, curve.wait, curve.mode) for curve in curves)
        plans = {
            curve.id: plan_search(slo, settings, endpoint, hints=(hints or {}).get((curve.mode, curve.wait), ()))
            for curve, slo in zip(curves, slos_of, strict=True)
            if settings.search
        }
        return {"curves": curves, "slos": slos_of, "searches": plans}

    curves = plan(() if workload.waits else settings.modes)
    record = SweepRecord(
        sweep_id=sha256(f"{test}\0{endpoint.target}".encode()).hexdigest()[:10],
        test=test,
        target=endpoint.target,
        infrastructure=endpoint.label,
        **laid_out(curves),
        planned_curves=len(curves),
        steps=settings.steps,
        arrival=str(settings.arrival),
        reps=settings.repetitions,
        timeout_s=settings.timeout,
        hardware=endpoint.hardware,
        cores=endpoint.cores,
        hosts=endpoint.hosts,
        limits=endpoint.limits,
        startup_s=endpoint.startup_s,
        settings=_recorded_settings(settings, workload),
        rerun=rerun,
        notes=endpoint.notes,
        backlog=endpoint.backlog,
        think_mean_s=settings.think.mean if settings.think else 0.0,
        started_at=datetime.now(UTC),
    )
    if not workload.waits:
        observer.note(f"{test}: the action ({workload.source}) takes no wait_seconds, so there is one curve per mode")
    lock = run.measure_lock(observer.waits_for_lock, settings.lock_timeout)
    with lock, LoadGenerator(settings.processes) as generator:
        record = run.begin_sweep(record)
        measurement = _Measurement(endpoint, settings, workload, run, observer, record, generator)
        try:
            observer.warm_up_started()
            warm_ups = measurement.warm_up()
            if waitless := {warm_up.mode for warm_up in warm_ups if warm_up.ignores_wait}:
                planned, curves = curves, plan(waitless)
                _check_selected(slos, planned, curves)
            waiting = {warm_up.mode for warm_up in warm_ups if warm_up.longest_step_s is not None}
            curves, left_out = _above_waits(curves, slos, waiting, until_done=settings.until_done)
            for note in left_out:
                observer.note(f"{test}: {note}")
            measurement.plan(replace(record, warm_ups=warm_ups, left_out=left_out, **laid_out(curves)))
            measurement.measure(curves_of_run)
        except LoadError as error:
            run.finish_sweep(record.sweep_id, "failed")
            raise SweepError(str(error)) from None
        except BaseException as error:
            run.finish_sweep(record.sweep_id, "failed" if isinstance(error, Exception) else "interrupted")
            raise
        view = measurement.view()
        run.finish_sweep(record.sweep_id, "complete", view.outcome)
    return Sweep(view, run.kept_path, tuple(measurement.parts))


def _check_selected(slos: Sequence[Slo], planned: Sequence[Curve], curves: Sequence[Curve]) -> None:
    """Refuse limits of a wait that is none, as the environment ignores it: without a curve they would judge nothing.

    Raises:
        SweepError: naming the wait.
    """
    for slo in slos:
        before, after = (any(slo.selects(curve.wait, curve.mode) for curve in each) for each in (planned, curves))
        if before and not after:
            wait = format_number(slo.wait or 0.0)
            raise SweepError(f"mark slo(wait={wait}) selects no curve: the environment ignores waits; leave wait= out")


def _above_waits(
    curves: Sequence[Curve], slos: Sequence[Slo], waiting: Collection[str], *, until_done: bool
) -> tuple[tuple[Curve, ...], tuple[str, ...]]:
    """Return the curves whose latency limits are above their waits, and a note on each of the others.

    Only modes that are `waiting`, as a session alone showed, are known to need as long.

    Raises:
        SweepError: none is left.
    """
    kept: list[Curve] = []
    notes: list[str] = []
    for curve in curves:
        limit = limit_below_wait(curve, slo_for_curve(slos, curve.wait, curve.mode), until_done=until_done)
        if limit is None or curve.mode not in waiting:
            kept.append(curve)
        else:
            steps = f" of {curve.steps} steps" if curve.steps > 1 and limit.kind.phase == "total" else ""
            place = f"{curve.mode} at wait {format_number(curve.wait or 0.0)} s"
            notes.append(f"{place} is left out: {limit.text} is below the wait{steps}")
    if not kept:
        raise SweepError(f"{notes[0]}, and no curve is left; write a limit above it, or one on overhead")
    return tuple(kept), tuple(notes)


def _recorded_settings(settings: Settings, workload: Workload) -> dict[str, Any]:
    """Return the settings that a sweep's figures depend on, besides those its record has a field for."""
    recorded: dict[str, Any] = {"action": workload.source, "seed": settings.seed, "until_done": settings.until_done}
    if settings.think is not None:
        recorded["think"] = str(settings.think)
    if settings.played == "any":
        recorded["played"] = settings.played
    if settings.reset is not None:
        # Only a digest: the data may be secret, and all that matters is whether it is the same.
        serialized = json.dumps(settings.reset, sort_keys=True, default=str)
        recorded["reset"] = f"data {sha256(serialized.encode()).hexdigest()[:10]}"
    return {**recorded, "http_connections": settings.http_connections} if "http" in settings.modes else recorded


class _Measurement:
    """The curves of a sweep being measured."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Settings,
        workload: Workload,
        run: RunDirectory,
        observer: Observer,
        record: SweepRecord,
        generator: LoadGenerator,
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._workload = workload
        self._run = run
        self._observer = observer
        self._record = record
        self._generator = generator
        self._cooldown = Cooldown(
            endpoint, lambda timeout_s: self._play_alone(record.curves[0].mode, 0, timeout_s).rows[0]
        )
        self._plays = {mode: SoloSessions(partial(self._play_between, mode)) for mode in settings.modes}
        self.parts: list[Part] = []
        """The parts of everything measured, of each repetition the attempt that counts."""
        self._judged: dict[str, CurveView] = {}
        self._ended_for_good = False
        self._allowance = Allowance()
        self._forecast: Forecast

    def warm_up(self) -> tuple[WarmUp, ...]:
        """Play one session of each mode that is not recorded, and return what it was answered.

        A first cell is then no colder than the rest.

        Raises:
            SweepError: the environment rejects the action or the reset data.
        """
        waits = [curve.wait for curve in self._record.curves if curve.wait is not None]
        # The shortest wait that is one, so that an environment that does not wait is noticed.
        wait = min(filter(None, waits), default=min(waits, default=None))
        warm_ups: list[WarmUp] = []
        for mode in dict.fromkeys(self._settings.modes):
            cell = self._single(mode, wait)
            request = self._cell_request(replace(cell, steps=warm_up_steps(cell.steps, wait)), _UNRECORDED)
            result = self._generator.run_cell(replace(request, keep_messages=True))
            row = result.rows[0]
            if row.error_type == "environment" and row.error_code in ("VALIDATION_ERROR", "422"):
                rejected, option = ("action", "action") if row.error_phase == "step" else ("reset data", "reset")
                raise SweepError(
                    f"the environment rejects the {rejected} ({self._workload.source}): {row.error_message};"
                    f" write one it takes with --openenv-{option}"
                )
            warm_up = read_warm_up(
                mode,
                wait,
                result,
                made_action=self._workload.made_up,
                guessed_action=self._workload.guessed,
                keep_sample=not self._settings.no_samples,
            )
            if row.success:
                self._plays[mode].note(error=bool(result.answered_errors))
            warm_ups.append(warm_up)
        return tuple(warm_ups)

    def plan(self, record: SweepRecord) -> None:
        """Go on with this record of the sweep: its curves are known once a session has played."""
        self._record = record
        self._run.replace_sweep(record)

    def _single(self, mode: str, wait: float | None) -> Cell:
        """Return the cell of one session that plays alone."""
        curve = next(curve for curve in self._record.curves if curve.mode == mode)
        return replace(curve.cells[0], batch=1, wait=wait, arrival="burst", think="")

    def _play_alone(self, mode: str, number: int, timeout_s: float) -> CellResult:
        """Play session `number` as the curves of a mode do, but without a wait, alone and unrecorded."""
        cell = self._single(mode, 0.0 if self._workload.waits else None)
        request = self._cell_request(cell, _UNRECORDED)
        timeout_s = min(timeout_s, self._settings.timeout)
        return self._generator.run_cell(replace(request, timeout_s=timeout_s, first_session=number))

    def _play_between(self, mode: str, number: int) -> CellResult | None:
        """Play session `number` alone between two cells; None where the server has exited."""
        if self._endpoint.exit_status() is not None:
            return None
        return self._play_alone(mode, number, self._settings.timeout)

    def measure(self, curves_of_run: int) -> None:
        """Measure the curves in order until the server has exited, at least one cell in any case.

        Curves of a mode whose sessions do not play are not measured, unless that is asked for.
        """
        earlier = [sweep for sweep in self._run.sweeps() if sweep.sweep_id != self._record.sweep_id]
        settings = self._settings
        spent_s, opened = (sum(getattr(sweep, name) for sweep in earlier) for name in ("spent_s", "sessions"))
        seconds_left = None if settings.budget is None else settings.budget - spent_s
        if not self._endpoint.on_loopback:
            self._allowance.sessions = max(settings.max_sessions - opened, 0)
        curves, planned = len(self._record.curves), sum(sweep.planned_curves for sweep in (*earlier, self._record))
        curves_left = max(curves_of_run - planned, 0) + curves  # Those that were left out leave their share to others.
        self._forecast = Forecast(self._record, tuple(filter(self._plays_in, self._record.curves)))
        for number, (curve, slo) in enumerate(zip(self._record.curves, self._record.slos, strict=True)):
            left = None if seconds_left is None else seconds_left - self._allowance.spent_s
            timing = Timing.of_curve(curve, self._record.think_mean_s)
            self._allowance.begin_curve(None if left is None else left / (curves_left - number), timing)
            if self._judged and self._has_ended():
                return
            if not self._plays_in(curve):
                continue
            self._note_time(curve, timing)
            self._forecast.begin_curve(curve, self._allowance.seconds)
            self._observer.curve_started(curve)
            judged = self._judged[curve.id] = self._measure_curve(curve, slo)
            self._observer.curve_done(judged)

    def _plays_in(self, curve: Curve) -> bool:
        """Whether a curve is measured: sessions of its mode play, or that is not asked for."""
        warm_up = self._record.warm_up(curve.mode)
        return warm_up is None or warm_up.played or self._settings.played != "required"

    def _note_time(self, curve: Curve, timing: Timing) -> None:
        """Say whether sessions are long against a steady state, and how long a search of such repetitions may take."""
        plan, lasting = self._record.searches.get(curve.id), timing.arrival.seconds
        if timing.judges_few and not self._settings.until_done:
            self._observer.note(
                f"{self._record.test}: few sessions or none end in a steady state of {format_number(lasting or 0.0)} s,"
                f" as one waits and thinks for {format_number(round(timing.session_s, 1))} s: make it longer"
            )
        if plan is None or lasting is None:
            return
        courses = possible_courses(plan)
        _, seconds = timing.most(courses)
        self._observer.note(
            f"{self._record.test}: the search takes up to {max(map(len, courses))} repetitions of"
            f" {format_number(lasting)} s each, about {seconds / 60:.0f} min (--openenv-budget bounds them)"
        )

    def view(self) -> SweepView:
        """Return the sweep as it was judged, curve by curve; a curve the server did not live to see is inconclusive."""
        record = self._record
        return join_curves(
            record, [self._judged.get(curve.id) or view_curve(record, curve, ()) for curve in record.curves]
        )

    def _measure_curve(self, curve: Curve, slo: Slo) -> CurveView:
        """Measure a curve batch by batch, each judged as soon as it is measured, until no more is to be learned."""
        plan = self._record.searches.get(curve.id)
        source: CellSource = Grid(curve, slo, self._settings) if plan is None else Searching(plan, slo)
        summaries: list[CellSummary] = []
        stop: StopReason | None = None
        while stop is None and (repetition := source.next_repetition()) is not None:
            batch, number = repetition
            stop = self._allowance.refuses(batch)
            if stop is None:
                most = None if plan is None else most_failures(batch, slo, parse_arrival(curve.arrival))
                cell = replace(curve.cells[0], batch=batch)
                self._observer.cell_started(cell, self._forecast.begin(batch, number, source, self._allowance.seconds))
                attempts = self._measure_cell(cell, number, slo, most)
                summaries += attempts
                if attempts:
                    source.record(attempts, server_exited=self._has_ended())
                else:
                    stop = "budget"
        self._note_stop(curve, stop or source.stop_reason)
        earlier = [cell for view in self._judged.values() for cell in (*view.summaries, *view.set_aside)]
        return view_curve(self._record, curve, summaries, None if stop else source.cells, earlier=earlier)

    def _note_stop(self, curve: Curve, stop: StopReason | None) -> None:
        stops = {**self._record.stops, **({curve.id: stop} if stop else {})}
        spent = {"spent_s": self._allowance.spent_s, "sessions": self._allowance.opened}
        self._record = replace(self._record, stops=stops, **spent)
        self._run.replace_sweep(self._record)

    def _measure_cell(self, cell: Cell, repetition: int, slo: Slo, most: int | None) -> list[CellSummary]:
        """Measure one repetition, again while only the client leaves it in doubt; of the attempts the last counts.

        There is none where the budget was used up meanwhile. With more than `most` failures no other session begins.

        Whether it is measured again depends on whether it can be told what the server did, never on what that was.
        """
        attempts: list[CellSummary] = []
        part: Part | None = None
        while True:
            began = time.monotonic()
            try:
                part = self._measure_attempt(cell, repetition, len(attempts) + 1, most)
            except OutOfTime:
                self._allowance.use(cell.batch, time.monotonic() - began, cell.batch)
                self._endpoint.held.note(cell.batch)
                break
            summary = summarise_part(part)
            self._endpoint.held.note(most_open(summary))
            took_s = time.monotonic() - began
            self._allowance.use(cell.batch, took_s, summary.begun)
            self._forecast.ended(cell.batch, took_s)
            attempts.append(summary)
            if (
                len(attempts) > self._settings.again
                or self._endpoint.exit_status() is not None
                or not doubted_for_the_client(summary, slo)
            ):
                break
            self._observer.attempt_set_aside(cell, summary)
            await_calm()
        if part is not None:
            self.parts.append(part)
            self._observer.cell_done(cell, attempts[-1])
        return attempts

    def _measure_attempt(self, cell: Cell, repetition: int, attempt: int, most: int | None) -> Part:
        """Measure one repetition once and store it."""
        meta = CellMeta(
            run_id=self._run.run_id,
            sweep_id=self._record.sweep_id,
            cell=cell,
            repetition=repetition,
            wall_s=0.0,
            started_at=datetime.now(UTC),
            hardware=self._endpoint.hardware,
            cores=self._endpoint.cores,
            hosts=self._endpoint.hosts,
            limits=self._endpoint.limits,
            session_settings=self._endpoint.session_settings,
            attempt=attempt,
        )
        with self._run.open_part(meta) as writer:
            try:
                return writer.seal(self._play(meta, writer, most))
            except OutOfTime:
                writer.discard()
                raise

    def _play(self, meta: CellMeta, writer: PartWriter, most: int | None) -> CellMeta:
        """Play the sessions of an attempt, write their rows, and return all that is known of it."""
        cell = meta.cell
        seconds, began = self._allowance.seconds, time.monotonic()
        first, notes = self._cooldown.await_server()
        watch = ServerWatch()
        watch.add(first, open_sessions=0)

        def on_progress(progress: LoadProgress) -> None:
            if seconds is not None and time.monotonic() - began > seconds:
                raise OutOfTime
            watch.add(self._endpoint.sample(), open_sessions=progress.open)
            self._observer.cell_progress(cell, meta.repetition, progress)

        proxy, running, started_s = self._endpoint.proxy(), self._endpoint.processes(), time.monotonic()
        # Of processes of this machine a file is read; elsewhere that takes a request.
        log_before = None if running is None else self._endpoint.log_tail(LOG_LINES)
        request = replace(self._cell_request(cell, meta.repetition), most_failures=most)
        tally = SessionTally()

        def on_rows(rows: Sequence[SessionRow], errors: Mapping[int, AnsweredError]) -> None:
            writer.write(rows, errors)
            tally.add(rows, errors)

        result = self._generator.run_cell(request, on_progress, on_rows)
        on_rows(result.rows, result.answered_errors)
        failed = tally.failed
        answered_errors = self._plays[cell.mode].judge(tally) if tally.errors else None
        self._cooldown.cell_ended(mode=cell.mode, failed=failed, wait_s=cell.wait or 0.0)
        if failed:
            time.sleep(0.05)  # A server that just died needs a moment to be seen as dead, and to finish its log.
        ended_pids = _ended(running, self._endpoint.processes())
        if failed and ended_pids:
            wait_for(lambda: self._endpoint.exit_status() is not None, _END_S, 0.02)
        listens_again = self._listens_again(says_restart=tally.says_restart)
        watch.add(sample := self._endpoint.sample())
        if sample is not None and watch.first is not None:
            listens_again = listens_again or (sample.restarts or 0) > (watch.first.restarts or 0)
        log = self._endpoint.log_tail(LOG_LINES) if failed else ""
        return replace(
            meta,
            wall_s=result.wall_s,
            started_at=result.started_at,
            client=asdict(result.client),
            findings=self._with_advice(result.findings),
            notes=notes,
            server=replace(watch.summary, held_before=self._endpoint.held.most),
            samples=watch.since(result.started_s) if parse_arrival(cell.arrival).seconds is not None else (),
            server_exit=self._endpoint.exit_status(),
            log_tail=log or None,
            log_lines=None if log_before is None else count_new_lines(log_before, log),
            proxy=proxy_facts_between(proxy, self._endpoint.proxy(), started_s=started_s, batch=cell.batch),
            answered_errors=answered_errors,
            ended_pids=ended_pids,
            listens_again=listens_again,
        )

    def _with_advice(self, findings: Sequence[ClientFinding]) -> tuple[ClientFinding, ...]:
        """Add to findings that HTTP answers were seen late what else there is to measure, where there is a /ws."""
        return tuple(
            replace(finding, message=f"{finding.message}, or mode ws")
            if finding.kind == "http_lag" and self._has_websocket
            else finding
            for finding in findings
        )

    @cached_property
    def _has_websocket(self) -> bool:
        """Whether the server takes WebSockets at /ws: one unrecorded session asks, and only where it matters."""
        cell = replace(self._single(self._record.curves[0].mode, None), mode="ws", steps=1)
        request = self._cell_request(cell, _UNRECORDED)
        return self._generator.run_cell(request).rows[0].connected_s is not None

    def _listens_again(self, *, says_restart: bool) -> bool:
        """Where the server ended or said that it restarts, wait for it, and return whether it answers again."""
        if self._endpoint.exit_status() is not None:
            return not self._has_ended()
        return says_restart and self._endpoint.rejoin()

    def _has_ended(self) -> bool:
        """Return whether the server has ended for good: one that somebody else starts again is waited for, once."""
        if self._endpoint.exit_status() is None:
            return False
        self._ended_for_good = self._ended_for_good or not self._endpoint.rejoin()
        return self._ended_for_good

    def _cell_request(self, cell: Cell, repetition: int) -> CellRequest:
        return CellRequest(
            cell=cell,
            repetition=repetition,
            urls=self._endpoint.urls,
            headers=self._endpoint.headers,
            network=self._endpoint.network,
            workload=self._workload,
            timeout_s=self._settings.timeout,
            seed=self._settings.seed,
            until_done=self._settings.until_done,
            think=self._settings.think if cell.think else None,
            http_connections=self._settings.http_connections,
            ping_s=self._settings.ping,
        )


def _ended(before: frozenset[int] | None, after: frozenset[int] | None) -> tuple[int, ...] | None:
    """Return the processes that run no more; None where they cannot be seen."""
    return None if before is None or after is None else tuple(sorted(before - after))
