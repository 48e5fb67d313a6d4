"""Sessions as Arrow tables and sealed Parquet parts."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from cells import NOON, a_cell, a_failure, a_meta, a_part, a_row, a_table

from pytest_openenv_scale.results.cell import SessionRow
from pytest_openenv_scale.results.parts import (
    SCHEMA,
    PartError,
    join_parts,
    read_part,
    read_parts,
    rows_to_table,
)

COLUMNS_OF_THE_CONTRACT = """
run_id test target cell_id infrastructure hardware mode batch_size wait_requested steps repetition attempt arrival think
request_id process timestamp due_s start_s connected_s reset_done_s closed_s
queue_latency connect_latency reset_latency hold_latency step_latency step_latencies resets total_latency
waited_seconds steps_done pid session_hash host_url success error_phase error_type error_code error_message late_s
slot step_pauses judged
"""


def test_the_columns_are_those_of_the_contract_in_order():
    assert SCHEMA.names == COLUMNS_OF_THE_CONTRACT.split()


def test_a_row_holds_what_was_measured_and_which_cell_it_belongs_to():
    cell = a_cell(2, wait=0.1, steps=3)
    table = rows_to_table([a_row(), a_failure(1)], a_meta(cell, repetition=2, hardware="cpu-basic"))
    good, bad = table.to_pylist()
    assert table.schema.equals(SCHEMA)
    assert (good["run_id"], good["cell_id"], good["repetition"], good["hardware"]) == ("run", cell.id, 2, "cpu-basic")
    assert (good["batch_size"], good["wait_requested"], good["steps"]) == (2, 0.1, 3)
    assert good["step_latencies"] == [1.0]
    assert (bad["success"], bad["error_type"], bad["error_code"]) == (False, "capacity", "CAPACITY_REACHED")


def test_what_is_not_there_is_null_and_never_zero():
    row = rows_to_table([a_failure()], a_meta(a_cell(wait=None))).to_pylist()[0]
    absent = (
        "hardware",
        "wait_requested",
        "reset_latency",
        "step_latency",
        "total_latency",
        "pid",
        "host_url",
        "reset_done_s",
    )
    assert {name: row[name] for name in absent} == dict.fromkeys(absent)
    assert row["connect_latency"] == 0.01


def test_the_timestamp_is_utc_to_the_microsecond():
    row = a_row(started_at=NOON.timestamp() + 0.000123)
    assert a_table([row])["timestamp"][0].as_py() == NOON + timedelta(microseconds=123)


def test_a_cell_without_rows_is_a_table_of_the_same_columns():
    assert a_table([]).schema.equals(SCHEMA)
    assert a_table([]).num_rows == 0


def test_every_field_of_a_row_has_its_column():
    assert set(SessionRow._fields) - {"started_at"} <= set(SCHEMA.names)


def test_a_sealed_part_gives_back_its_rows_and_what_is_known_of_its_cell(tmp_path):
    meta = a_meta(limits={"workers": 2}, log_tail="ERROR: full")
    table = a_table([a_row(), a_failure(1)], meta)
    sealed = a_part(tmp_path, [a_row(), a_failure(1)], meta)
    (part,) = read_parts(tmp_path)
    assert part == sealed
    assert part.meta == meta
    assert part.table().equals(table)
    assert part.table({"success", "pid"}).column_names == ["pid", "success"]


def test_a_part_is_named_after_its_cell_and_repetition(tmp_path):
    meta = a_meta(repetition=3)
    assert a_part(tmp_path, [a_row()], meta).path.name == f"{meta.cell.id}-r3.parquet"


def test_a_cell_measured_again_never_replaces_the_earlier_part(tmp_path):
    meta = a_meta()
    paths = [a_part(tmp_path, [a_row(number)], meta).path for number in range(3)]
    assert len(set(paths)) == 3
    assert [read_part(path).table()["request_id"][0].as_py() for path in paths] == [0, 1, 2]


def test_parts_are_one_data_set_for_whoever_reads_parquet(tmp_path):
    for repetition in (1, 2):
        meta = a_meta(repetition=repetition)
        a_part(tmp_path, [a_row(), a_row(1)], meta)
    (tmp_path / ".unfinished-1-abcd.tmp").write_bytes(b"half a part")
    (tmp_path / ".unfinished.parquet").write_bytes(b"half a part")
    assert pyarrow.dataset.dataset(tmp_path, format="parquet").count_rows() == 4
    assert join_parts(read_parts(tmp_path)).num_rows == 4


def test_columns_that_an_older_part_does_not_have_are_what_they_were_then(tmp_path):
    path = a_part(tmp_path, [a_row(slot=3, step_pauses=[0.5], judged=False)], a_meta(attempt=2)).path
    then = {"attempt": 1, "think": None, "slot": None, "step_pauses": None, "judged": True}
    schema = pq.read_schema(path)
    kept = [name for name in schema.names if name not in then]
    pq.write_table(pq.ParquetFile(path).read(kept).replace_schema_metadata(schema.metadata), path)
    (row,) = read_part(path).table().to_pylist()
    assert {name: row[name] for name in then} == then
    assert [table.to_pylist() for table in read_part(path).batches("judged", "slot")] == [
        [{"judged": True, "slot": None}]
    ]


def test_parts_of_different_cells_join_into_one_table(tmp_path):
    for cell in (a_cell(1, wait=None), a_cell(2, mode="http")):
        a_part(tmp_path, [a_row()], a_meta(cell))
    assert sorted(join_parts(read_parts(tmp_path))["mode"].to_pylist()) == ["http", "ws"]


def test_no_parts_are_an_empty_table(tmp_path):
    assert list(read_parts(tmp_path / "missing")) == []
    assert join_parts(read_parts(tmp_path / "missing")).schema.equals(SCHEMA)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path):
    path.write_bytes(b"")


def flip_a_byte(path: Path, offset: int):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_damaged_part_is_named_and_the_others_are_read(tmp_path, damage):
    good, bad = (a_part(tmp_path, [a_row()], meta).path for meta in (a_meta(), a_meta(repetition=2)))
    damage(bad)
    problems: list[str] = []
    assert [part.path for part in read_parts(tmp_path, problems.append)] == [good]
    assert len(problems) == 1
    assert problems[0].startswith(f"{bad.name}: damaged or truncated (")
    assert "\n" not in problems[0]
    with pytest.raises(PartError):
        list(read_parts(tmp_path))


def test_damaged_rows_are_noticed_and_never_returned(tmp_path):
    rows = [a_row(number, step=1 + number / 7) for number in range(50)]
    table, path = a_table(rows), a_part(tmp_path, rows).path
    noticed = 0
    for offset in range(4, 4000, 13):
        flip_a_byte(path, offset)
        try:
            assert read_part(path).table().equals(table)
        except PartError:
            noticed += 1
        flip_a_byte(path, offset)
    assert noticed > 100


def test_a_table_of_all_parts_leaves_damaged_ones_out(tmp_path):
    paths = [a_part(tmp_path, [a_row()], a_meta(repetition=number)).path for number in (1, 2, 3)]
    truncate(paths[0])
    flip_a_byte(paths[1], 60)
    problems: list[str] = []
    assert join_parts(read_parts(tmp_path, problems.append), problems.append).num_rows == 1
    assert [problem.partition(":")[0] for problem in problems] == [paths[0].name, paths[1].name]


def test_a_parquet_file_of_somebody_else_is_no_part(golden, tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(PartError) as caught:
        read_part(tmp_path / "x.parquet")
    golden(caught.value)


def test_a_part_whose_description_lacks_something_says_what(golden, tmp_path):
    table = a_table([a_row()]).replace_schema_metadata({b"openenv_scale": b'{"run_id": "r"}'})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(PartError) as caught:
        read_part(tmp_path / "x.parquet")
    golden(caught.value)


WRITES_FOR_EVER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from cells import a_meta, a_part, a_row
rows = [a_row(number) for number in range(20_000)]
for repetition in range(1, 1000):
    a_part(Path({directory!r}), rows, a_meta(repetition=repetition))
    print(repetition, flush=True)
"""


def test_a_kill_at_any_moment_leaves_whole_parts_only(tmp_path):
    code = WRITES_FOR_EVER.format(path=sys.path, directory=str(tmp_path))
    for parts_before_the_kill in (1, 2, 3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for _ in range(parts_before_the_kill):
            assert process.stdout.readline().strip().isdecimal()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert {part.table().num_rows for part in read_parts(tmp_path)} == {20_000}
