"""`local[:module:app]`: an ASGI application in hypercorn or uvicorn on this machine."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common import options
from pytest_openenv_scale.targets.common.base import StartedTarget
from pytest_openenv_scale.targets.common.options import TargetContext

from .application import ServedApplication, ServerOptions, backlog_notes, check_options
from .serving import SERVERS

_KEYS = {
    "app": options.text,
    "server": options.one_of(*SERVERS),
    "workers": options.count,
    "max_envs": options.count,
    "port": options.port,
    "host": options.text,
    "label": options.text,
    "cores": options.count,
    "hardware": options.text,
    "nofile": options.count,
    "limit_concurrency": options.count,
}


class LocalTarget(StartedTarget):
    """Serves an application in a child process for as long as the context lasts."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        super().__init__(spec, context)
        self._target_options = options.read_options(spec, _KEYS, env=True)
        if self._target_options.text("app") and spec.argument:
            raise GrammarError("target local: the app is given twice; write local:module:app or app=module:app")
        server: Any = self._target_options.text("server") or "hypercorn"
        self._options = ServerOptions(
            app=self._target_options.text("app") or spec.argument,
            server=server,
            workers=self._target_options.count("workers"),
            max_envs=self._target_options.count("max_envs"),
            nofile=self._target_options.count("nofile"),
            limit_concurrency=self._target_options.count("limit_concurrency"),
            env=self._target_options.env,
        )
        check_options("local", self._options)

    def application(self) -> ServedApplication:
        """Return what is served, before it is started.

        Raises:
            TargetError: there is an `openenv.yaml` that names no app.
        """
        return ServedApplication(
            self._options,
            self.context,
            target=self.spec,
            host=self._target_options.text("host") or "127.0.0.1",
            port=self._target_options.count("port"),
            log_path=self.context.log_path,
        )

    def start(self, stack: ExitStack) -> Endpoint:
        """Start the server and return once it has answered a session."""
        served = self.application()
        began = time.monotonic()
        stack.enter_context(served)
        endpoint = Endpoint(
            urls=(served.url,),
            label=self._target_options.text("label") or f"local-{self._options.server}",
            target=self.spec,
            cores=self._target_options.count("cores") or usable_cores(),
            hosts=1,
            limits=served.limits,
            headers=dict(self.context.headers),
            hardware=self._target_options.text("hardware"),
            notes=(*served.application.notes, *backlog_notes(self.context.largest_batch)),
            sampler=served.process.sample,
            log_reader=served.process.log_tail,
            exit_reader=served.process.exit_status,
        )
        late_notes = served.wait(endpoint.headers)
        return replace(endpoint, startup_s=time.monotonic() - began, notes=(*endpoint.notes, *late_notes))
