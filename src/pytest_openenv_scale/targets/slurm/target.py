"""`slurm[:nodes=N]`: servers on nodes of a Slurm cluster, in a job of our own or in an allocation that exists."""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from pytest_openenv_scale.targets.envoy.config import (
    EnvoySettings,
    backlog_for,
    breaker_for,
    envoys_needed,
    threads_for,
)
from pytest_openenv_scale.targets.envoy.endpoint import EnvoyEndpoint
from pytest_openenv_scale.targets.envoy.pool import LocalEnvoyPool, find_envoy
from pytest_openenv_scale.targets.local.application import backlog_notes, find_application

from .job import AttachedScript, BatchJob, JobFolder, ServingJob, running_job
from .job_info import Job, call
from .nodes import Node, find_nodes, format_nodes
from .servers import NodeEnvoy, NodeServers, reach_every_host
from .spec import (
    OWNER_PREFIX,
    SERVE_SCRIPT,
    JobNames,
    JobPorts,
    SlurmSpec,
    default_folder,
    read_connection,
    render,
    render_attached,
)

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
        request = slurm_spec.example_request(self.context.root, largest_batch=self.context.largest_batch)
        hidden = dict.fromkeys(slurm_spec.env, HIDDEN)
        title = "SCRIPT"
        if slurm_spec.attached_job is not None:
            command = DescriptionPart(
                "command", shell_command(["bash", "SCRIPT"], {"SLURM_JOB_ID": str(slurm_spec.attached_job), **hidden})
            )
            title += "" if slurm_spec.nodes else ", for one node; nodes=N shows that for several"
            script = render_attached(request)
        else:
            command = DescriptionPart(
                "command", shell_command(["sbatch", "--parsable", "--export=ALL", "SCRIPT"], hidden)
            )
            script = render(request)
        serve_script = DescriptionPart("what the script hands over to, on every node", str(deploy_file(SERVE_SCRIPT)))
        return [command, DescriptionPart(title, script.rstrip()), serve_script]

    def start(self, stack: ExitStack) -> Endpoint:
        """Submit or attach, and return once every node, and Envoy, has answered a session."""
        # From here on SIGTERM and SIGHUP unwind as Ctrl-C does: a job does not end with this process.
        stack.enter_context(graceful_signals.held())
        call("sbatch", "--version")
        folder = stack.enter_context(JobFolder(Path(self.slurm_spec.dir or default_folder()).expanduser()))
        attached_job = self.slurm_spec.attached_job
        served = self._attach(stack, folder, attached_job) if attached_job else self._submit(stack, folder)
        began = time.monotonic()
        self.context.show_progress(
            f"slurm: job {served.serving.id} runs on {format_nodes(served.nodes)}; waiting for its servers"
        )
        servers = self._servers(served, folder)
        servers.wait(self.context.headers)
        endpoint = self._endpoint(served, servers, folder, stack)
        startup_s = time.monotonic() - began
        self.context.show_progress(f"slurm: {endpoint.urls[0]} is ready after {startup_s:.1f} s")
        return replace(endpoint, startup_s=startup_s)

    def _submit(self, stack: ExitStack, folder: JobFolder) -> _Served:
        slurm_spec, count = self.slurm_spec, self.slurm_spec.nodes or 1
        if count > 1 and slurm_spec.envoy == "client":
            find_envoy()  # Before anything is started in vain.
        ports, names = self._ports(), self._names(folder)
        request = slurm_spec.request(
            self.context.root, names, ports, largest_batch=self.context.largest_batch, nodes=count
        )
        job = BatchJob(
            render(request), names.name, folder, env=slurm_spec.env, show_progress=self.context.show_progress
        )
        stack.enter_context(job)
        self.context.show_progress(
            f"slurm: submitted job {job.id}, {names.name}, for {count} node{'s' if count > 1 else ''}"
        )
        running = job.wait_until_running(slurm_spec.pending_timeout)
        return _Served(job, running, find_nodes(running.nodes), ports)

    def _attach(self, stack: ExitStack, folder: JobFolder, job_id: int) -> _Served:
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
        ports = self._ports()
        request = slurm_spec.request(
            self.context.root,
            self._names(folder),
            ports,
            largest_batch=self.context.largest_batch,
            nodes=count,
            cpus=cpus,
        )
        names = tuple(node.name for node in nodes[:count])
        script = AttachedScript(render_attached(request), job, names, folder, self.context.root, env=slurm_spec.env)
        stack.enter_context(script)
        return _Served(script, replace(job, cpus=cpus * count), nodes[:count], ports)

    def _servers(self, served: _Served, folder: JobFolder) -> NodeServers:
        options, nodes = self.slurm_spec, len(served.nodes)
        built_in = find_application(self.context.root, options.app).built_in
        cpus = options.cpus_per_task or served.cpus_per_node
        limits: dict[str, str | int] = {
            "nodes": nodes,
            "server": options.server or "hypercorn",
            "workers": options.workers or (cpus if built_in else 1),
        }
        if (max_envs := options.env.get("MAX_CONCURRENT_ENVS") or options.max_envs) is not None:
            limits["max_envs"] = int(max_envs)
        return NodeServers(
            served.nodes,
            served.ports.server,
            served.serving,
            folder,
            self.context,
            limits=limits,
            cores=served.job.cpus,
            start_s=self.slurm_spec.start_timeout,
        )

    def _endpoint(self, served: _Served, servers: NodeServers, folder: JobFolder, stack: ExitStack) -> Endpoint:
        several = len(served.nodes) > 1
        endpoint = self.endpoint(
            servers.urls,
            "slurm-multi" if several else "slurm-single",
            cores=servers.cores,
            hosts=len(served.nodes),
            limits=servers.limits,
            hardware=_hardware(served),
            notes=(*self._notes(served), *backlog_notes(self.context.largest_batch)),
            sampler=servers.sample,
            log_reader=partial(servers.log_tail, 0),
            exit_reader=servers.servers_end,
        )
        return self._behind_envoy(endpoint, served, servers, folder, stack) if several else endpoint

    def _behind_envoy(
        self, endpoint: Endpoint, served: _Served, servers: NodeServers, folder: JobFolder, stack: ExitStack
    ) -> Endpoint:
        policy = self.slurm_spec.lb
        if self.slurm_spec.envoy == "client":
            pool, threads = self._start_client_pool(servers, stack), self._threads(1)
        else:
            node, ports = served.nodes[0], served.ports
            pool = NodeEnvoy(node, ports.envoy, ports.stats, served.serving, folder, servers.node_names)
            threads = max(served.cpus_per_node // 2, 1)
        pool.wait()
        if self.slurm_spec.envoy == "node":
            self._check_descriptors(served.nodes[0], folder)
        envoy_endpoint = EnvoyEndpoint(servers, pool, policy)
        stack.callback(envoy_endpoint.stop)
        reach_every_host(pool.url, servers, pool, endpoint.headers, self.context.modes, threads=threads * pool.count)
        return replace(
            endpoint,
            urls=(pool.url,),
            limits={**endpoint.limits, "lb": policy, "envoy": self.slurm_spec.envoy, "envoys": pool.count},
            default_limits={"hosts": len(served.nodes)},
            log_reader=envoy_endpoint.log_tail,
            exit_reader=lambda: find_exit_status(envoy_endpoint, servers),
            proxy_reader=envoy_endpoint.snapshot,
        )

    def _start_client_pool(self, servers: NodeServers, stack: ExitStack) -> LocalEnvoyPool:
        import resource

        largest = self.context.largest_batch
        count = envoys_needed(largest, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        settings = EnvoySettings(
            port=0,
            backends=servers.backends,
            policy=self.slurm_spec.lb,
            breaker=breaker_for(largest),
            backlog=backlog_for(largest),
        )
        threads = self._threads(count)
        pool = LocalEnvoyPool(find_envoy(), settings, count=count, threads=threads, node_names=servers.node_names)
        pool.start(stack)
        return pool

    def _threads(self, envoys: int) -> int:
        from pytest_openenv_scale.core.system import usable_cores

        return threads_for(usable_cores(), envoys)

    def _check_descriptors(self, node: Node, folder: JobFolder) -> None:
        """Refuse a batch that the Envoy on a node cannot hold: each WebSocket takes it two descriptors."""
        connection = wait_for(lambda: read_connection(folder.path / "openenv-connection.env"), _CONNECTION_FILE_S, 0.1)
        limit, largest = (connection or {}).get("ENVOY_NOFILE", ""), self.context.largest_batch
        if limit.isdecimal() and 2 * largest + _OWN_DESCRIPTORS > int(limit):
            raise TargetError(
                f"target slurm: Envoy on {node.name} may open {int(limit):,} files, and a batch of {largest:,} takes "
                f"{2 * largest + _OWN_DESCRIPTORS:,}; raise ulimit -Hn on the nodes, or write envoy=client, which "
                "starts as many Envoys as it takes"
            )

    def _notes(self, served: _Served) -> tuple[str, ...]:
        application = find_application(self.context.root, self.slurm_spec.app)
        unused = self.slurm_spec.job_keys if isinstance(served.serving, AttachedScript) else ()
        ignored = f"job {served.serving.id} is used as it is: {'=, '.join(unused)}= changed nothing"
        return (*application.notes, *((ignored,) if unused else ()))

    def _names(self, folder: JobFolder) -> JobNames:
        run = self.context.run_id or f"pid{os.getpid()}"
        # The folder's own name tells apart the jobs of one run: a study has several.
        return JobNames(f"openenv-scale-{run}-{folder.path.name[-4:]}", f"{OWNER_PREFIX}{owner_label()}", folder.path)

    def _ports(self) -> JobPorts:
        options = self.slurm_spec
        server, envoy, admin, stats = random.SystemRandom().sample(_PORTS, 4)
        return JobPorts(options.port or server, options.envoy_port or envoy, admin, stats)


@dataclass(frozen=True)
class _Served:
    """What runs the servers, the job it is part of, the nodes that serve, and their ports."""

    serving: ServingJob
    job: Job
    nodes: tuple[Node, ...]
    ports: JobPorts

    @property
    def cpus_per_node(self) -> int:
        return max((self.job.cpus or 1) // len(self.nodes), 1)


def find_exit_status(envoy_endpoint: EnvoyEndpoint, servers: NodeServers) -> ExitStatus | None:
    """Return how the endpoint ended, or None while it serves.

    A job that is cancelled ends its servers and Envoy with it, so its end is reported before theirs.
    """
    status = envoy_endpoint.exit_status()
    return servers.servers_end() if status is None else servers.job_end() or status


def _hardware(served: _Served) -> str:
    cpus = served.cpus_per_node
    source = f"Slurm partition {served.job.partition}" if served.job.partition else "Slurm"
    return f"{source}: {len(served.nodes)} × {cpus} CPU{'s' if cpus > 1 else ''}"
