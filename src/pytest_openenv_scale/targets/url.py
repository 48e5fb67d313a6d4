"""The URLs of servers that run already: they are measured and left alone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_url

from .common.base import DescriptionPart, StartedTarget
from .common.options import TargetContext, TargetOptions, count, option, read_options
from .common.readiness import (
    ATTACH_RETRY_S,
    TIMEOUT_OPTION,
    NotReadyError,
    Watch,
    attach_s,
    server_limit,
    wait_until_ready,
)
from .common.sampling import LocalServers
from .common.source import settings_of_process


@dataclass(frozen=True)
class UrlOptions(TargetOptions):
    """The keys of the target: what is known of the servers."""

    hosts: int | None = option(count)


class UrlTarget(StartedTarget):
    """Attaches to one or several URLs, over which sessions are spread.

    Userinfo in a URL becomes an `Authorization: Basic` header, unless the run has one of its own.

    Raises:
        GrammarError: a URL has a query or a fragment, URLs disagree on userinfo, or a key is unknown.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self._options = read_options(spec, UrlOptions)
        super().__init__(spec, context, self._options)
        for url in spec.urls:
            _refuse_query(url)
        self._given_urls = spec.urls
        self._urls = tuple(_base_url(url) for url in spec.urls)
        self._headers = {**_authorization(spec.urls, context.headers), **context.headers}

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        return [DescriptionPart("nothing is started; these are measured", "\n".join(map(redact_url, self._given_urls)))]

    def start(self, stack: ExitStack) -> Endpoint:
        """Return once a real session was answered at every URL; the servers are left alone."""
        startup_s = self._wait(Watch(TIMEOUT_OPTION, show=self.context.show_status), retry_s=ATTACH_RETRY_S)
        servers, options = LocalServers(self._urls), self._options
        limits = server_limit(self._urls[0], self._headers, self.context.network)
        return self.endpoint(
            self._urls,
            _label(self._urls),
            hosts=options.hosts,
            limits={**limits, **options.declared},
            session_settings=settings_of_process(servers.pids[0]) if servers.pids else None,
            headers=self._headers,
            startup_s=startup_s,
            sampler=servers.sample,
            exit_reader=servers.exit_status,
            process_reader=servers.processes,
            rejoiner=self._rejoin,
        )

    def _wait(self, watch: Watch, *, retry_s: float | None = None) -> float:
        return wait_until_ready(
            self._urls,
            self._headers,
            attach_s(self.context),
            retry_s=retry_s,
            session=self.context.first_session,
            watch=watch,
        )

    def _rejoin(self) -> bool:
        """Wait for a server that was there before: that nothing listens may pass, as long as a server gets."""
        show = self.context.show_status
        try:
            self._wait(Watch(TIMEOUT_OPTION, show=show, prefix="waiting for the server to listen again"))
        except NotReadyError:
            return False
        return True


def _refuse_query(url: str) -> None:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise GrammarError(f"{redact_url(url)}: a target's URL ends with its path; give a token with --openenv-header")


def _base_url(url: str) -> str:
    """Return `url` without userinfo, without slashes at its end and without the `/ws` of its sessions."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/ws").rstrip("/")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path).geturl()


def _authorization(urls: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, str]:
    credentials = {(parts.username, parts.password) for parts in map(urlsplit, urls)}
    if len(credentials) > 1:
        raise GrammarError("the URLs of a target must have the same user:password@; use one target per server")
    username, password = credentials.pop()
    if username is None or any(name.lower() == "authorization" for name in headers):
        return {}
    pair = f"{unquote(username)}:{unquote(password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _label(urls: tuple[str, ...]) -> str:
    hosts = list(dict.fromkeys(urlsplit(url).netloc for url in urls))
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]}+{len(hosts) - 1}"
