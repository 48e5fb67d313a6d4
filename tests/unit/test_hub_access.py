"""What a failed request to the Hub is turned into: one line that says what to do, and no secret."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens import Golden
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
    "status",
    [
        400,
        401,
        403,
        412,
        429,
        503,
    ],
)
def test_a_status_is_told_with_what_to_do(golden: Golden, status: int) -> None:
    golden(explain_error(failure(status, "bad yaml\nsecond line")))


def test_a_repository_that_is_not_seen_may_be_missing_or_private(golden: Golden) -> None:
    golden(explain_error(failure(404, name="RepositoryNotFoundError")))
    golden(explain_error(failure(404, name="RevisionNotFoundError")))


def test_the_reason_is_told_and_not_that_there_is_one(golden: Golden) -> None:
    outer = RuntimeError("Error while uploading 'x' to the Hub.")
    outer.__cause__ = failure(403)
    golden(explain_error(outer))


def test_a_hub_that_is_not_reached_is_told_with_where_it_is_looked_for(golden: Golden) -> None:
    error = type("ConnectError", (Exception,), {})("[Errno 111] Connection refused")
    golden(explain_error(error))


def test_a_hub_that_must_not_be_asked_is_no_matter_of_the_network(golden: Golden) -> None:
    error = type("OfflineModeIsEnabled", (Exception,), {})("Cannot reach …: offline mode is enabled.")
    golden(explain_error(error))


@pytest.mark.parametrize(
    "echo",
    [
        f"Authorization: Bearer {SECRET}",
        f"bearer%20{SECRET} is wrong",
        f"token {SECRET}?",
        "Illegal header value b'Bearer plain-secret\\x00'",
        "token plain-secret is expired",
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


def test_a_repository_is_a_user_and_a_name(golden: Golden) -> None:
    assert check_repo_id("alice/my-env_2.0", "alice/runs") == "alice/my-env_2.0"
    for wrong in ("runs", "alice/", "a/b/c", "datasets/alice/runs", "alice/a b", "../x", "alice/a--b", ""):
        with pytest.raises(HubError) as caught:
            check_repo_id(wrong, "alice/runs")
        golden(caught.value)
    with pytest.raises(HubError, match=r"\*\*\*"):
        check_repo_id(f"{SECRET}@alice/runs", "alice/runs")
