"""`report.json` has a JSON schema that ships: made of the types, with words for every key, and every report fits it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from report_samples import a_run

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.reporting.json import FORMAT, run_document
from report_schema import ID, PATH, check_report, described, made_schema, schema_text

STORED = sorted((Path(__file__).parents[1] / "stored").glob("*/*/manifest.json"))


def test_the_schema_is_what_the_types_say():
    """OPENENV_SCALE_WRITE_BASELINES=1 writes it; what a new key means is then to be written into it."""
    text = schema_text(made_schema())
    if os.environ.get("OPENENV_SCALE_WRITE_BASELINES"):
        PATH.write_text(text, encoding="utf-8")
        return
    assert text == PATH.read_text(encoding="utf-8")


def test_every_object_and_every_key_is_described():
    assert [place for place, words in described().items() if not words] == []


def test_the_schema_is_one_and_names_the_version_of_the_format():
    schema = json.loads(PATH.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert (schema["$id"], schema["properties"]["format"]["const"]) == (ID, FORMAT)


@pytest.mark.parametrize("manifest", STORED, ids=lambda manifest: manifest.parent.name)
def test_reports_of_stored_runs_fit_it(manifest):
    check_report(run_document(load_run(manifest.parent)))


def test_a_key_too_many_or_too_few_is_no_report():
    document = run_document(a_run(Path("run")))
    curve = document["sweeps"][0]["curves"][0]
    curve["surprise"] = 1
    with pytest.raises(AssertionError, match=r"sweeps\[0\]\.curves\[0\]: .*surprise"):
        check_report(document)
    del curve["surprise"], curve["headline"]
    with pytest.raises(AssertionError, match="headline"):
        check_report(document)
