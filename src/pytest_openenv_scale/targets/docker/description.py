"""The docker commands that do what is done through the engine's API."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_openenv_scale.targets.common.description import HIDDEN, DescriptionPart, shell_command
from pytest_openenv_scale.targets.common.files import deploy_file

from .container import ContainerOptions
from .image import BENCHMARK_TAG, ImageSource, find_build


def describe_image(source: ImageSource) -> DescriptionPart:
    """Return how an image is had.

    Raises:
        TargetError: there is no such folder, or nothing to build in it.
    """
    arguments = [part for name in source.arguments for part in ("--build-arg", f"{name}={HIDDEN}")]
    if source.name is None:
        folder = str(deploy_file("docker"))
        return DescriptionPart("image", shell_command(["docker", "build", "--tag", BENCHMARK_TAG, *arguments, folder]))
    if source.is_built:
        build = find_build(source.name, source.root)
        file = str(build.folder / build.dockerfile)
        words = ["docker", "build", "--tag", build.tag, "--file", file, *arguments, str(build.folder)]
        return DescriptionPart("image", shell_command(words))
    pull_words = {"missing": "pulled where the engine does not have it", "always": "pulled", "never": "not pulled"}
    return DescriptionPart("image", f"{source.name} ({pull_words[source.pull]})")


def describe_container(source: ImageSource, options: ContainerOptions, title: str = "container") -> DescriptionPart:
    """Return how a container of an image is run."""
    words = ["docker", "run", "--detach", "--label", "openenv-scale.run=RUN_ID"]
    if options.network == "host":
        words += ["--network", "host"]
    else:
        words += ["--publish", f"{options.address}::{options.port or '8000'}"]
    for name, text in options.env.items():
        words += ["--env", f"{name}={text if name in ('WORKERS', 'MAX_CONCURRENT_ENVS') else HIDDEN}"]
    limits: Mapping[str, object] = {
        "--cpus": options.cpus and f"{options.cpus:g}",
        "--memory": options.memory,
        "--ulimit": options.nofile and f"nofile={options.nofile}:{options.nofile}",
        "--gpus": options.gpu and (options.gpu if options.gpu == "all" else f"device={options.gpu}"),
    }
    for name, limit in limits.items():
        words += [name, str(limit)] if limit is not None else []
    command = shell_command([*words, source.name if source.name and not source.is_built else BENCHMARK_TAG])
    return DescriptionPart(title, command)
