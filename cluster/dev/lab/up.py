"""``up``: from nothing to four idle nodes; on failure nothing runs, and the logs stay."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lab import config, daemons, network, processes
from lab.commands import search_path
from lab.down import remove_all, stop_all
from lab.errors import CommandError, LabError
from lab.layout import GPUS_PER_NODE, Lab
from lab.status import is_complete, read_record

Say = Callable[[str], None]

_PROGRAMS = ("munged", "mariadb-install-db", "mariadbd", "slurmdbd", "sacctmgr", "slurmctld", "slurmd", "sinfo")


def up(candidates: Sequence[Lab], say: Say, *, timeout_s: float = 90) -> Lab:
    """Bring the lab up unless it is; returns it as it runs. Raises LabError, after stopping what was started.

    ``candidates`` is one lab under each number that it may have: the first that is free is built.
    """
    existing = read_record(candidates[0])
    if existing is not None and is_complete(existing):
        say("already up")
        return existing
    _require_programs()
    if existing is not None:
        say("removing what is left of a lab that is not whole")
        remove_all(existing)
    _require_empty(candidates[0])
    wanted = _first_free(candidates)
    started = time.monotonic()
    try:
        lab = _build(wanted, say, deadline=started + timeout_s)
    except BaseException:
        stop_all(read_record(wanted) or wanted)
        raise
    say(f"up after {time.monotonic() - started:.1f} s: {len(lab.nodes)} nodes idle")
    return lab


def _require_programs() -> None:
    path = search_path(os.environ)
    missing = [program for program in _PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}; run cluster/dev/install-packages as root")


def _require_empty(lab: Lab) -> None:
    """Never build in, and so never later remove, a directory that holds something else."""
    if lab.state.exists() and (not lab.state.is_dir() or any(lab.state.iterdir())):
        raise LabError(f"{lab.state} is there and is no lab's: remove it, or set ORCHESTRATE_LAB_DIR to another path")


def _first_free(candidates: Sequence[Lab]) -> Lab:
    refusals = []
    for lab in candidates:
        try:
            network.require_free(lab)
            _require_free_ports(lab)
        except LabError as error:
            refusals.append(error)
        else:
            return lab
    raise refusals[0]


def _require_free_ports(lab: Lab) -> None:
    ports = {lab.controller_port, lab.accounting_port, *(node.port for node in lab.nodes if lab.loopback)}
    taken = [port for port in sorted(ports) if daemons.accepts("127.0.0.1", port)]
    if taken:
        raise LabError(
            f"port {taken[0]} is in use by another program, or by another lab with number {lab.number}; "
            "set ORCHESTRATE_LAB_NUMBER to another digit"
        )


def _build(wanted: Lab, say: Say, *, deadline: float) -> Lab:
    _make_folders(wanted)
    user = pwd.getpwuid(os.geteuid()).pw_name
    with ThreadPoolExecutor(max_workers=1) as pool:
        _write_record(wanted)
        database = pool.submit(daemons.make_database, wanted)
        lab = _with_network(wanted, say)
        _write_files(lab, user=user)
        daemons.start_munge(lab)
        say("creating the accounting database")
        database.result()
    daemons.start_database(lab)
    say("starting slurmdbd")
    daemons.start_accounting(lab, user=user)
    say("starting slurmctld and four slurmd")
    daemons.start_controller(lab)
    for node in lab.nodes:
        daemons.start_node(lab, node)
    _wait_for_idle_nodes(lab, deadline=deadline)
    return lab


def _make_folders(lab: Lab) -> None:
    """The state directory is its owner's alone; below it, munge insists that its socket's folder can be entered."""
    lab.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("log", "processes", "spool", "controller", "database", "dev"):
        (lab.state / name).mkdir(mode=0o700)
    lab.munge_socket.parent.mkdir(mode=0o755)


def _write_record(lab: Lab) -> None:
    fields = {
        "number": lab.number,
        "loopback": lab.loopback,
        "made_netns_folder": not network.folder_is_mounted(),
    }
    lab.record.write_text(json.dumps(fields) + "\n")


def _with_network(wanted: Lab, say: Say) -> Lab:
    """The lab with its namespaces made, or its loopback variant where they cannot be had."""
    if not wanted.loopback:
        try:
            network.make(wanted)
            return wanted
        except CommandError as error:
            say(f"no network namespaces here ({error}): loopback variant")
            network.remove(wanted, unmount_folder=False)
    lab = dataclasses.replace(wanted, loopback=True)
    record = json.loads(lab.record.read_text())
    lab.record.write_text(json.dumps({**record, "loopback": True}) + "\n")
    return lab


def _write_files(lab: Lab, *, user: str) -> None:
    hostname = socket.gethostname().partition(".")[0]
    lab.slurm_conf.write_text(config.slurm_conf(lab, hostname=hostname, user=user))
    _make_devices(lab)
    (lab.state / "gres.conf").write_text(config.gres_conf(lab))
    (lab.state / "hosts").write_text(config.hosts(lab))
    for path, content in (
        (lab.state / "slurmdbd.conf", config.slurmdbd_conf(lab, user=user).encode()),
        (lab.munge_socket.parent / "key", os.urandom(128)),
    ):
        path.touch(mode=0o600)
        path.write_bytes(content)


def _make_devices(lab: Lab) -> None:
    """Give each pretend GPU a device file: Slurm wants a character device, and a link to one will do."""
    for node in lab.nodes:
        for gpu in range(GPUS_PER_NODE):
            (lab.state / "dev" / f"n{node.index}g{gpu}").symlink_to("/dev/null")


def _wait_for_idle_nodes(lab: Lab, *, deadline: float) -> None:
    names = {node.name for node in lab.nodes}
    while True:
        states = daemons.node_states(lab)
        if {name for name, state in states.items() if state == "idle"} == names:
            return
        for name in processes.recorded(lab):
            daemons.require_alive(lab, name)
        if time.monotonic() > deadline:
            seen = ", ".join(f"{name} {states.get(name, 'unknown')}" for name in sorted(names))
            raise LabError(f"not all nodes became idle: {seen} (see {processes.log_file(lab, 'slurmctld')})")
        time.sleep(0.1)
