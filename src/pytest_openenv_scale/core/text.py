"""The command line as a run may keep it: without headers, userinfo, query values and environment values."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HIDDEN = "***"
_HEADER_OPTION = "--openenv-header"
_INI_OPTIONS = ("-o", "--override-ini")
_INI_HEADER = re.compile(r"(openenv_header\s*=\s*).*", re.DOTALL | re.IGNORECASE)

_SCHEME = r"([a-z][a-z0-9+.-]*://)"
_USERINFO = re.compile(_SCHEME + r"[^\s/?#]*@", re.IGNORECASE)
_ODD_PASSWORD = re.compile(_SCHEME + r"[^\s/?#@]*:(?!\d+(?:[/?#,]|$))[^\s@]*@", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"([?&][^=&\s#]+=)[^&\s#]*?(?=&|#|\s|$|,[A-Za-z_][\w.-]*=)")
_ENVIRONMENT = re.compile(r"(\b(?:env|build)\.[A-Za-z_]\w*=)[^,\s]*")
_PROVIDER_SECRET = re.compile(r"(,\s*[\w.]*(?:token|secret|passw|key|credential|auth)[\w.]*\s*=)[^,\s]*", re.IGNORECASE)


def redact_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a command line fit to be stored and printed.

    Values of `--openenv-header` and of the ini setting `openenv_header` are dropped, whichever way they are
    written; so are userinfo and query values in anything that looks like a URL, the values of `env.NAME=`
    in targets, and what a provider gets as a key, token or password.
    """
    kept: list[str] = []
    before = ""
    for argument in arguments:
        kept.append(_redact(argument, before))
        before = argument
    return tuple(kept)


def _redact(argument: str, before: str) -> str:
    if before == _HEADER_OPTION:
        return _header(argument)
    if argument.startswith(f"{_HEADER_OPTION}="):
        return f"{_HEADER_OPTION}={_header(argument.removeprefix(f'{_HEADER_OPTION}='))}"
    if before in _INI_OPTIONS or argument.startswith(_INI_OPTIONS):
        argument = _INI_HEADER.sub(rf"\1{_HIDDEN}", argument)
    return redact_text(argument)


def _header(text: str) -> str:
    """Keep the name of a header, as in "Authorization: ***"; text that has none is hidden whole."""
    name, colon, _ = text.partition(":")
    return f"{name.strip()}: {_HIDDEN}" if colon else _HIDDEN


def redact_text(text: str) -> str:
    """Return text without userinfo and query values of the URLs in it and without values of `env.NAME=`."""
    text = _ENVIRONMENT.sub(rf"\1{_HIDDEN}", text)
    if "provider:" in text:
        text = _PROVIDER_SECRET.sub(rf"\1{_HIDDEN}", text)
    if "://" not in text:
        return text
    text = _ODD_PASSWORD.sub(r"\1", _USERINFO.sub(r"\1", text))
    return _QUERY_VALUE.sub(rf"\1{_HIDDEN}", text)
