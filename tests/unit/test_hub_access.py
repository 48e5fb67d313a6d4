"""What a failed request to the Hub is turned into: one line that says what to do, and no secret."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.hub import access
from pytest_openenv_scale.hub.access import HubError, check_repo_id, explain_error, hub_calls, without_secrets

SECRET = "hf_AbCdEf0123456789"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "current_token", lambda: "plain-secret")


def failure(status: int, message: str = "", name: str = "HfHubHTTPError") -> Exception:
    error: Any = type(name, (Exception,), {})(f"{status} for url https://x?token={SECRET}")
    error.response = SimpleNamespace(status_code=status)
    error.server_message = message
    return error


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "the Hub answered 400: bad yaml"),
        (401, "the Hub does not accept the token, or there is none (401); run hf auth login, or set HF_TOKEN"),
        (403, "the token may not do this (403); use one with write access to the repository"),
        (412, "somebody else changed the repository meanwhile (412); do it again"),
        (429, "the Hub asks for fewer requests (429); wait some minutes and do it again"),
        (503, "the Hub failed (503); do it again later, status: https://status.huggingface.co"),
    ],
)
def test_a_status_is_told_with_what_to_do(status: int, says: str) -> None:
    assert explain_error(failure(status, "bad yaml\nsecond line")) == says


def test_a_repository_that_is_not_seen_may_be_missing_or_private() -> None:
    assert "check the name, or run hf auth login" in explain_error(failure(404, name="RepositoryNotFoundError"))
    assert explain_error(failure(404, name="RevisionNotFoundError")) == "the Hub knows no such revision (404)"


def test_the_reason_is_told_and_not_that_there_is_one() -> None:
    outer = RuntimeError("Error while uploading 'x' to the Hub.")
    outer.__cause__ = failure(403)
    assert explain_error(outer).startswith("the token may not do this (403)")


def test_a_hub_that_is_not_reached_is_told_with_where_it_is_looked_for() -> None:
    error = type("ConnectError", (Exception,), {})("[Errno 111] Connection refused")
    assert explain_error(error) == (
        "the Hub cannot be reached (ConnectError: [Errno 111] Connection refused); check the network and HF_ENDPOINT"
    )


def test_a_hub_that_must_not_be_asked_is_no_matter_of_the_network() -> None:
    error = type("OfflineModeIsEnabled", (Exception,), {})("Cannot reach …: offline mode is enabled.")
    assert explain_error(error) == "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"


@pytest.mark.parametrize(
    "echo",
    [
        f"Authorization: Bearer {SECRET}",
        f"bearer%20{SECRET} is wrong",
        f"token {SECRET}?",
        "Illegal header value b'Bearer plain-secret\\x00'",
        "the token plain-secret is expired",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 409, 500])
def test_an_echo_of_the_token_is_never_repeated(echo: str, status: int) -> None:
    with pytest.raises(HubError) as caught, hub_calls("pushing to alice/runs"):
        raise failure(status, echo)
    assert str(caught.value).startswith("pushing to alice/runs: ")
    for secret in (SECRET, "plain-secret"):
        assert secret not in str(caught.value)
        assert secret not in explain_error(ValueError(echo))
    assert caught.value.__suppress_context__


@given(st.text(), st.text())
def test_a_token_is_found_wherever_it_stands(before: str, after: str) -> None:
    assert SECRET not in without_secrets(f"{before} {SECRET} {after}")


def test_a_repository_is_a_user_and_a_name() -> None:
    assert check_repo_id("alice/my-env_2.0", "alice/runs") == "alice/my-env_2.0"
    for wrong in ("runs", "alice/", "a/b/c", "datasets/alice/runs", "alice/a b", "../x", "alice/a--b", ""):
        with pytest.raises(HubError, match="is no repository on the Hub; write USER/NAME, such as alice/runs"):
            check_repo_id(wrong, "alice/runs")
    with pytest.raises(HubError, match=r"\*\*\*"):
        check_repo_id(f"{SECRET}@alice/runs", "alice/runs")
