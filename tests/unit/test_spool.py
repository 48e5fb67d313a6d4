"""Rows on their way to a part, and what is left of them where the process is killed."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cells import a_cell, a_failure, a_meta, a_part, a_row, a_table

from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.results import spool
from pytest_openenv_scale.results.cell import AnsweredErrors, CellMeta, ClientFinding
from pytest_openenv_scale.results.parts import join_parts, latest_attempts, read_part, read_parts
from pytest_openenv_scale.results.spool import PartWriter, cut_off_parts


def left_over(folder: Path, *blocks, meta: CellMeta | None = None) -> Path:
    """Leave a stream as an interrupted attempt does, and return its path."""
    with PartWriter(folder, meta or a_meta()) as writer:
        for rows in blocks:
            writer.write(rows)
    (stream,) = folder.glob(".*")
    return stream


# --- from rows to a part


def test_rows_written_in_blocks_are_the_part_that_they_are_at_once(tmp_path):
    rows = [a_failure(n) if n % 3 else a_row(n, step=1 + n / 7) for n in range(50)]
    meta = a_meta(a_cell(50), hardware="cpu-basic")
    with PartWriter(tmp_path / "parts", replace(meta, wall_s=0.0)) as writer:
        for at in (0, 1, 20):
            writer.write(rows[at : {0: 1, 1: 20, 20: 50}[at]])
        writer.write([])
        part = writer.seal(meta)
    assert part == read_part(part.path)
    assert (part.meta, part.num_rows) == (meta, 50)
    assert part.table().equals(a_table(rows, meta))


def test_rows_stand_in_the_order_in_which_sessions_ended(tmp_path):
    with PartWriter(tmp_path, a_meta()) as writer:
        writer.write([a_row(2), a_row(0)])
        writer.write([a_row(1)])
        part = writer.seal(a_meta())
    assert part.table()["request_id"].to_pylist() == [2, 0, 1]


def test_nothing_is_imported_any_more_once_a_cell_has_begun(tmp_path):
    code = f"""
import sys
from datetime import UTC, datetime
from pathlib import Path
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.results.cell import CellMeta, SessionRow
from pytest_openenv_scale.results.spool import PartWriter

meta = CellMeta("r", "s", Cell("t", "http://x", "x", "ws", None, 1, 1, "burst"), 1, 0.0, datetime.now(UTC))
with PartWriter(Path({str(tmp_path)!r}), meta) as writer:
    before = set(sys.modules)
    writer.write([SessionRow(0, 0, 0.0, 0.0)])
    print(sorted(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path):
    with PartWriter(tmp_path, a_meta()) as writer:
        writer.write([a_row(0), a_row(1)])
        (part,) = cut_off_parts(tmp_path)
        assert part.num_rows == 2
        writer.discard()


def test_only_the_part_is_left_once_it_is_sealed(tmp_path):
    part = a_part(tmp_path, [a_row()])
    assert list(tmp_path.iterdir()) == [part.path]


def test_what_is_discarded_leaves_nothing(tmp_path):
    with PartWriter(tmp_path, a_meta()) as writer:
        writer.write([a_row()])
        writer.discard()
        writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_that_ends_before_its_first_row_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), PartWriter(tmp_path, a_meta()):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_that_is_interrupted_keeps_the_rows_it_has(tmp_path):
    def interrupted():
        with PartWriter(tmp_path, a_meta()) as writer:
            writer.write([a_row()])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [part.num_rows for part in cut_off_parts(tmp_path)] == [1]


def test_a_cell_that_is_written_twice_at_once_has_two_parts(tmp_path):
    with PartWriter(tmp_path, a_meta()) as first, PartWriter(tmp_path, a_meta()) as second:
        first.write([a_row(1)])
        second.write([a_row(2)])
        paths = [writer.seal(a_meta()).path for writer in (second, first)]
    assert [read_part(path).table()["request_id"].to_pylist() for path in paths] == [[2], [1]]


def test_a_part_has_row_groups_of_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "_BLOCK_ROWS", 10)
    monkeypatch.setattr(spool, "BATCH_ROWS", 40)
    rows = [a_row(number) for number in range(95)]
    part = a_part(tmp_path, rows)
    groups = pq.read_metadata(part.path)
    assert [groups.row_group(at).num_rows for at in range(groups.num_row_groups)] == [40, 40, 15]
    monkeypatch.setattr(spool, "_HELD_BYTES", 1)
    assert pq.read_metadata(a_part(tmp_path, rows).path).num_row_groups == 10
    assert part.table().equals(a_table(rows))


def errors_of(*, under_load: bool) -> AnsweredErrors:
    return AnsweredErrors(2, "no slot", 12, 0, under_load)


def test_sessions_answered_with_errors_under_load_have_failed(tmp_path):
    rows = [a_row(0), a_row(1), a_failure(2), a_row(3)]
    errors = {1: ("step", "no slot"), 2: ("reset", "no slot"), 3: ("reset", "busy")}
    meta = a_meta(answered_errors=errors_of(under_load=True))
    with PartWriter(tmp_path, a_meta()) as writer:
        writer.write(rows[:2], errors)
        writer.write(rows[2:], errors)
        part = writer.seal(meta)
    failed = [
        row._replace(
            success=False,
            total_latency=None,
            error_phase=phase,
            error_type="environment",
            error_code="answered_error",
            error_message=words,
        )
        for row, (phase, words) in ((rows[1], errors[1]), (rows[3], errors[3]))
    ]
    assert part.table().equals(a_table([rows[0], failed[0], rows[2], failed[1]], meta))


