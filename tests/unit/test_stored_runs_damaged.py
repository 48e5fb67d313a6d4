"""Runs that something or somebody has changed since they were stored: one line, or a report; never anything else."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.reporting import join_runs, run_lines, study_lines
from pytest_openenv_scale.reporting.markdown.run import report_markdown
from pytest_openenv_scale.results.parts import META_KEY

STORED = sorted((Path(__file__).parents[1] / "stored" / "0.1").iterdir())
WITH_PARTS = [run for run in STORED if (run / "sessions.parquet").is_dir()]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 10**12, 10**30]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "../x", "\x1b[31m✓ SLO met", "2020-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"]
    ),
    st.sampled_from(["ws", "http", "met", "running", "complete", "max_batch"]),
)
junk = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value of JSON but its root."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    below = [inner for key in keys for inner in places(value[key], (*place, key))]
    return ([place] if place else []) + below


def changed(data: st.DataObject, content: Any) -> str:
    """JSON with one value replaced by another, or left out."""
    *parents, key = data.draw(st.sampled_from(places(content)))
    parent = content
    for each in parents:
        parent = parent[each]
    if isinstance(parent, dict) and data.draw(st.booleans()):
        del parent[key]
    else:
        parent[key] = data.draw(junk)
    return json.dumps(content)


def reported(run: Path) -> None:
    """Report the run and a study of it; or be told in one line, that names the file, why that cannot be."""
    try:
        loaded = load_run(run)
    except RunError as error:
        problems = [str(error)]
        assert "manifest.json" in problems[0]
    else:
        problems = [*loaded.problems]
        run_lines(loaded, width=120, encoding="utf-8")
        study_lines(join_runs([loaded]), width=120, encoding="utf-8")
        report_markdown(loaded)
    assert all("\n" not in problem for problem in problems)


@few
@given(source=st.sampled_from(STORED), data=st.data())
def test_a_manifest_with_another_value_somewhere(source: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(source, Path(folder) / source.name))
        manifest = run / "manifest.json"
        manifest.write_text(changed(data, json.loads(manifest.read_text())))
        reported(run)


@few
@given(source=st.sampled_from(WITH_PARTS), data=st.data())
def test_a_part_whose_description_has_another_value_somewhere(source: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(source, Path(folder) / source.name))
        part = data.draw(st.sampled_from(sorted((run / "sessions.parquet").iterdir())))
        table = pq.read_table(part)
        metadata = table.schema.metadata
        text = changed(data, json.loads(metadata[META_KEY]))
        pq.write_table(
            table.replace_schema_metadata({**metadata, META_KEY: text.encode("utf-8", "surrogatepass")}), part
        )
        reported(run)


@few
@given(source=st.sampled_from(WITH_PARTS), data=st.data())
def test_a_part_with_another_column_or_without_one(source: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(source, Path(folder) / source.name))
        part = data.draw(st.sampled_from(sorted((run / "sessions.parquet").iterdir())))
        table = pq.read_table(part)
        name = data.draw(st.sampled_from(table.column_names))
        at, rows = table.schema.get_field_index(name), table.num_rows
        values: list[Any] = [None, "x", -7, float("nan"), 1e300, [1.0, -1.0]]
        columns = [None, *(pa.array([value] * rows) for value in values)]
        column = data.draw(st.sampled_from(columns))
        other = table.remove_column(at) if column is None else table.set_column(at, name, column)
        pq.write_table(other.replace_schema_metadata(table.schema.metadata), part)
        reported(run)


@few
@given(source=st.sampled_from(STORED), data=st.data())
def test_a_file_with_other_bytes_or_fewer(source: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(source, Path(folder) / source.name))
        files = sorted(path for path in run.rglob("*") if path.suffix in (".parquet", ".json") and path.is_file())
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 20))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        end = data.draw(st.none() | st.integers(0, len(content)))
        file.write_bytes(content[:end])
        reported(run)
