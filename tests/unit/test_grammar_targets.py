"""Targets, URLs, JSON and headers as a person writes them, and how they are shown without secrets."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import parse_header, parse_json
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target, redact_target, redact_url

# Targets


@pytest.mark.parametrize(
    ("text", "name", "argument", "options"),
    [
        ("local", "local", None, ()),
        ("local:pkg.app:app", "local", "pkg.app:app", ()),
        (
            "local:pkg.app:app,workers=4,server=uvicorn",
            "local",
            "pkg.app:app",
            (("server", "uvicorn"), ("workers", "4")),
        ),
        ("docker:./folder", "docker", "./folder", ()),
        ("docker:registry:5000/image:tag", "docker", "registry:5000/image:tag", ()),
        ("docker:a@sha256:00ff", "docker", "a@sha256:00ff", ()),
        ("spaces:USER/NAME", "spaces", "USER/NAME", ()),
        ("slurm,nodes=2", "slurm", None, (("nodes", "2"),)),
        ("slurm:nodes", "slurm", "nodes", ()),
        ("local,env.A=", "local", None, (("env.A", ""),)),
        ("local,env.A=x=y", "local", None, (("env.A", "x=y"),)),
        (" local , label = a b ", "local", None, (("label", "a b"),)),
        ('local,env.X="0,1",workers=2', "local", None, (("env.X", "0,1"), ("workers", "2"))),
        ('slurm,partition= "short,long" ,nodes=2', "slurm", None, (("nodes", "2"), ("partition", "short,long"))),
        ('local,env.X="say ""hi"", b=1"', "local", None, (("env.X", 'say "hi", b=1'),)),
        ('local,env.X=say "hi"', "local", None, (("env.X", 'say "hi"'),)),
        ('local,env.X="",label=" a "', "local", None, (("env.X", ""), ("label", " a "))),
        ('local,env.X=",temporary"', "local", None, (("env.X", ",temporary"),)),
        ('provider:m:C,start.command="[""sh"",""-c""]"', "provider", "m:C", (("start.command", '["sh","-c"]'),)),
        ('docker:"./a,b",workers=2', "docker", "./a,b", (("workers", "2"),)),
        ('slurm:partition="short,long",nodes=2', "slurm", 'partition="short,long"', (("nodes", "2"),)),
        ('slurm:partition="short"', "slurm", "partition=short", ()),
        ('http://h/p,hardware="a,b"', "url", "http://h/p", (("hardware", "a,b"),)),
        ("http://host", "url", "http://host", ()),
        ("HTTPS://Host:8443/prefix", "url", "HTTPS://Host:8443/prefix", ()),
        ("wss://h/p?a=1,2,cores=8", "url", "wss://h/p?a=1,2", (("cores", "8"),)),
        ("http://h/a,b", "url", "http://h/a,b", ()),
        ("http://a,http://b", "url", "http://a,http://b", ()),
        ("http://a, ws://b ,cores=8,hardware=x", "url", "http://a,ws://b", (("cores", "8"), ("hardware", "x"))),
        ("http://[::1]:8000/x", "url", "http://[::1]:8000/x", ()),
        ("http://u:p@h", "url", "http://u:p@h", ()),
    ],
)
def test_a_target_is_a_name_an_argument_and_sorted_options(text, name, argument, options):
    assert parse_target(text) == TargetSpec(name, argument, options)


def test_a_target_spec_is_taken_as_it_is():
    spec = TargetSpec("local")
    assert parse_target(spec) is spec


def test_the_urls_of_a_target_are_told_apart():
    assert parse_target("http://a/x,y,https://b,cores=2").urls == ("http://a/x,y", "https://b")
    assert parse_target("local:http").urls == ()


def test_an_option_is_read_by_its_key():
    spec = parse_target("local,workers=4")
    assert spec.option("workers") == "4"
    assert spec.option("server") is None


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("local,workers=4,server=uvicorn", "local,server=uvicorn,workers=4"),
        ("local:a:b", "local:a:b"),
        ("https://h/p,label=x,cores=8", "https://h/p,cores=8,label=x"),
        ('local,label="x",env.X="0,1"', 'local,env.X="0,1",label=x'),
        ('local:"a,b"', 'local:"a,b"'),
        ('local:"a"', "local:a"),
        ('slurm:partition="short,long"', 'slurm:partition="short,long"'),
    ],
)
def test_the_canonical_text_of_a_target_has_sorted_options(text, canonical):
    assert str(parse_target(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        None,
        5,
        "local\nx",
        "local,label=a\x00",
        "local:",
        "local,server",
        "local,server=",
        "local,a=1,b",
        "local,a=1,a=2",
        "local,env.A=1,b",
        "slurm,partition=a,b",
        'local,label="a',
        'local,label="a"b',
        'local,label=""',
        "local,",
        ":x",
        ",a=1",
        "=1",
        "localhost:8000",
        "localhost",
        "127.0.0.1:8000/x",
        "my.host.org/prefix",
        "url:http",
        "http://",
        "http://:80",
        "http://h:99999",
        "http://h:x",
        "http://h:0",
        "http://[::1",
        "http://h/a b",
        "http://a,,http://b",
        "http://a,",
        "http://a,cores=2,http://b",
    ],
)
def test_a_wrong_target_is_refused_with_what_to_write(golden, text):
    with pytest.raises(GrammarError) as error:
        parse_target(text)
    golden(error.value)
    assert "\n" not in str(error.value)


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(lambda name: name not in ("url", "localhost"))
WORDS = st.text(st.sampled_from(',"= a:/x\\_.é') | st.characters(exclude_categories=["Cc"]), min_size=1, max_size=12)
KEYS = st.from_regex(r"[a-z_][a-z0-9_.-]{0,6}", fullmatch=True)
QUOTED = st.builds(lambda key, word: f'{key}="{word}"', KEYS, WORDS)
OPTIONS = st.dictionaries(KEYS, WORDS | QUOTED, max_size=4)


@given(NAMES, st.none() | WORDS | QUOTED, OPTIONS)
@example("docker", 'a="b,c"', {})
@example("docker", 'a="b"', {})
@example("docker", ' a="b,c"', {})
def test_the_canonical_text_of_a_target_reads_back(name, argument, options):
    spec = TargetSpec(name, argument, tuple(sorted(options.items())))
    assert parse_target(str(spec)) == spec


@given(
    st.lists(
        st.from_regex(r"https?://[a-z]{1,5}(:80)?(/[a-z]{1,3}(,[a-z]{1,2})?)?", fullmatch=True), min_size=1, max_size=3
    )
)
def test_the_canonical_text_of_urls_reads_back(urls):
    spec = TargetSpec("url", ",".join(urls), (("cores", "2"),))
    assert parse_target(str(spec)) == spec
    assert spec.urls == tuple(urls)


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("http://h/p", "http://h/p"),
        ("https://user:hunter2@h:1/p", "https://h:1/p"),
        ("https://token@h", "https://h"),
        ("https://u:a@b@h/x", "https://h/x"),
        ("https://h/@user/space", "https://h/@user/space"),
        ("https://h/p?token=hunter2&x", "https://h/p?token=***&x=***"),
        ("https://h/p#hunter2", "https://h/p"),
        ("https://u:hunter2/3@h/", "https://h/"),
        ("https://u:hunter2@[bad/?k=hunter2", "https://[bad/"),
        ("wss://u:hunter2@h", "wss://h"),
        ("no url", "no url"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, redacted):
    assert redact_url(url) == redacted


@given(st.text())
def test_any_text_can_be_redacted(text):
    assert isinstance(redact_url(text), str)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://u:hunter2@a,https://b?k=hunter2,cores=1", "https://a,https://b?k=***,cores=1"),
        ("local,env.HF_TOKEN=hunter2,env.SIZE=3", "local,env.HF_TOKEN=***,env.SIZE=3"),
        ('local,env.HF_TOKEN="a,hunter2",env.X="3,4"', 'local,env.HF_TOKEN=***,env.X="3,4"'),
        ("local,env.my_password=hunter2", "local,env.my_password=***"),
        ("local:a:b,workers=2", "local:a:b,workers=2"),
    ],
)
def test_a_target_is_shown_without_its_secrets(text, redacted):
    spec = parse_target(text)
    assert redact_target(spec) == redacted
    assert "hunter2" not in repr(spec)


@pytest.mark.parametrize(
    "text",
    [
        "http://u:hunter2@h:99999",
        "http://u:hunter2@[::1",
        "http://u:hunter2@h/a b",
        "local,x,https://u:hunter2@h",
        "https://u:hunter2/@h",
        "http://u:hunter2@",
        "local,env.MY_TOKEN=x,hunter2",
        'local,env.MY_TOKEN="x,hunter2',
        'local,env.MY_TOKEN="x"hunter2',
        "http://u:hunter2@h,,http://b",
    ],
)
def test_the_error_of_a_target_never_repeats_a_password(text):
    with pytest.raises(GrammarError) as error:
        parse_target(text)
    assert "hunter2" not in str(error.value)


# JSON and headers


@pytest.mark.parametrize("value", ['{"a": 1}', '"text"', "[1, null, true]", {"a": [1, 2]}, [1], "1", 1, None, True])
def test_json_is_text_or_a_value_that_is_json(value):
    expected = json.loads(value) if isinstance(value, str) else value
    assert parse_json(value, "an action") == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "{'a': 1}",
        "NaN",
        '{"a": Infinity}',
        "[1e999]",
        math.nan,
        {"a": {1, 2}},
        object(),
        b"1",
        "[" * 10000,
        "9" * 5000,
    ],
)
def test_what_is_no_json_is_refused(golden, value):
    with pytest.raises(GrammarError) as caught:
        parse_json(value, "reset data")
    golden(caught.value)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("Authorization: Bearer x", ("Authorization", "Bearer x")),
        ("X-Empty:", ("X-Empty", "")),
        ("a:b:c", ("a", "b:c")),
        ("X : y", ("X", "y")),
    ],
)
def test_a_header_is_a_name_and_a_value(text, header):
    assert parse_header(text) == header


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "X: hunter2\r\nY: z",
        "X: hunter2\x00",
        "X Y: hunter2",
        ": hunter2",
        "",
        None,
        "X: hunter2€",
        "Upgrade: hunter2",
        "sec-websocket-key: hunter2",
        "Content-Length: 3",
    ],
)
def test_a_wrong_header_is_refused_without_repeating_its_value(text):
    with pytest.raises(GrammarError) as error:
        parse_header(text)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)
