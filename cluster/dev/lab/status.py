"""``status``: what runs, as values and as text."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from lab import daemons, processes
from lab.layout import Lab

SERVICES = ("munged", "mariadbd", "slurmdbd", "slurmctld")


@dataclass(frozen=True)
class Daemon:
    """One daemon: ``pid`` is None when it does not run."""

    name: str
    pid: int | None
    log: str


@dataclass(frozen=True)
class NodeStatus:
    """One node: ``state`` in sinfo's words, ``namespace`` and ``veth`` None in the loopback variant."""

    name: str
    state: str
    address: str
    namespace: str | None
    veth: str | None
    slurmd: Daemon


@dataclass(frozen=True)
class Status:
    """The whole lab: ``lab`` is up, down (nothing is there) or broken (some of it is)."""

    lab: str
    variant: str
    number: int
    state_dir: str
    slurm_conf: str
    daemons: tuple[Daemon, ...]
    nodes: tuple[NodeStatus, ...]


def read_record(wanted: Lab) -> Lab | None:
    """The lab that the state directory holds, which decides number and variant; None if it holds none."""
    try:
        record = json.loads(wanted.record.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return wanted
    return dataclasses.replace(wanted, number=int(record["number"]), loopback=bool(record["loopback"]))


def is_complete(lab: Lab) -> bool:
    """Whether every daemon runs and the controller answers, whatever state the nodes are in."""
    names = (*SERVICES, *(f"slurmd-{node.name}" for node in lab.nodes))
    return all(_daemon(lab, name).pid is not None for name in names) and bool(daemons.node_states(lab))


def read_status(wanted: Lab) -> Status:
    """Look at everything once."""
    recorded = read_record(wanted)
    lab = recorded or wanted
    services = tuple(_daemon(lab, name) for name in SERVICES)
    states = daemons.node_states(lab) if all(daemon.pid for daemon in services) else {}
    nodes = tuple(
        NodeStatus(
            name=node.name,
            state=states.get(node.name, "unknown"),
            address=node.address,
            namespace=None if lab.loopback else node.namespace,
            veth=None if lab.loopback else node.veth,
            slurmd=_daemon(lab, f"slurmd-{node.name}"),
        )
        for node in lab.nodes
    )
    is_whole = bool(states) and all(one.pid for one in (*services, *(node.slurmd for node in nodes)))
    return Status(
        lab="up" if is_whole else "broken" if recorded else "down",
        variant="loopback" if lab.loopback else "namespaces",
        number=lab.number,
        state_dir=str(lab.state),
        slurm_conf=str(lab.slurm_conf),
        daemons=services,
        nodes=nodes,
    )


def _daemon(lab: Lab, name: str) -> Daemon:
    process = processes.recorded(lab).get(name)
    is_running = process is not None and processes.is_alive(process)
    return Daemon(
        name=name, pid=process.pid if process and is_running else None, log=str(processes.log_file(lab, name))
    )


def render(status: Status) -> str:
    """One line for the lab, one for each daemon and node."""
    lines = [f"lab {status.number} {status.lab} ({status.variant}) in {status.state_dir}"]
    if status.lab == "down":
        return lines[0]
    lines += [f"{daemon.name:<10} {_running(daemon)}" for daemon in status.daemons]
    for node in status.nodes:
        where = f"  {node.address:<12} {node.namespace or ''}".rstrip()
        lines.append(f"{node.name:<10} {node.state:<11} slurmd {_running(node.slurmd)}{where}")
    return "\n".join(lines)


def _running(daemon: Daemon) -> str:
    return f"pid {daemon.pid}" if daemon.pid else f"not running (see {daemon.log})"
