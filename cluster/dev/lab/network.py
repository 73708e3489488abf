"""The nodes' network: one bridge, and for each node a network namespace with one end of a veth pair in it.

The bridge carries the state directory of its lab as its alias: it is made first and removed last, so whoever owns it
owns the namespaces. Nothing is routed out of it.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab.commands import run
from lab.errors import CommandError, LabError
from lab.layout import Lab, Node
from lab.processes import all_pids

_NAMESPACES = Path("/run/netns")


def owner(lab: Lab) -> str | None:
    """The state directory of the lab whose bridge exists under this lab's number; None if there is no bridge."""
    if not Path("/sys/class/net", lab.bridge).exists():
        return None
    (link,) = json.loads(run(["ip", "-json", "link", "show", "dev", lab.bridge]))
    return str(link.get("ifalias", "(unknown)"))


def require_free(lab: Lab) -> None:
    """Raise LabError if another lab has this lab's number."""
    found = owner(lab)
    if found not in (None, str(lab.state)):
        raise LabError(
            f"lab number {lab.number} is in use: bridge {lab.bridge} belongs to {found}; "
            "set ORCHESTRATE_LAB_NUMBER to another digit, or take that lab down"
        )


def make(lab: Lab) -> None:
    """Make the bridge and the namespaces. Raises CommandError where this user or this machine may not."""
    run(["unshare", "--net", "--uts", "--mount", "--propagation", "private", "true"])
    address = f"{lab.controller_address}/24"
    lines = [
        f"link add {lab.bridge} type bridge",
        f"link set {lab.bridge} alias {lab.state}",
        f"addr add {address} dev {lab.bridge}",
        f"link set {lab.bridge} up",
    ]
    for node in lab.nodes:
        lines += [
            f"netns add {node.namespace}",
            f"link add {node.veth} type veth peer name eth0 netns {node.namespace}",
            f"link set {node.veth} master {lab.bridge} up",
        ]
    run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    for node in lab.nodes:
        _configure_inside(node)


def _configure_inside(node: Node) -> None:
    lines = ["link set lo up", f"addr add {node.address}/24 dev eth0", "link set eth0 up"]
    run(["ip", "-netns", node.namespace, "-batch", "-"], stdin="\n".join(lines) + "\n")


def remove(lab: Lab, *, unmount_folder: bool) -> None:
    """Remove what ``make`` made, whole or in part; with ``unmount_folder`` also the mount that ``ip netns`` leaves."""
    if owner(lab) != str(lab.state):
        return
    for node in lab.nodes:
        if Path("/sys/class/net", node.veth).exists():
            run(["ip", "link", "delete", node.veth])
        if (_NAMESPACES / node.namespace).exists():
            run(["ip", "netns", "delete", node.namespace])
    run(["ip", "link", "delete", lab.bridge])
    if unmount_folder:
        _unmount_folder()


def folder_is_mounted() -> bool:
    """Whether ``ip netns`` has been used on this machine: its first use mounts its folder upon itself, for good."""
    return f" {_NAMESPACES} " in Path("/proc/self/mountinfo").read_text()


def _unmount_folder() -> None:
    if not _NAMESPACES.is_dir() or any(_NAMESPACES.iterdir()):
        return
    try:
        run(["umount", str(_NAMESPACES)])
        _NAMESPACES.rmdir()
    except (CommandError, OSError):
        pass  # another program uses the folder by now


def pids_inside(lab: Lab) -> list[int]:
    """The pids of all processes in the lab's namespaces."""
    if lab.loopback or owner(lab) != str(lab.state):
        return []
    inside = {_identity(_NAMESPACES / node.namespace) for node in lab.nodes} - {None}
    return [pid for pid in all_pids() if _identity(Path(f"/proc/{pid}/ns/net")) in inside]


def _identity(namespace: Path) -> tuple[int, int] | None:
    """What is equal for two files that stand for the same namespace; None if the file is gone."""
    try:
        status = namespace.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
