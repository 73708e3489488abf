"""Where the world meets: an address of the head node that all nodes reach, and a port that no other job of ours takes.

Static rendezvous fails loudly on node 0 when its port is taken, but node 1 would join whoever listens there. So two
drivers that start on one node at the same moment must not choose the same port. Their candidates are drawn from the
job's id and the attempt, and a driver claims the candidate before it probes it: by binding an abstract Unix socket,
for its whole life. Such a name lives in the network namespace, exactly as ports do: neither users, nor private /tmp
directories, nor a driver's death in whatever way can leave it wrong (unix(7)).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import random
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import LaunchError, Problem
from orchestrator.job.commands import ask
from orchestrator.launch.torchrun import Endpoint

NUM_CANDIDATES = 64
_LOWEST_PORT = 16_384
_TORCH_DEFAULT_PORT = 29_500
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RESOLVE_S = 15


@dataclass(frozen=True)
class Meeting:
    """Where one attempt's ranks meet, under an id of its own. `claim` is held open as long as the driver lives."""

    endpoint: Endpoint
    rdzv_id: str
    claim: socket.socket


def arrange_meeting(allocation: Allocation, cluster: Cluster, *, job_id: str, attempt: int) -> Meeting:
    """Choose the endpoint, on the node that runs this. Raises LaunchError when there is no usable address or port."""
    host = head_address(allocation, cluster)
    first, last = map(int, _EPHEMERAL.read_text().split())
    port, claim = claim_port(candidate_ports(range(first, last + 1), seed=f"{job_id}.{attempt}"))
    rdzv_id = f"{job_id.replace(':', '-')}.{attempt}.{secrets.token_hex(8)}"
    return Meeting(Endpoint(host, port), rdzv_id, claim)


def candidate_ports(ephemeral: range, *, seed: str) -> list[int]:
    """NUM_CANDIDATES ports in an order that `seed` draws, none of which the kernel gives to others by itself."""
    usable = [port for port in range(_LOWEST_PORT, 65_536) if port not in ephemeral and port != _TORCH_DEFAULT_PORT]
    if len(usable) < NUM_CANDIDATES:
        usable = list(range(_LOWEST_PORT, 65_536))
    return random.Random(seed).sample(usable, NUM_CANDIDATES)


def claim_port(candidates: Iterable[int]) -> tuple[int, socket.socket]:
    """The first candidate that no other driver on this node has claimed and nobody listens on. Raises LaunchError."""
    for port in candidates:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(OSError):
            claim.bind(f"\0orchestrate-port-{port}")
            if _is_free(port):
                return port, claim
        claim.close()
    what = f"none of {NUM_CANDIDATES} ports outside the ephemeral range is free on this node"
    raise LaunchError(Problem(socket.gethostname(), what, "see `ss -ltn` there"))


def _is_free(port: int) -> bool:
    """True when this process could listen on `port` on every address. Sets no SO_REUSEADDR: a port at rest is taken."""
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with contextlib.suppress(OSError), contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((anywhere, port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
    return True


def head_address(allocation: Allocation, cluster: Cluster) -> str:
    """An address of the first node that all nodes of the allocation reach. Raises LaunchError where there is none."""
    if allocation.num_nodes == 1 or cluster.scheduler == "local":
        return "127.0.0.1"
    head = allocation.node_names[0]
    if cluster.network_interface:
        where, found = f"{cluster.network_interface} on {head}", _addresses_of_interface(cluster.network_interface)
    else:
        name = _node_address(head)
        where, found = f"{head} ({name})", _resolve(name)
    address = reachable_address(found)
    if address is None:
        what = f"has no address that other nodes reach, only {', '.join(found) or 'none'}"
        fix = "set network_interface in the cluster profile to the interface between the nodes"
        raise LaunchError(Problem(where, what, fix))
    return address


def reachable_address(addresses: Iterable[str]) -> str | None:
    """The first address that means this node on other nodes too, IPv4 before IPv6; None when all are loopback."""
    known = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    usable = [a for a in known if not (a.is_loopback or a.is_unspecified or a.is_link_local)]
    return next((str(a) for a in sorted(usable, key=lambda a: a.version)), None)


def _node_address(head: str) -> str:
    """NodeAddr of a node as Slurm knows it: the name or address by which slurmctld and other nodes reach it."""
    words = ask(("scontrol", "show", "node", head), timeout_s=_RESOLVE_S).split()
    return next((word.partition("=")[2] for word in words if word.startswith("NodeAddr=")), head)


def _resolve(name: str) -> list[str]:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def _addresses_of_interface(interface: str) -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    return [entry.address for entry in psutil.net_if_addrs().get(interface, ()) if entry.family in families]
