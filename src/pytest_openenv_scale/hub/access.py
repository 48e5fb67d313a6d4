"""How the Hub is reached: with `huggingface_hub` and its own token, every failure one line without a secret."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import yaml

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import install_extra

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_HIDDEN = "***"
_BEARER = re.compile(r"(bearer|basic)(\s+|%20|\+)[^\s'\",;]+", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{4,}")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_MOST_CHARACTERS = 300
"""The most characters of a message of the Hub that are repeated."""


class HubError(TargetError):
    """A request to the Hub that failed: one line saying what, why and what to do."""


def connect() -> HfApi:
    """Return the client of the Hub, which finds its token where `hf auth login` and HF_TOKEN put it.

    Raises:
        HubError: `huggingface_hub` is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise HubError(f"needs the huggingface_hub package; install it with {install_extra('spaces')}") from None
    return HfApi(library_name="pytest-openenv-scale")


def check_repo_id(text: str, example: str) -> str:
    """Return the name of a repository on the Hub, which is USER/NAME.

    Raises:
        HubError: the text is not USER/NAME; the message shows `example`.
    """
    if not _REPO_ID.fullmatch(text) or "--" in text or ".." in text:
        raise HubError(f"{without_secrets(text)!r} is no repository on the Hub; write USER/NAME, such as {example}")
    return text


@contextmanager
def hub_calls(what: str) -> Generator[None]:
    """Turn whatever the Hub or the way to it raises in the block into one line that begins with `what`.

    Raises:
        HubError: with that line; no token, header or echo of one is in it.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        # Not chained: a traceback of the original would show the request.
        raise HubError(f"{what}: {explain_error(error)}") from None


def explain_error(error: Exception) -> str:
    """Say in one line why a request to the Hub failed and what to do; without secrets."""
    # Where uploads or downloads run side by side, the reason is behind an error that names the file.
    while not hasattr(error, "response") and isinstance(error.__cause__, Exception):
        error = error.__cause__
    response: Any = getattr(error, "response", None)
    status: int | None = getattr(response, "status_code", None)
    name = type(error).__name__
    if name == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"
    if name in ("ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError"):
        return f"the Hub cannot be reached ({name}: {_first_line(str(error))}); check the network and HF_ENDPOINT"
    if status is None:
        return f"{name}: {_first_line(str(error))}"
    message = _status_message(status, name)
    if message is not None:
        return message
    return f"the Hub answered {status}: {_first_line(_server_message(error))}"


def _status_message(status: int, name: str) -> str | None:
    """Return what an HTTP status means and what to do; None where the Hub's own message is needed."""
    if status == 401:
        return "the Hub does not accept the token, or there is none (401); run hf auth login, or set HF_TOKEN"
    if status == 403:
        return "the token may not do this (403); use one with write access to the repository"
    if status == 404:
        return (
            "the Hub knows no such revision (404)"
            if name == "RevisionNotFoundError"
            else "there is no such repository on the Hub, or the token may not see it (404); "
            "check the name, or run hf auth login"
        )
    if status == 412:
        return "somebody else changed the repository meanwhile (412); do it again"
    if status == 429:
        return "the Hub asks for fewer requests (429); wait some minutes and do it again"
    # What a broken server says may be anything, also the request.
    if status >= 500:
        return f"the Hub failed ({status}); do it again later, status: https://status.huggingface.co"
    return None


def _server_message(error: Exception) -> str:
    return str(getattr(error, "server_message", None) or error)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in without_secrets(text).splitlines() if line.strip()]
    return (lines[0] if lines else "no reason given")[:_MOST_CHARACTERS]


def without_secrets(text: str) -> str:
    """Return text without the token in use and without anything that looks like one."""
    token = current_token()
    if token:
        text = text.replace(token, _HIDDEN)
    return _TOKEN.sub(_HIDDEN, _BEARER.sub(rf"\1 {_HIDDEN}", text))


def split_card(card: str, name: str) -> tuple[dict[str, Any], str]:
    """Return the front matter of a README.md, empty where it has none, and the text below it; `name` is for errors.

    Raises:
        HubError: the front matter is not YAML, or no mapping.
    """
    match = _FRONT_MATTER.match(card)
    if match is None:
        return {}, card
    try:
        front_matter: object = yaml.safe_load(match[1].rstrip()) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2}" if mark else ""
        raise HubError(f"{name}{line} has front matter that is not YAML; correct it") from None
    if not isinstance(front_matter, dict):
        raise HubError(f"{name} has front matter that is no mapping; correct it there")
    return cast("dict[str, Any]", front_matter), card[match.end() :]


def join_card(front_matter: Mapping[str, Any], text: str) -> str:
    """Return a README.md with this front matter above the text."""
    header = yaml.safe_dump(dict(front_matter), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{header}---\n\n{text.lstrip()}"


def current_token() -> str | None:
    """Return the token `huggingface_hub` would use; None where there is none."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        return None
    return get_token()


def hide_progress_without_terminal() -> None:
    """Show the Hub's progress bars on a terminal only."""
    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
