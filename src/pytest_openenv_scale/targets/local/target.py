"""`local[:module:app]`: an ASGI application in hypercorn or uvicorn on this machine."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget
from pytest_openenv_scale.targets.common.options import (
    TargetContext,
    TargetOptions,
    count,
    option,
    read_options,
    tcp_port,
)

from .application import ServedApplication, ServerOptions, backlog_notes, check_options


@dataclass(frozen=True)
class LocalOptions(TargetOptions, ServerOptions):
    """The keys of the target."""

    host: str = option(default="127.0.0.1")
    port: int | None = option(tcp_port)
    limit_concurrency: int | None = option(count)


class LocalTarget(StartedTarget):
    """Serves an application in a child process for as long as the context lasts."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        options = read_options(spec, LocalOptions)
        super().__init__(spec, context, options)
        if options.app and spec.argument:
            raise GrammarError("target local: the app is given twice; write local:module:app or app=module:app")
        self.options = replace(options, app=options.app or spec.argument)
        check_options("local", self.options)

    def application(self) -> ServedApplication:
        """Return what is served, before it is started.

        Raises:
            TargetError: there is an `openenv.yaml` that names no app.
        """
        return ServedApplication(
            self.options,
            self.context,
            target=self.spec,
            host=self.options.host,
            port=self.options.port,
            log_path=self.context.log_path,
        )

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        return [self.application().describe()]

    def start(self, stack: ExitStack) -> Endpoint:
        """Start the server and return once it has answered a session."""
        served = self.application()
        began = time.monotonic()
        stack.enter_context(served)
        endpoint = Endpoint(
            urls=(served.url,),
            label=f"local-{self.options.server}",
            target=self.spec,
            cores=usable_cores(),
            hosts=1,
            limits=served.limits,
            headers=dict(self.context.headers),
            notes=(*served.application.notes, *backlog_notes(self.context.largest_batch)),
            sampler=served.process.sample,
            log_reader=served.process.log_tail,
            exit_reader=served.process.exit_status,
        )
        late_notes = served.wait(endpoint.headers)
        return replace(endpoint, startup_s=time.monotonic() - began, notes=(*endpoint.notes, *late_notes))
