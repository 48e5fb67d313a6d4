"""Labels and test ids of several targets: distinct, short and without secrets."""

from __future__ import annotations

import pytest

from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.plugin.target import label_suffix, target_ids

CASES = [
    (["local"], [""]),
    (["local", "local,server=uvicorn"], ["", ""]),
    (["slurm:nodes=2", "slurm:nodes=4"], ["-nodes2", "-nodes4"]),
    (["local,workers=1", "local,workers=2"], ["-workers1", "-workers2"]),
    (["local", "local,workers=2"], ["", "-workers2"]),
    (["docker:one", "docker:./two"], ["-one", "-two"]),
    (["http://a:1", "http://b:1"], ["", ""]),
    (["http://a:1/x", "http://a:1/y"], ["-x", "-y"]),
    (["local,env.A_TOKEN=1", "local,env.A_TOKEN=2"], ["-1", "-2"]),
    (["local,label=x", "local"], ["", ""]),
]


@pytest.mark.parametrize(("texts", "suffixes"), CASES)
def test_targets_that_would_share_a_label_get_what_tells_them_apart(texts, suffixes):
    specs = [parse_target(text) for text in texts]
    assert [label_suffix(spec, specs) for spec in specs] == suffixes


def test_ids_are_the_targets_without_secrets_and_numbered_where_they_repeat():
    specs = [parse_target(text) for text in ("http://u:pw@a", "http://u:pw2@a", "local")]
    assert target_ids(specs) == ["http://a#1", "http://a#2", "local"]