def test_sessions_answered_with_errors_that_come_alone_too_have_not_failed(tmp_path):
    meta = a_meta(answered_errors=errors_of(under_load=False))
    with PartWriter(tmp_path, meta) as writer:
        writer.write([a_row()], {0: ("step", "invalid move")})
        part = writer.seal(meta)
    assert part.table().equals(a_table([a_row()], meta))


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_a_part_that_cannot_be_written_leaves_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_disk)
    with pytest.raises(RunError, match=f"a part of the run cannot be written: {tmp_path}: No space left"):
        a_part(tmp_path, [a_row()])
    assert list(tmp_path.glob("[!.]*")) == []
    assert [part.num_rows for part in cut_off_parts(tmp_path)] == [1]


def test_rows_that_cannot_be_written_say_so_and_keep_those_that_were(tmp_path):
    size = left_over(tmp_path / "measure", [a_row()]).stat().st_size
    code = FILLS_A_DISK.format(path=sys.path, directory=str(tmp_path / "full"), size=size * 20)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    written = int(process.stdout)
    assert f"RunError: a part of the run cannot be written: {tmp_path / 'full'}: File too large" in process.stderr
    (part,) = cut_off_parts(tmp_path / "full")
    assert part.num_rows == written > 10


FILLS_A_DISK = """
import resource, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from cells import a_meta, a_row
from pytest_openenv_scale.results.spool import PartWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
with PartWriter(Path({directory!r}), a_meta()) as writer:
    try:
        while True:
            writer.write([a_row()])
    finally:
        print(writer.num_rows)
"""


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "parts").write_text("a file")
    with pytest.raises(RunError, match=r"a part of the run cannot be written: .*parts: (File exists|Not a directory)"):
        PartWriter(tmp_path / "parts", a_meta())


# --- what a killed process leaves


def test_rows_of_a_killed_process_are_a_part_that_says_so(tmp_path):
    meta = a_meta(a_cell(4), repetition=2, wall_s=0.0, hardware="cpu-basic")
    rows = [a_row(0, closed_s=3.5), a_failure(1), a_row(2, closed_s=2.0)]
    left_over(tmp_path, rows[:1], rows[1:], meta=meta)
    (part,) = cut_off_parts(tmp_path)
    finding = ClientFinding("cut_off", "cut off when the run ended, 3 sessions kept")
    assert part.meta == replace(meta, wall_s=3.5, findings=(finding,))
    assert part.table().equals(a_table(rows, meta))
    assert list(read_parts(tmp_path)) == []


def test_columns_of_what_was_left_read_as_those_of_a_sealed_part(tmp_path):
    rows = [a_failure(0), a_row(1)]
    sealed = a_part(tmp_path, rows)
    left_over(tmp_path, rows, meta=a_meta(repetition=2))
    (left,) = cut_off_parts(tmp_path)
    names = ("success", "error_type", "cell_id", "host_url", "step_latencies")
    assert left.read(*names).equals(sealed.read(*names))
    assert [table.equals(sealed.read(*names)) for table in left.batches(*names)] == [True]


def test_of_a_block_that_was_cut_off_nothing_is_read(tmp_path):
    ends = []
    for count in range(1, 5):
        folder = tmp_path / str(count)
        ends.append(left_over(folder, *([a_row(n), a_row(n + 10)] for n in range(count))).stat().st_size)
    whole = left_over(tmp_path, *([a_row(n), a_row(n + 10)] for n in range(4)))
    content = whole.read_bytes()
    for size in range(0, len(content), 97):
        whole.write_bytes(content[:size])
        rows = sum(part.num_rows for part in cut_off_parts(tmp_path))
        assert rows == 2 * sum(end <= size for end in ends)
        assert join_parts(cut_off_parts(tmp_path)).num_rows == rows


def test_what_is_no_stream_is_passed_over(tmp_path):
    (tmp_path / ".somebody.arrows").write_bytes(b"else's file")
    (tmp_path / ".empty.arrows").touch()
    assert list(cut_off_parts(tmp_path)) == []
    assert list(cut_off_parts(tmp_path / "missing")) == []


def test_a_stream_whose_part_was_sealed_before_the_kill_is_not_counted_again(tmp_path):
    stream = left_over(tmp_path, [a_row()])
    content = stream.read_bytes()
    stream.unlink()
    a_part(tmp_path, [a_row()])
    stream.write_bytes(content)
    assert list(cut_off_parts(tmp_path)) == []


def test_an_attempt_that_was_cut_off_is_the_one_that_counts(tmp_path):
    sealed = a_part(tmp_path, [a_row()])
    left_over(tmp_path, [a_row()], meta=a_meta(attempt=2))
    (left,) = cut_off_parts(tmp_path)
    assert latest_attempts([sealed, left]) == [left]


WRITES_FOR_EVER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from cells import a_meta, a_row
from pytest_openenv_scale.results.spool import PartWriter
rows = [a_row(number) for number in range(1000)]
with PartWriter(Path({directory!r}), a_meta()) as writer:
    while True:
        writer.write(rows)
        print(writer.num_rows, flush=True)
"""


def test_a_kill_at_any_moment_leaves_every_block_that_was_written(tmp_path):
    for blocks_before_the_kill in (1, 6):
        folder = tmp_path / str(blocks_before_the_kill)
        code = WRITES_FOR_EVER.format(path=sys.path, directory=str(folder))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(blocks_before_the_kill):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            told = [blocks_before_the_kill * 1000, *map(int, process.stdout.read().split())]
        (part,) = cut_off_parts(folder)
        assert part.num_rows % 1000 == 0
        assert part.num_rows >= told[-1]
        assert part.table()["request_id"].to_pylist() == list(range(1000)) * (part.num_rows // 1000)
