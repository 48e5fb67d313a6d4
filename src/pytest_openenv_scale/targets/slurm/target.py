"""`slurm[:nodes=N]`: servers on nodes of a Slurm cluster, in a job of our own or in an allocation that exists."""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import wait_for
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.base import HIDDEN, DescriptionPart, StartedTarget, shell_command
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.common.leftovers import graceful_signals, owner_label
from pytest_openenv_scale.targets.common.options import TargetContext
from pytest_openenv_scale.targets.common.readiness import start_s
from pytest_openenv_scale.targets.common.source import settings_of_application
from pytest_openenv_scale.targets.envoy.config import EnvoySettings
from pytest_openenv_scale.targets.envoy.endpoint import EnvoyEndpoint
from pytest_openenv_scale.targets.envoy.pool import START_S as POOL_START_S
from pytest_openenv_scale.targets.envoy.pool import LocalEnvoyPool, find_envoy
from pytest_openenv_scale.targets.local.serving import largest_backlog

from .job import AttachedScript, BatchJob, JobFolder, running_job
from .job_info import call, find_nodes, format_nodes
from .servers import SESSION_S, NodeEnvoy, NodeServers, Serving, reach_every_host
from .spec import SERVE_SCRIPT, SUBMIT_COMMAND, JobIdentity, SlurmSpec, default_folder, read_connection

_PORTS = range(20000, 32000)
"""Where ports are drawn from: below those the kernel gives to clients. Jobs that share a node must not meet."""

_CONNECTION_FILE_S = 10.0
"""Seconds the connection file may be late where the nodes' disk is shared by NFS."""

_OWN_DESCRIPTORS = 256


