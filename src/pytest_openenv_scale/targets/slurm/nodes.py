"""The nodes of an allocation, where each is reached, and the nodes that cannot be used."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import resolve_host, url_host

from .job_info import SlurmError, call, parse_fields


@dataclass(frozen=True)
class Node:
    """A node of the cluster and the IP address it is reached at."""

    name: str
    address: str

    def url(self, port: int) -> str:
        """Return the base URL of a server on this node."""
        return f"http://{url_host(self.address)}:{port}"

    def server_label(self, port: int) -> str:
        """Return how a server on this node is named in an error: "node2 (127.0.0.3:8000)"."""
        return f"{self.name} ({url_host(self.address)}:{port})"


def find_nodes(hostlist: str) -> tuple[Node, ...]:
    """Return the nodes of a host list such as "node[1-3]", in Slurm's order, each with its address.

    Raises:
        TargetError: Slurm does not answer, or a node's address is a name that does not resolve here.
    """
    names = call("scontrol", "show", "hostnames", hostlist).split()
    addresses = parse_addresses(call("scontrol", "--oneliner", "show", "node", hostlist))
    return tuple(Node(name, _resolve_address(name, addresses.get(name, name))) for name in names)


def parse_addresses(text: str) -> dict[str, str]:
    """Read `scontrol --oneliner show node`: the address of each node, by its name."""
    records = [parse_fields(line) for line in text.splitlines()]
    return {
        record["NodeName"]: record.get("NodeAddr") or record["NodeName"] for record in records if "NodeName" in record
    }


def _resolve_address(name: str, address: str) -> str:
    """Return the IP address of a node whose address Slurm has as an IP address or as a name."""
    try:
        return resolve_host(address)
    except socket.gaierror:
        raise TargetError(
            f"target slurm: node {name} has the address {address!r} (NodeAddr in scontrol show node {name}), which "
            "does not resolve on this machine; run this where it does, such as on a login node, or in the job itself"
        ) from None


def unusable_nodes(partition: str | None = None) -> tuple[str, ...]:
    """Return a line for each node an administrator, or Slurm itself, has taken out: "node3 is drained: bad disk"."""
    command = ["sinfo", "--noheader", "--Node", "--format=%N|%T|%E"]
    try:
        return parse_unusable(call(*command, *([f"--partition={partition}"] if partition else [])))
    except SlurmError:
        return ()  # It would only have explained another error.


_UNUSABLE_STATES = ("drain", "down", "fail", "maint", "unknown", "no_respond", "error")


def parse_unusable(text: str) -> tuple[str, ...]:
    """Read `sinfo --Node --format=%N|%T|%E`; a node stands there once for each of its partitions."""
    unusable: dict[str, None] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        if any(word in state.lower() for word in _UNUSABLE_STATES) or state.endswith("*"):
            why = f": {reason.strip()}" if reason.strip() not in ("", "none", "None") else ""
            unusable[f"{name.strip()} is {state.rstrip('*').strip()}{why}"] = None
    return tuple(unusable)


def format_nodes(nodes: Sequence[Node]) -> str:
    """Return the names of nodes for a sentence, the first and the last of many."""
    names = [node.name for node in nodes]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:2])}, …, {names[-1]} ({len(names)} nodes)"
