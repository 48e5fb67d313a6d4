"""A sweep as a whole: what it does about a server that is not there any more."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from measuring import measure
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus
from pytest_openenv_scale.engine.allowance import OutOfTime
from pytest_openenv_scale.engine.sweep import Observer
from pytest_openenv_scale.load.runner import LoadProgress
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.results.run_directory import PARTS
from pytest_openenv_scale.results.spool import cut_off_parts
from server_process import running_server


def nobody() -> str:
    """A URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_died_before_the_first_cell_is_a_miss_that_says_how(tmp_path: Path) -> None:
    endpoint = Endpoint((nobody(),), "x", "x", exit_reader=lambda: "exited with code 137", log_reader=lambda n: "Bye.")
    sweep = measure(endpoint, tmp_path, 2, 4, 8)
    assert sweep.outcome is Outcome.MISSED
    assert [cell.batch for cell in sweep.cells] == [2]
    (died,) = [reason for reason in sweep.verdicts[0].reasons if reason.kind == "server_died"]
    assert (died.batch, died.exit, died.detail) == (2, ExitStatus.from_returncode(137), "Bye.")


@pytest.mark.parametrize("rejoins", [True, False])
def test_a_server_that_somebody_else_starts_again_is_waited_for_once(tmp_path: Path, rejoins: bool) -> None:
    ended, waits = [ExitStatus("other", "ended")], []

    def rejoin() -> bool:
        waits.append(1)
        if rejoins:
            ended.clear()
        return rejoins

    def exit_status() -> ExitStatus | None:
        return ended[0] if ended else None

    endpoint = Endpoint((nobody(),), "x", "x", exit_reader=exit_status, rejoiner=rejoin)
    sweep = measure(endpoint, tmp_path, 1, 2)
    first = sweep.cells[0]
    assert (first.listens_again, first.server_exit is None) == (rejoins, rejoins)
    assert next(refusal.cause for refusal in sweep.verdicts[0].refused) == ("restarted" if rejoins else "server_died")
    assert len(sweep.cells) == (2 if rejoins else 1)
    assert rejoins or len(waits) == 1


def test_processes_that_ended_during_a_cell_are_kept(tmp_path: Path) -> None:
    pid_sets = iter([frozenset({7, 8}), frozenset({8, 9})])
    sweep = measure(Endpoint((nobody(),), "x", "x", process_reader=lambda: next(pid_sets)), tmp_path, 1)
    assert sweep.cells[0].ended_pids == (7,)
    assert measure(Endpoint((nobody(),), "x", "x"), tmp_path / "b", 1).cells[0].ended_pids is None


def test_rows_of_a_steady_state_are_stored_while_it_lasts(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Watching(Observer):
        def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
            sizes.extend(path.stat().st_size for path in tmp_path.rglob(".*.arrows"))

    with running_server() as (_, address):
        endpoint = Endpoint((f"http://{address}",), "x", "x")
        sweep = measure(endpoint, tmp_path, 8, arrival="steady=5", observer=Watching())
    numbers = sweep.table["request_id"].to_pylist()
    assert len(set(sizes)) > 1
    assert len(numbers) == len(set(numbers)) == sweep.cells[0].successful + sweep.cells[0].unjudged
    assert {number % 8 for number in numbers} == set(range(8))
    assert not list(tmp_path.rglob(".*.arrows"))


def test_a_steady_state_that_used_up_the_budget_leaves_no_rows(tmp_path: Path) -> None:
    class Impatient(Observer):
        def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
            if list(cut_off_parts(next(tmp_path.rglob(PARTS)))):
                raise OutOfTime

    with running_server() as (_, address):
        endpoint = Endpoint((f"http://{address}",), "x", "x")
        sweep = measure(endpoint, tmp_path, 4, arrival="steady=30", observer=Impatient())
    assert sweep.view.record.stops == {sweep.curves[0].id: "budget"}
    assert (sweep.cells, sweep.table.num_rows) == ((), 0)
    assert list(next(tmp_path.rglob(PARTS)).iterdir()) == []


def test_of_reset_data_a_digest_is_kept_and_nothing_else(tmp_path: Path) -> None:
    def stored_digest(name: str, reset: dict[str, object] | None) -> object:
        return measure(Endpoint((nobody(),), "x", "x"), tmp_path / name, 1, reset=reset).view.record.settings.get(
            "reset"
        )

    first = stored_digest("first", {"user": "hunter2", "level": 3})
    assert isinstance(first, str)
    assert first.startswith("data ")
    assert "hunter2" not in first
    assert stored_digest("same", {"level": 3, "user": "hunter2"}) == first
    assert stored_digest("other", {"user": "hunter2", "level": 4}) != first
    assert stored_digest("none", None) is None


def test_rows_for_pandas_without_it_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = measure(Endpoint((nobody(),), "x", "x"), tmp_path, 1)
    assert len(sweep.to_pandas()) == 1
    monkeypatch.setitem(sys.modules, "pandas", None)
    says = "to_pandas() needs pandas: pip install 'pytest-openenv-scale[figures]'"
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(says)}$"):
        sweep.to_pandas()