class SlurmTarget(StartedTarget):
    """Has Slurm run a server per node, Envoy in front of several, and cancels the job when the context ends."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.slurm_spec = SlurmSpec.parse(spec)
        super().__init__(spec, context, self.slurm_spec)

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        slurm_spec = self.slurm_spec
        plan = slurm_spec.plan(self.context, slurm_spec.example(), nodes=slurm_spec.nodes or 1)
        variables, title, command = dict.fromkeys(slurm_spec.env, HIDDEN), "SCRIPT", SUBMIT_COMMAND
        if slurm_spec.attached_job is not None:
            variables["SLURM_JOB_ID"], command = str(slurm_spec.attached_job), ("bash",)
            title += "" if slurm_spec.nodes else ", for one node; nodes=N shows that for several"
        return [
            DescriptionPart("command", shell_command([*command, "SCRIPT"], variables)),
            DescriptionPart(title, plan.script.rstrip()),
            DescriptionPart("what the script hands over to, on every node", str(deploy_file(SERVE_SCRIPT))),
        ]

    def start(self, stack: ExitStack) -> Endpoint:
        """Submit or attach, and return once every node, and Envoy, has answered a session."""
        self.slurm_spec.application(self.context)  # Before anything is asked for in vain.
        # From here on SIGTERM and SIGHUP unwind as Ctrl-C does: a job does not end with this process.
        stack.enter_context(graceful_signals)
        call("sbatch", "--version")
        folder = stack.enter_context(JobFolder(Path(self.slurm_spec.dir or default_folder()).expanduser()))
        attached_job = self.slurm_spec.attached_job
        serving = self._attach(stack, folder, attached_job) if attached_job else self._submit(stack, folder)
        began = time.monotonic()
        self.context.show_progress(
            f"slurm: job {serving.script.id} runs on {format_nodes(serving.nodes)}; waiting for its servers"
        )
        servers = self._servers(serving)
        servers.wait(self.context.headers)
        endpoint = self._endpoint(serving, servers, stack)
        startup_s = time.monotonic() - began
        self.context.show_progress(f"slurm: {endpoint.urls[0]} is ready after {startup_s:.1f} s")
        return replace(endpoint, startup_s=startup_s)

    def _submit(self, stack: ExitStack, folder: JobFolder) -> Serving:
        slurm_spec, count = self.slurm_spec, self.slurm_spec.nodes or 1
        if count > 1 and slurm_spec.envoy == "client":
            find_envoy()  # Before anything is started in vain.
        identity = self._identity(folder)
        plan = slurm_spec.plan(self.context, identity, nodes=count)
        job = BatchJob(plan.script, identity.name, folder, env=slurm_spec.env, show_progress=self.context.show_progress)
        stack.enter_context(job)
        self.context.show_progress(
            f"slurm: submitted job {job.id}, {identity.name}, for {count} node{'s' if count > 1 else ''}"
        )
        running = job.wait_until_running(slurm_spec.pending_timeout)
        return Serving(job, running, find_nodes(running.nodes), identity, folder)

    def _attach(self, stack: ExitStack, folder: JobFolder, job_id: int) -> Serving:
        """Serve in an allocation that exists, on all of its nodes or the first ones."""
        slurm_spec, job = self.slurm_spec, running_job(job_id)
        nodes = find_nodes(job.nodes)
        count = slurm_spec.nodes or len(nodes)
        if count > len(nodes):
            raise TargetError(
                f"target slurm: job {job_id} has {len(nodes)} node{'s' if len(nodes) > 1 else ''}, and nodes={count} "
                "asks for more; write fewer, or start from outside of the allocation"
            )
        cpus = max((job.cpus or len(nodes)) // len(nodes), 1)
        identity = self._identity(folder)
        plan = slurm_spec.plan(self.context, identity, nodes=count, cpus=cpus)
        names = tuple(node.name for node in nodes[:count])
        script = AttachedScript(plan.script, job, names, folder, self.context.root, env=slurm_spec.env)
        stack.enter_context(script)
        return Serving(script, replace(job, cpus=cpus * count), nodes[:count], identity, folder)

    def _servers(self, serving: Serving) -> NodeServers:
        options, nodes = self.slurm_spec, len(serving.nodes)
        built_in = options.application(self.context).built_in
        cpus = options.cpus_per_task or serving.cpus_per_node
        limits: dict[str, str | int] = {
            "nodes": nodes,
            "server": options.server or "hypercorn",
            "workers": options.workers or (cpus if built_in else 1),
        }
        if (max_envs := options.env.get("MAX_CONCURRENT_ENVS") or options.max_envs) is not None:
            limits["max_envs"] = int(max_envs)
        return NodeServers(serving, self.context, limits=limits, start_s=options.start_s(self.context))

    def _endpoint(self, serving: Serving, servers: NodeServers, stack: ExitStack) -> Endpoint:
        several = len(serving.nodes) > 1
        endpoint = self.endpoint(
            servers.urls,
            "slurm-multi" if several else "slurm-single",
            cores=servers.cores,
            hosts=len(serving.nodes),
            limits=servers.limits,
            session_settings=settings_of_application(self.slurm_spec.application(self.context)),
            hardware=_hardware(serving),
            notes=self._notes(serving),
            backlog=largest_backlog(),
            shared_machines=True,
            sampler=servers.sample,
            log_reader=partial(servers.log_tail, 0),
            exit_reader=servers.servers_end,
        )
        return self._behind_envoy(endpoint, serving, servers, stack) if several else endpoint

    def _behind_envoy(self, endpoint: Endpoint, serving: Serving, servers: NodeServers, stack: ExitStack) -> Endpoint:
        policy, largest = self.slurm_spec.lb, self.context.largest_batch
        if self.slurm_spec.envoy == "client":
            pool = LocalEnvoyPool(EnvoySettings.for_batch(largest, policy), largest)
            pool.node_names = servers.node_names
            pool.start(stack, servers.backends)
        else:
            pool = NodeEnvoy(serving, servers.node_names)
        start_timeout = self.slurm_spec.start_timeout
        pool.wait(start_s(start_timeout, self.context, POOL_START_S))
        if self.slurm_spec.envoy == "node":
            self._check_descriptors(serving)
        envoy_endpoint = EnvoyEndpoint(servers, pool, policy)
        stack.callback(envoy_endpoint.stop)
        session_s = start_s(start_timeout, self.context, SESSION_S)
        reach_every_host(servers, pool, endpoint.headers, self.context.first_session, session_s=session_s)
        return replace(
            endpoint,
            urls=(pool.url,),
            limits={**endpoint.limits, "lb": policy, "envoy": self.slurm_spec.envoy, "envoys": pool.count},
            default_limits={"hosts": len(serving.nodes)},
            log_reader=envoy_endpoint.log_tail,
            exit_reader=lambda: find_exit_status(envoy_endpoint, servers),
            proxy_reader=envoy_endpoint.snapshot,
        )

    def _check_descriptors(self, serving: Serving) -> None:
        """Refuse a batch that the Envoy on a node cannot hold: each WebSocket takes it two descriptors."""
        path = serving.folder.path / "openenv-connection.env"
        connection = wait_for(lambda: read_connection(path), _CONNECTION_FILE_S, 0.1)
        limit, largest = (connection or {}).get("ENVOY_NOFILE", ""), self.context.largest_batch
        if limit.isdecimal() and 2 * largest + _OWN_DESCRIPTORS > int(limit):
            raise TargetError(
                f"target slurm: Envoy on {serving.nodes[0].name} may open {int(limit):,} files, and a batch of "
                f"{largest:,} takes {2 * largest + _OWN_DESCRIPTORS:,}; raise ulimit -Hn on the nodes, or write "
                "envoy=client, which starts as many Envoys as it takes"
            )

    def _notes(self, serving: Serving) -> tuple[str, ...]:
        application = self.slurm_spec.application(self.context)
        unused = self.slurm_spec.job_keys if isinstance(serving.script, AttachedScript) else ()
        ignored = f"job {serving.script.id} is used as it is: {'=, '.join(unused)}= changed nothing"
        return (*application.notes, *((ignored,) if unused else ()))

    def _identity(self, folder: JobFolder) -> JobIdentity:
        run = self.context.run_id or f"pid{os.getpid()}"
        # The folder's own name tells apart the jobs of one run: a study has several.
        name = f"openenv-scale-{run}-{folder.path.name[-4:]}"
        port, envoy_port, *others = random.SystemRandom().sample(_PORTS, 4)
        options = self.slurm_spec
        return JobIdentity(
            name, owner_label(), folder.path, options.port or port, options.envoy_port or envoy_port, *others
        )


def find_exit_status(envoy_endpoint: EnvoyEndpoint, servers: NodeServers) -> ExitStatus | None:
    """Return how the endpoint ended, or None while it serves.

    A job that is cancelled ends its servers and Envoy with it, so its end is reported before theirs.
    """
    status = envoy_endpoint.exit_status()
    return servers.servers_end() if status is None else servers.job_end() or status


def _hardware(serving: Serving) -> str:
    cpus, partition = serving.cpus_per_node, serving.allocation.partition
    source = f"Slurm partition {partition}" if partition else "Slurm"
    return f"{source}: {len(serving.nodes)} × {cpus} CPU{'s' if cpus > 1 else ''}"
