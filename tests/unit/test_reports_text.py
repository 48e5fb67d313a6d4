import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.text import on_one_line, shorten, without_escapes
from pytest_openenv_scale.reporting.text.page import TextPage, supports_unicode


@pytest.mark.parametrize(
    ("encoding", "speaks"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), ("cp1252", False), (None, False), ("no-such", False)],
)
def test_an_encoding_speaks_unicode_if_it_prints_every_sign_of_the_reports(encoding, speaks):
    assert supports_unicode(encoding) is speaks


def test_colours_and_cursor_movements_of_a_log_are_removed():
    assert without_escapes("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Kgone\x07") == "red gone?"


def test_text_directions_and_lone_surrogates_cannot_garble_a_report():
    assert without_escapes("a\u202eb\ud800c") == "a?b?c"


def test_line_ends_become_one_space():
    assert on_one_line(" one\r\n\ttwo \n three ") == "one two three"


def test_text_is_cut_where_it_tells_least():
    assert shorten("tests/test_a.py::test_b", 12) == "tests/test.."
    assert shorten("tests/test_a.py::test_b", 12, left=True) == "..py::test_b"


def test_a_unit_stays_with_its_number_where_a_line_wraps():
    page = TextPage(width=60)
    page.add_sentence("the client's CPU was, all things that count considered, 98 % busy")
    assert [line.text for line in page.lines][-1] == "    98 % busy"


def test_a_stream_without_unicode_gets_ascii():
    page = TextPage(encoding="ascii")
    page.add_sentence("✗ success 95 % × 2 ≥ 1 → größer 測試")
    assert page.text == "  x success 95 % x 2 >= 1 -> gr\\xf6\\xdfer \\u6e2c\\u8a66"


@given(st.text(), st.integers(-5, 200), st.sampled_from([None, "ascii", "utf-8"]))
def test_no_sentence_is_wider_than_the_page(text, width, encoding):
    page = TextPage(width, encoding)
    page.add_sentence(text)
    assert all(len(line.text) <= page.width for line in page.lines)


@given(st.text())
def test_what_a_server_wrote_can_always_be_printed(text):
    page = TextPage(encoding="ascii")
    page.add_line(without_escapes(text).replace("\n", " "))
    assert page.text.isascii()
    assert page.text.isprintable()


@pytest.mark.parametrize("width", range(60, 90))
def test_a_line_to_copy_is_never_broken(width: int) -> None:
    page = TextPage(width, "utf-8")
    page.add_sentence("one session at a time: in the app's file write create_app(..., max_concurrent_envs=32)")
    assert "create_app(..., max_concurrent_envs=32)" in page.text
