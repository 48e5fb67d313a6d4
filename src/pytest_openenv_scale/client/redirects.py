"""Where a redirect leads, and what to write so that it is followed: no client here follows one by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin

from pytest_openenv_scale.core.target_spec import redact_url

_ENDPOINT = re.compile(r"/(?:ws|reset|step)/?$")


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect as it is shown: `url` without secrets, `advice` what to do about it.

    `url` is the base URL to write, or where nothing that could be written helps, the whole of what it leads to.
    """

    url: str
    advice: str


def read_redirect(asked: str, location: str) -> Redirect:
    """Read the `Location` a request for the URL `asked` was answered with, which may be relative to it."""
    asked = redact_url(asked)
    try:
        url = redact_url(urljoin(asked, location))
    except ValueError:
        return Redirect(repr(location[:80]), "which is no URL: the server or a proxy in front of it is misconfigured")
    path = url.partition("?")[0]
    if path == asked:
        return Redirect(url, "which is where it was asked: a proxy may want a cookie first, and sessions keep none")
    if path.rstrip("/") == asked.rstrip("/"):
        return Redirect(
            url, "only the trailing slash differs: OpenEnv's clients ask without it, so declare the server's route so"
        )
    if not _ENDPOINT.search(path):
        return Redirect(url, "which is no endpoint of OpenEnv: a login may be asked for, or a path prefix be missing")
    return Redirect(_ENDPOINT.sub("", path), "write that URL")
