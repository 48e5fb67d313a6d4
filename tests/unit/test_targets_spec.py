"""What a target specification may say, and what is said about a wrong one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.core.endpoint import Target
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target, target_names
from pytest_openenv_scale.targets.url import UrlTarget


def opened(text: str, **headers: str) -> Target:
    return open_target(parse_target(text), root=Path("/nowhere"), headers=headers)


def attached(text: str, **headers: str) -> UrlTarget:
    target = opened(text, **headers)
    assert isinstance(target, UrlTarget)
    return target


def refusal(text: str) -> str:
    with pytest.raises(GrammarError) as caught:
        opened(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_target_is_refused_with_the_nearest_name_and_the_list_of_names(golden: Golden) -> None:
    golden(refusal("loca"))
    golden(refusal("kubernetes"))
    assert {"local", "docker", "envoy", "provider"} <= set(target_names())


def test_an_unknown_key_is_refused_with_the_nearest_key_and_the_list_of_keys(golden: Golden) -> None:
    golden(refusal("local,wrkers=2"))
    golden(refusal("http://h,port=1"))


@pytest.mark.parametrize(
    "text",
    [
        "local,workers=0",
        "local,port=70000",
        "local,server=gunicorn",
        "local:server.app",
        "local:a:b,app=c:d",
        "local,limit_concurrency=2",
        "http://h,cores=many",
        "local,env.2X=1",
    ],
)
def test_a_wrong_value_is_refused_with_the_key_it_was_given_for(golden: Golden, text: str) -> None:
    golden(refusal(text))


def test_the_canonical_specification_sorts_its_options() -> None:
    assert opened("local:a.b:c,workers=2,label=x").spec == "local:a.b:c,label=x,workers=2"


def test_secrets_of_a_specification_are_never_shown() -> None:
    assert opened("local,env.API_KEY=hush,env.MODE=fast").spec == "local,env.API_KEY=***,env.MODE=fast"
    target = attached("http://me:hush@h:8000/x", Authorised="hush")
    assert target.spec == "http://h:8000/x"
    assert "hush" not in repr(vars(target)["context"])


def test_a_query_in_a_url_is_refused_without_showing_its_value() -> None:
    line = refusal("https://h/x?token=hush")
    assert "--openenv-header" in line
    assert "hush" not in line


def headers_of(target: UrlTarget) -> dict[str, str]:
    return dict(vars(target)["_headers"])


def test_userinfo_in_a_url_becomes_a_basic_authorization_header() -> None:
    expected = base64.b64encode(b"me:a@b").decode()
    assert headers_of(attached("https://me:a%40b@h/x")) == {"Authorization": f"Basic {expected}"}


def test_an_authorization_header_of_the_run_outranks_userinfo() -> None:
    assert headers_of(attached("https://me:no@h", authorization="Bearer yes")) == {"authorization": "Bearer yes"}


def test_urls_of_one_target_must_agree_on_userinfo() -> None:
    assert "same user:password@" in refusal("http://a:b@h1,http://h2")


def test_urls_are_bases_without_userinfo_trailing_slash_and_endpoint() -> None:
    urls = vars(attached("ws://h1:1/p/,https://h2/q/ws"))["_urls"]
    assert urls == ("ws://h1:1/p", "https://h2/q")
