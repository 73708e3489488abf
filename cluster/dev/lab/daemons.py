"""How each daemon is started, and how to tell that it listens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from lab import processes
from lab.commands import run
from lab.errors import CommandError, LabError
from lab.layout import ACCOUNT, CLUSTER_NAME, Lab, Node

_POLL_S = 0.05


def start_munge(lab: Lab) -> None:
    """munged with a key and a socket of the lab's own; ``--force`` because the folders above may be anyone's."""
    folder = lab.munge_socket.parent
    options = {
        "key-file": folder / "key",
        "socket": lab.munge_socket,
        "pid-file": folder / "pid",
        "seed-file": folder / "seed",
        "log-file": lab.logs / "munged-own.log",
    }
    processes.start(lab, "munged", ["munged", "--foreground", "--force", *(f"--{k}={v}" for k, v in options.items())])
    wait_until(lab, "munged", lambda: accepts_unix(lab.munge_socket))


def make_database(lab: Lab) -> None:
    """Create the system tables of an empty database."""
    options = ["--skip-test-db", "--auth-root-authentication-method=normal", *_database_options(lab)]
    run(["mariadb-install-db", "--no-defaults", *options], timeout_s=60, env=processes.mark(lab))


def start_database(lab: Lab) -> None:
    """mariadbd on a socket alone. Nothing in it outlives the lab, so it need not reach the disk."""
    options = [
        "--skip-networking",
        f"--socket={lab.database_socket}",
        f"--pid-file={lab.state}/database.pid",
        "--innodb-lock-wait-timeout=900",
    ]
    processes.start(lab, "mariadbd", ["mariadbd", "--no-defaults", *_database_options(lab), *options])
    wait_until(lab, "mariadbd", lambda: accepts_unix(lab.database_socket))


def _database_options(lab: Lab) -> list[str]:
    return [
        f"--datadir={lab.state}/database",
        *(["--user=root"] if os.geteuid() == 0 else []),
        "--innodb-flush-method=nosync",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=0",
        "--innodb-log-file-size=16M",
        "--innodb-buffer-pool-size=64M",
    ]


def start_accounting(lab: Lab, *, user: str) -> None:
    """slurmdbd, then the cluster, an account and ``user`` in it by default, without which no job is accepted."""
    env = {"MYSQL_UNIX_PORT": str(lab.database_socket), "SLURM_CONF": str(lab.slurm_conf)}
    processes.start(lab, "slurmdbd", ["slurmdbd", "-D"], env=env)
    wait_until(lab, "slurmdbd", lambda: accepts("127.0.0.1", lab.accounting_port))
    for words in (
        ["add", "cluster", CLUSTER_NAME],
        ["add", "account", ACCOUNT, "Description=lab", "Organization=lab"],
        ["add", "user", user, f"Account={ACCOUNT}", f"DefaultAccount={ACCOUNT}", "AdminLevel=Administrator"],
        ["modify", "user", user, "set", f"DefaultAccount={ACCOUNT}"],
    ):
        slurm(lab, ["sacctmgr", "--immediate", "--quiet", *words])


def start_controller(lab: Lab) -> None:
    argv = ["slurmctld", "-D", "-f", str(lab.slurm_conf)]
    processes.start(lab, "slurmctld", argv if lab.loopback else _as_host("ctl", argv))
    wait_until(lab, "slurmctld", lambda: accepts(lab.controller_address, lab.controller_port))


def start_node(lab: Lab, node: Node) -> None:
    """slurmd; with namespaces it is entered by nsenter, since ``ip netns exec`` would hide the cgroups from it."""
    argv = ["slurmd", "-D", "-f", str(lab.slurm_conf), "-N", node.name]
    if not lab.loopback:
        entered = ["nsenter", f"--net=/run/netns/{node.namespace}", "--"]
        argv = [*entered, *_as_host(node.name, argv, hosts=lab.state / "hosts")]
    processes.start(lab, f"slurmd-{node.name}", argv)


def _as_host(name: str, argv: list[str], *, hosts: Path | None = None) -> list[str]:
    """The command under another host name and, given ``hosts``, with that file as its /etc/hosts."""
    if hosts is None:
        return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *argv]
    script = 'mount --bind "$1" /etc/hosts && hostname "$0" && shift && exec "$@"'
    return ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", script, name, str(hosts), *argv]


def slurm(lab: Lab, argv: list[str], *, timeout_s: float = 20) -> str:
    """Run one of Slurm's own commands against the lab."""
    return run(argv, timeout_s=timeout_s, env={"SLURM_CONF": str(lab.slurm_conf)})


def node_states(lab: Lab) -> dict[str, str]:
    """Each node's state in sinfo's words (``idle``, ``allocated``, ``down*``); empty while nothing answers."""
    try:
        lines = slurm(lab, ["sinfo", "-h", "-N", "-p", "debug", "-o", "%N|%T"]).splitlines()
    except CommandError:
        return {}
    return dict(line.strip().split("|", 1) for line in lines if "|" in line)


def wait_until(lab: Lab, name: str, is_ready: Callable[[], bool], *, timeout_s: float = 30) -> None:
    """Poll until the daemon ``name`` is ready. Raises LabError, naming its log, when it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        require_alive(lab, name)
        if time.monotonic() > deadline:
            raise LabError(f"{name} is not ready after {timeout_s:g} s (see {processes.log_file(lab, name)})")
        time.sleep(_POLL_S)


def require_alive(lab: Lab, name: str) -> None:
    process = processes.recorded(lab).get(name)
    if process is None or not processes.is_alive(process):
        raise processes.died(lab, name)


def accepts(address: str, port: int) -> bool:
    """Whether something listens on this TCP port."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def accepts_unix(path: Path) -> bool:
    """Whether something listens on this socket file."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
