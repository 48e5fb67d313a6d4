"""The HTML report: self-contained, the answer first, nothing of what a server said taken for markup."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html import unescape
from itertools import pairwise

import pytest
from html_pages import HOSTILE, empty_run, hostile_study, interrupted_run, large_study, parsed
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import a_run, doubtful_sweep, refused_sweep
from study_samples import a_run_of, a_study, an_slo, sample

from goldens import Golden
from pytest_openenv_scale.analysis.study import join_runs, study_of
from pytest_openenv_scale.reporting.content.cell_verdicts import reason_words
from pytest_openenv_scale.reporting.content.headlines import study_headline
from pytest_openenv_scale.reporting.content.refusals import refusal_sentence
from pytest_openenv_scale.reporting.figures import FiguresError, FigureSvg
from pytest_openenv_scale.reporting.html import page as html

GOOD, BAD = (1.0, 0.05), (0.5, 0.4)
ASKED = an_slo(max_batch=32)
HOLDS, BREAKS, OPEN = {8: GOOD, 32: GOOD, 128: BAD}, {8: GOOD, 32: BAD}, {8: GOOD, 32: GOOD}


def page(source) -> str:
    return html.report_html(source, figures={})


def figures_section(report: str) -> str:
    (section,) = re.findall(r'<section aria-labelledby="figures">(.*?)</section>', report, re.DOTALL)
    return unescape(section)


def of(name: str, batches, **fields):
    return sample(name, batches, target=name, slo=fields.pop("slo", ASKED), **fields)


@pytest.mark.parametrize(
    "samples",
    [
        [of("a", HOLDS)],
        [of("a", BREAKS)],
        [of("a", HOLDS), of("b", HOLDS)],
        [of("a", HOLDS), of("b", BREAKS)],
        [of("a", BREAKS), of("b", BREAKS)],
        [of("a", OPEN, slo=an_slo()), of("b", OPEN, slo=an_slo())],
        [of("a", {8: BAD}, slo=an_slo()), of("b", OPEN, slo=an_slo())],
        [of("a", HOLDS, slo=an_slo())],
        [of("a", HOLDS, slo=an_slo()), of("b", BREAKS, slo=an_slo())],
        [of("a", HOLDS, slo=an_slo(total_p99=5.0))],
    ],
)
def test_the_headline_is_the_answer(golden: Golden, samples) -> None:
    study = a_study(*samples)
    golden(study_headline(study))
    assert study_headline(study) in parsed(page(study)).text


def test_what_was_only_measured_has_a_neutral_answer_and_no_colour_of_a_verdict() -> None:
    report = page(a_study(of("a", HOLDS, slo=an_slo()), of("b", OPEN, slo=an_slo())))
    answer = report[report.index('class="answer') : report.index("</header>")]
    assert answer.startswith('class="answer measured"')
    assert "✓" not in answer
    assert set(re.findall(r'class="badge (\w+)"', report)) == {"measured"}
    asked = page(a_study(of("a", HOLDS, slo=an_slo()), of("b", HOLDS)))
    assert 'class="answer met"' in asked
    assert set(re.findall(r'class="badge (\w+)"', asked)) == {"measured", "met"}


def test_the_verdict_stands_beside_the_batch_and_long_tables_are_folded() -> None:
    report = page(a_study(of("a", BREAKS, reps=2)))
    curve = report[report.index('<article class="curve"') : report.index("</article>")]
    assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', curve)[:2] == ["batch", "verdict"]
    assert "not shown at this width: " in parsed(curve).text
    for key in ("<summary>Scaling</summary>", "<summary>Plan and workload</summary>"):
        assert key in report


def test_the_verdict_comes_before_findings_figures_curves_tables_and_circumstances() -> None:
    report = html.report_html(a_study(), figures={"k": FigureSvg("k", "A figure", "alt", "<svg></svg>")})
    order = ["headline", "verdicts", "findings", "figures", "curves", "tables", "targets", "environment", "again"]
    places = [report.index(f'id="{name}"') for name in order]
    assert places == sorted(places)


def test_what_misses_its_limits_stands_above_what_meets_them() -> None:
    report = page(a_study(of("aaa", HOLDS), of("zzz", BREAKS)))
    verdicts = report[report.index('id="verdicts"') : report.index('id="curves"')]
    assert verdicts.index("zzz") < verdicts.index("aaa")


def test_a_verdict_says_what_was_asked_what_came_out_and_why() -> None:
    report = parsed(page(a_run_of(of("a", BREAKS, reps=3)))).text
    for words in ("max_batch ≥ 32", "✗", "missed", "max_batch 8 < 32 in 3 of 3 repetitions"):
        assert words in report


def test_nothing_that_others_wrote_becomes_markup() -> None:
    parts = parsed(page(hostile_study()))
    assert parts.all("script") == []
    assert parts.all("img") == []
    assert [name for _, attributes in parts.elements for name in attributes if name.startswith("on")] == []
    assert parts.text.count("<script>document.title='taken'</script></svg></style>") > 10
    assert "{{ 7*7 }}" in parts.text
    assert "\x1b" not in parts.text


def test_the_page_needs_nothing_else() -> None:
    report = page(large_study())
    parts = parsed(report)
    (policy,) = [meta["content"] for meta in parts.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policy or "")
    links = [attributes[name] for _, attributes in parts.elements for name in ("href", "src") if name in attributes]
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    assert re.findall(r"@import|url\(", report) == []


@pytest.mark.parametrize(
    "study", [a_study(), large_study(), hostile_study(), join_runs([interrupted_run()]), join_runs([])]
)
def test_every_link_leads_somewhere_and_no_id_stands_twice(study) -> None:
    parts = parsed(page(study))
    ids = [attributes["id"] for _, attributes in parts.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in parts.all("a")} - {"verdicts"} <= set(ids)


def test_the_contents_name_every_curve() -> None:
    study = large_study()
    assert len(study.curves) == 40
    contents = page(study).partition("<nav")[2].partition("</nav>")[0]
    assert contents.count('href="#curve-') == 40


def test_tables_have_captions_and_heads_that_say_what_they_head() -> None:
    report = page(a_study())
    parts = parsed(report)
    assert len(parts.all("table")) == len(parts.all("caption")) > 10
    assert {cell.get("scope") for cell in parts.all("th")} == {"col", "row"}


def test_headings_skip_no_level() -> None:
    levels = [int(tag[1]) for tag, _ in parsed(page(a_study())).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_refusal_the_log_the_failures_and_the_command_of_a_curve_are_there(tmp_path) -> None:
    refused, doubtful = refused_sweep(), doubtful_sweep()
    report = parsed(page(a_run(tmp_path, refused, doubtful))).text
    assert refusal_sentence(refused.curves[0].verdict.refused[0]) in report
    assert "connection closed" in report
    assert "Server at capacity: 100/100 sessions" in report
    assert "--openenv-target local:app:app,server=uvicorn" in report
    assert reason_words(doubtful.curves[0].verdict.reasons[0]) in report


@pytest.mark.parametrize(
    "run",
    [
        interrupted_run(),
        empty_run(),
        empty_run("running"),
        replace(empty_run(), problems=("part-3.parquet: it is damaged",)),
    ],
)
def test_a_run_that_is_not_whole_has_a_report_that_says_so(golden: Golden, run) -> None:
    golden(re.findall(r"<li>(.*?)</li>", page(run).partition('class="problems"')[2].partition("</ul>")[0]))


def test_where_nothing_was_measured_the_answer_is_inconclusive() -> None:
    assert study_headline(study_of(empty_run())) == "Nothing was measured"
    assert 'class="answer inconclusive"' in page(empty_run())


def test_figures_that_cannot_be_drawn_leave_a_report_that_says_so(golden: Golden, monkeypatch) -> None:
    def fail(study):
        raise FiguresError("the figures cannot be drawn: no memory")

    monkeypatch.setattr(html, "figure_svgs", fail)
    report = html.report_html(a_study(sample()))
    golden(parsed(figures_section(report)).text)


def test_without_what_draws_a_report_says_in_place_of_the_pictures_what_to_install(golden: Golden, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "plotnine", None)
    assert 'id="figures"' not in html.report_html(empty_run())
    monkeypatch.setattr(
        "pytest_openenv_scale.reporting.figures.write.figure_contents", lambda _: pytest.fail("rows were read")
    )
    golden(parsed(figures_section(html.report_html(a_study(sample())))).text)


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_any_note_is_shown_and_breaks_nothing(note) -> None:
    plain = parsed(page(a_run_of(sample("a", OPEN), note="")))
    parts = parsed(page(a_run_of(sample("a", OPEN), note=f"x{note}")))
    extra = [tag for tag, _ in parts.elements]
    extra.remove("blockquote")
    assert extra == [tag for tag, _ in plain.elements]


def test_the_hostile_text_is_what_the_tests_take_it_for() -> None:
    assert parsed(HOSTILE).all("script")
