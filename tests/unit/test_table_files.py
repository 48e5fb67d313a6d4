"""Tables as files: LaTeX that is taken for nothing else, CSV that no spreadsheet computes, numbers in named units."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_samples import EVERYTHING, a_run_of, a_study, sample

from goldens import Golden
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting import write_reports
from pytest_openenv_scale.reporting.content.study_tables import study_tables
from pytest_openenv_scale.reporting.content.tables import Table, Value, text_table
from pytest_openenv_scale.reporting.table_files import table_csv, table_latex, write_tables
from pytest_openenv_scale.reporting.table_files.csv import UNITS, safe_text
from pytest_openenv_scale.reporting.table_files.latex import escape

STUDY = a_study(*EVERYTHING[:4])
TABLES = {table.key: table for table in study_tables(STUDY)}
ODD = "100 % of $x_1 & #2 {~^} \\input ≥ 64 µs [a] -- '' 中 ´"


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("key", ["summary", "errors"])
def test_a_table_as_latex_and_as_csv(golden: Golden, key) -> None:
    golden(table_latex(TABLES[key]), "latex")
    golden(table_csv(TABLES[key]).splitlines(), "csv")


def test_what_latex_would_take_for_a_command_is_text(golden: Golden) -> None:
    golden([escape(ODD), table_latex(text_table("odd", ODD, "a|b", [["*", "[x]"]]))])


COMMANDS = re.compile(r"\\[&%$#_{}]|\\(?:[a-z]+\{\}|[a-z]+(?=\$))|\$[^$]*\$|\{\}|\{[\[\]*]\}")
"""What an escaped text may be made of beside plain signs."""


@given(st.text())
def test_no_text_ends_a_cell_begins_a_command_or_needs_a_package(text) -> None:
    escaped = escape(text)
    rest = COMMANDS.sub("", escaped)
    assert not set(rest) & set("\\&%$#_{}~^`<>|[]*\n")
    assert all(sign.isascii() or "À" <= sign <= "ÿ" for sign in rest)
    assert "--" not in escaped or {"–", "—"} & set(text)


@given(st.text(st.characters(codec="utf-8")))
def test_no_text_is_a_formula_and_none_is_lost(text) -> None:
    table = text_table("t", "T", "name|text", [["a", text]])
    ((_, cell),) = rows_of(table_csv(table))[1:]
    assert not re.match(r"[=+\-@\t\r]", cell)
    assert cell.removeprefix("'") == on_one_line(text).removeprefix("'") or on_one_line(text) == "–"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1"])
def test_what_a_spreadsheet_computes_stands_behind_an_apostrophe(text) -> None:
    assert safe_text(text) == f"'{on_one_line(text)}"


def test_numbers_are_as_they_were_measured_bounds_keep_their_sign_and_what_is_not_known_is_empty() -> None:
    values = (Value("a"), Value("1.01 s", 1.0123456789), Value("≥ 16,384", 16384), Value("–"), Value("−3", -3.0))
    table = Table("t", "T", ("name", "total p99", "max batch", "rps", "factor"), (values,))
    assert rows_of(table_csv(table)) == [
        ["name", "total p99 (s)", "max batch", "rps", "factor"],
        ["a", "1.0123456789", "≥ 16384", "", "-3"],
    ]


def test_a_head_names_the_unit_of_every_number_whose_text_has_one() -> None:
    with_unit = {
        head
        for table in study_tables(a_study(*EVERYTHING, sample("local-uvicorn", mode="http")))
        for row in table.rows
        for head, value in zip(table.heads, row, strict=True)
        if value.number is not None and re.search(r"\d (?:µs|ms|s|%|B|[KMG]iB)$", value.text)
    }
    assert with_unit <= set(UNITS)


@pytest.mark.parametrize("source", [STUDY, a_run_of(EVERYTHING[0])], ids=["a study", "a run"])
def test_every_table_with_rows_is_a_file_of_each_format(source, tmp_path) -> None:
    written = write_reports(source, formats=("latex", "csv"), directory=tmp_path)
    keys = {table.key for table in study_tables(a_study(EVERYTHING[0]) if source is not STUDY else STUDY) if table}
    names = {path.name for path in written if path.parent == tmp_path / "tables"}
    assert names == {f"{key}{suffix}" for key in keys for suffix in (".tex", ".csv")}


def test_a_table_that_has_no_rows_now_is_removed_and_nothing_else(tmp_path) -> None:
    table = TABLES["summary"]
    (path,) = write_tables([table], tmp_path, ".csv", table_csv)
    other = tmp_path / "summary.tex"
    other.write_text("of somebody else")
    assert write_tables([replace(table, rows=())], tmp_path, ".csv", table_csv) == []
    assert not path.exists()
    assert other.exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path) -> None:
    (tmp_path / "tables").write_text("")
    with pytest.raises(RunError, match=r"^the report cannot be written: [^\n]+$"):
        write_reports(STUDY, formats=("csv",), directory=tmp_path)
