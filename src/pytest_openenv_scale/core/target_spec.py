"""Targets as people write them, `NAME[:ARGUMENT][,key=value…]` or URLs: parsed, shown without secrets, corrected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from .errors import GrammarError
from .parsing import USERINFO, short_repr

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SCHEME = re.compile(r"(?:https?|wss?)://", re.IGNORECASE)
_NEXT_URL = re.compile(r",\s*(?=(?:https?|wss?)://)", re.IGNORECASE)
_NEXT_OPTION = re.compile(r",(?=\s*[A-Za-z_][A-Za-z0-9_.-]*\s*=)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_QUOTED_VALUE = re.compile(
    r"""((?:,\s*[A-Za-z_][A-Za-z0-9_.-]*\s*=|^[A-Za-z][A-Za-z0-9_-]*\s*:(?:\s*[A-Za-z_][A-Za-z0-9_.-]*\s*=)?)\s*)"""
    r""""((?:[^"]|"")*)"(?=\s*(?:,|$))"""
)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_MARKER = re.compile(r"\x00([0-9]+)\x00")
_FLAG = re.compile(r",\s*temporary\s*(?=,|$)")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A target as asked for: `NAME[:ARGUMENT][,key=value…]`, options sorted by key.

    Values are without the quotes that a comma in them asks for; the text has them again. The name of a given URL is
    "url" and its argument the URL, or several joined by commas. The text of a specification may hold secrets;
    `redact_target` gives the text that may be shown, as the repr does.
    """

    name: str
    argument: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of a "url" target; empty for every other target."""
        return tuple(_NEXT_URL.split(self.argument)) if self.name == "url" and self.argument else ()

    def option(self, key: str) -> str | None:
        """Return the text of one option, or None where it was not given."""
        return dict(self.options).get(key)

    def __str__(self) -> str:
        head = self.argument or "" if self.name == "url" else self.name
        if self.name != "url" and self.argument is not None:
            head += f":{_argument_text(self.argument)}"
        return ",".join([head, *(f"{key}={_quoted(value)}" for key, value in self.options)])

    def __repr__(self) -> str:
        return f"<TargetSpec {redact_target(self)}>"


def parse_target(value: object) -> TargetSpec:
    """Parse `NAME[:ARGUMENT][,key=value…]` or `URL[,URL…][,key=value…]`; `,temporary` is short for `,temporary=yes`.

    A comma inside a URL belongs to it unless `key=` or a new scheme follows. A value or an argument with a comma is
    written in quotes, those inside doubled, as in CSV: `env.X="0,1"`.
    """
    if isinstance(value, TargetSpec):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not text or _CONTROL.search(text):
        raise GrammarError(f'a target must be one line of text, got {short_repr(value)}; write for example "local"')
    values: list[str] = []
    text = _QUOTED_VALUE.sub(lambda match: match[1] + _mark(match[2], values), text)
    if not _SCHEME.match(text):
        text = _FLAG.sub(",temporary=yes", text)
    head, *pieces = _NEXT_OPTION.split(text)
    if _SCHEME.match(text):
        urls = ",".join(_check_url(url.strip()) for url in _NEXT_URL.split(head))
        return TargetSpec("url", urls, _parse_options(pieces, values))
    head, *stray = head.split(",")
    name, colon, argument = (part.strip() for part in head.partition(":"))
    _refuse_stray(stray)
    if not _NAME.fullmatch(name) or name in ("localhost", "url"):
        host = re.match(r"[\w.-]+:[0-9]+", head) or re.match(r"[\w-]+(\.[\w-]+)+(?=/|$)", head)
        hint = f'; for a server that runs already write "http://{head}"' if host else '; write "local" or a URL'
        raise GrammarError(f"a target must be NAME[:ARGUMENT][,key=value…] or a URL, got {short_repr(value)}{hint}")
    if colon and not argument:
        raise GrammarError(f"target {name!r} has nothing after its colon; write {name!r} or {name}:ARGUMENT")
    if argument and not _MARKER.fullmatch(argument):
        # The value of `NAME:KEY="…"` keeps the quotes that it needs: who reads the argument takes them off.
        argument = _MARKER.sub(lambda match: _quoted(values[int(match[1])]), argument)
    return TargetSpec(name, _unmarked(argument, values) or None, _parse_options(pieces, values))


def value_of(key: str, text: str) -> str:
    """Return the value of a key as it is meant: without the quotes it may be written in.

    Raises:
        GrammarError: it begins with a quote that ends nowhere, or before the value does.
    """
    match = _QUOTED.fullmatch(text)
    if match is None and text.startswith('"'):
        raise GrammarError(
            f'the value of target key {key!r} begins with a quote that does not end it; write {key}="…", quotes inside'
            " doubled"
        )
    return text if match is None else match[1].replace('""', '"')


def _quoted(text: str) -> str:
    """Return the value of a key as it is written: in quotes where it would be read as something else without."""
    plain = "," not in text and not text.startswith('"') and text == text.strip()
    return text if plain else '"' + text.replace('"', '""') + '"'


