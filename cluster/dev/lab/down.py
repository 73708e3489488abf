"""``down``: nothing stays behind, be the lab whole, half made or half broken."""

from __future__ import annotations

import json
import os
import shutil

from lab import network, processes
from lab.layout import Lab
from lab.processes import Process


def remove_all(lab: Lab) -> None:
    """End the lab's processes, remove its network and, if it is a lab's, its state directory."""
    stop_all(lab)
    if lab.record.exists():
        shutil.rmtree(lab.state)


def stop_all(lab: Lab) -> None:
    """End the lab's processes, the jobs' too, and remove its network; the state directory keeps the logs.

    Everything is killed at once and outright: what the daemons would still save is about to be deleted.
    """
    processes.end_all(lambda: _living(lab))
    network.remove(lab, unmount_folder=_made_netns_folder(lab))


def _living(lab: Lab) -> set[Process]:
    """Whatever the lab has running: recorded, marked by its environment, or inside one of the namespaces."""
    pids = {*processes.marked(lab), *network.pids_inside(lab)} - {os.getpid()}
    found = {process for pid in pids if (process := processes.find_process(pid)) is not None}
    return found | {process for process in processes.recorded(lab).values() if processes.is_alive(process)}


def _made_netns_folder(lab: Lab) -> bool:
    try:
        return bool(json.loads(lab.record.read_text())["made_netns_folder"])
    except (OSError, ValueError, KeyError):
        return False
