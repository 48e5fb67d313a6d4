import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.text import (
    LEFT_OUT,
    LOG_LINES,
    count_new_lines,
    end_of_log,
    on_one_line,
    shorten,
    without_escapes,
)
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


TRACEBACK = ["Traceback (most recent call last):", '  File "app.py", line 3, in load', "    find('punkt')", "    ^^^^^"]


def log_of(*lines: str) -> str:
    return "\n".join(["starting", *lines])


@pytest.mark.parametrize(
    ("fault", "first_line"),
    [
        (["ModuleNotFoundError: No module named 'chess'"], "ModuleNotFoundError: No module named 'chess'"),
        (["LookupError: ", "*****", "  Resource punkt not found."], "LookupError: Resource punkt not found."),
        (["OSError"], "OSError"),
    ],
)
def test_the_end_of_a_log_begins_with_the_exception_it_names(fault: list[str], first_line: str) -> None:
    log = log_of(*TRACEBACK, *fault, *(f"searched in {number}" for number in range(9)))
    assert end_of_log(log, 4) == [first_line, LEFT_OUT, "searched in 7", "searched in 8"]


@pytest.mark.parametrize("before", ["ERROR:    ", "web-1  | ", "    "])
def test_what_a_logger_writes_before_a_traceback_hides_nothing_of_it(before: str) -> None:
    fault = [*TRACEBACK, "LookupError: ", "*****", "  Resource punkt not found."]
    whole = fault if before == "ERROR:    " else [f"{before}{line}" for line in fault]
    log = log_of(f"{before}{fault[0]}", *whole[1:], *(f"searched in {number}" for number in range(9)))
    assert end_of_log(log, 4)[0] == "LookupError: Resource punkt not found."


def test_of_a_group_the_exception_inside_is_told() -> None:
    inside = [f"    | {line}" for line in [*TRACEBACK, "ValueError: no"]]
    head = ["  + Exception Group Traceback (most recent call last):", '  |   File "app.py", line 1, in <module>']
    group = [*head, "  | ExceptionGroup: several (1 sub-exception)", "  +-+------- 1 -------", *inside]
    log = log_of(*group, "    +------------------------------------", *map(str, range(9)))
    assert end_of_log(log, 4)[0] == "ValueError: no"


def test_an_exception_among_the_last_lines_is_not_told_twice() -> None:
    lines = [*TRACEBACK, "ValueError: no", "bye"]
    assert end_of_log(log_of(*lines), 4) == lines[-4:]


def test_an_end_from_outside_is_not_what_failed() -> None:
    first, last = [*TRACEBACK, "ValueError: no"], [*TRACEBACK, "asyncio.exceptions.CancelledError: over"]
    rest = [f"line {number}" for number in range(9)]
    assert end_of_log(log_of(*first, *last, *rest), 5)[0] == "ValueError: no"
    assert end_of_log(log_of(*last, *rest), 5)[0] == "asyncio.exceptions.CancelledError: over"


@pytest.mark.parametrize("log", ["", "one", "Traceback (most recent call last):\n  File", "a\n\nb"])
@pytest.mark.parametrize("lines", [1, 2, 20])
def test_a_log_without_an_exception_ends_with_its_last_lines(log: str, lines: int) -> None:
    assert end_of_log(log, lines) == log.splitlines()[-lines:]


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("", "", 0),
        ("", "a\nb", 2),
        ("a\nb", "a\nb", 0),
        ("a\nb", "a\nb\nc", 1),
        ("a\nb\nc", "c\nd", 1),
        ("a\na", "a\na\na", 1),
        ("a", "x\ny", 2),
        ("full\n" * LOG_LINES, "full\n" * LOG_LINES, LOG_LINES),
    ],
)
def test_what_a_log_got_meanwhile_is_told_from_what_it_had(before: str, after: str, new: int) -> None:
    assert count_new_lines(before, after) == new