def _argument_text(argument: str) -> str:
    key, _, value = argument.partition("=")
    match = _QUOTED.fullmatch(value.strip())
    if match is None or not _KEY.fullmatch(key.strip()):
        return _quoted(argument)
    # `NAME:KEY="…"`, which is read as it stands where the quotes are needed.
    needed = _quoted(value_of(key, match[0])) == value and key == key.lstrip()
    return argument if needed else '"' + argument.replace('"', '""') + '"'


def _mark(quoted: str, values: list[str]) -> str:
    """Return what stands for a value in quotes while the rest is read: no text has control characters."""
    values.append(quoted.replace('""', '"'))
    return f"\0{len(values) - 1}\0"


def _unmarked(text: str, values: list[str]) -> str:
    match = _MARKER.fullmatch(text)
    return values[int(match[1])] if match else text


def _parse_options(pieces: list[str], values: list[str]) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for piece in pieces:
        key, _, text = (part.strip() for part in piece.partition("="))
        if _NEXT_URL.search(piece):
            raise GrammarError(f"URLs come before keys; move the URL in front of {key}=")
        if "," in text and key.startswith("env."):
            raise GrammarError(
                f"the value of target key {key!r} has a comma, which ends a value; "
                f'write it in quotes, {key}="…,…", and the whole target in single ones for a shell'
            )
        _refuse_stray(text.split(",")[1:], key)
        if key in options:
            raise GrammarError(f"target key {key!r} is given twice; write it once")
        value = _unmarked(text, values) if _MARKER.fullmatch(text) else value_of(key, text)
        if not value and not key.startswith("env."):
            raise GrammarError(f"target key {key!r} has no value; write {key}=VALUE")
        options[key] = value
    return tuple(sorted(options.items()))


def _refuse_stray(pieces: list[str], key: str = "") -> None:
    if pieces:
        hint = f'; a value with a comma is written in quotes: {key}="…,…"' if key else ""
        raise GrammarError(f"a target's settings are written key=value, got {short_repr(pieces[0].strip())}{hint}")


def _check_url(url: str) -> str:
    problem = "it contains a space" if re.search(r"\s", url) else ""
    try:
        parts = urlsplit(url)
        problem = problem or ("" if parts.hostname else "it names no host")
        problem = problem or ("its port is no number from 1 to 65535" if parts.port == 0 else "")
    except ValueError as error:
        port = "port" in str(error).lower()
        problem = "its port is no number from 1 to 65535" if port else "its host cannot be read"
    if problem or url.endswith(","):
        problem = problem or "it ends with a comma"
        raise GrammarError(f"{short_repr(redact_url(url))} is not a URL: {problem}; write http://host:port/prefix")
    return url


def redact_url(url: str) -> str:
    """Return the URL without userinfo, without the values of its query and without its fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return USERINFO.sub(r"\1", url.partition("?")[0])
    query = "&".join(f"{pair.partition('=')[0]}=***" for pair in parts.query.split("&") if pair)
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query=query, fragment="").geturl()


def names_secret(name: str) -> bool:
    """Say whether a setting of this name may hold a secret: API_KEY, token, password and the like."""
    return _SECRET_NAME.search(name) is not None


def redact_target(spec: TargetSpec) -> str:
    """Return the canonical text of a target without userinfo, query values or secrets in `env.NAME=`.

    What a provider is given is its own: there a secret may have any key.
    """
    argument = spec.argument and USERINFO.sub(r"\1", spec.argument)
    if spec.name == "url":
        argument = ",".join(redact_url(url) for url in spec.urls)
    options = (
        (
            key,
            "***"
            if (key.startswith(("env.", "build.")) or spec.name == "provider") and names_secret(key)
            else USERINFO.sub(r"\1", text),
        )
        for key, text in spec.options
    )
    return str(TargetSpec(spec.name, argument, tuple(options)))


_ENDPOINT = re.compile(r"/(?:ws|reset|step)/?$")


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect as it is shown: `url` without secrets, `advice` what to do about it.

    `url` is the base URL to write, or where nothing that could be written helps, the whole of what it leads to.
    """

    url: str
    advice: str


def read_redirect(request_url: str, location: str) -> Redirect:
    """Read the `Location` a request for the URL `request_url` was answered with, which may be relative to it."""
    request_url = redact_url(request_url)
    try:
        url = redact_url(urljoin(request_url, location))
    except ValueError:
        return Redirect(repr(location[:80]), "which is no URL: the server or a proxy in front of it is misconfigured")
    path = url.partition("?")[0]
    if path == request_url:
        return Redirect(url, "which is where it was asked: a proxy may want a cookie first, and sessions keep none")
    if path.rstrip("/") == request_url.rstrip("/"):
        return Redirect(
            url, "only the trailing slash differs: OpenEnv's clients ask without it, so declare the server's route so"
        )
    if not _ENDPOINT.search(path):
        return Redirect(url, "which is no endpoint of OpenEnv: a login may be asked for, or a path prefix be missing")
    return Redirect(_ENDPOINT.sub("", path), "write that URL")
