"""What the lab is made of: its nodes, addresses, ports, names and files. Values only; nothing here acts.

A lab has a number (0 to 9) from which every machine-wide name, address and port follows, and a state directory
(``ORCHESTRATE_LAB_DIR``), so that labs with different numbers can run side by side. ``up`` takes the lowest number
that is free, or the one that ``ORCHESTRATE_LAB_NUMBER`` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

NUM_NODES = 4
GPUS_PER_NODE = 4
CPUS_PER_NODE = 8
MEMORY_PER_NODE_MB = 6000
CLUSTER_NAME = "dev"
ACCOUNT = "dev"

_FIRST_PORT = 17800  # below the kernel's ephemeral range (32768 and up), and none of Slurm's usual 6817 to 6819
_PORTS_PER_LAB = 20
_LONGEST_STATE_PATH = 72  # slurmd makes sockets below it, and a socket's path may have 107 characters
_SAFE_PATH = re.compile(r"/[A-Za-z0-9/._+-]*")


@dataclass(frozen=True)
class Node:
    """One node: ``index`` counts from 1, ``port`` is its slurmd's; loopback has no ``namespace`` and ``veth``."""

    index: int
    name: str
    address: str
    port: int
    namespace: str
    veth: str


@dataclass(frozen=True)
class Lab:
    """One lab: where its files are, its number, and whether its nodes share the machine's own loopback address."""

    state: Path
    number: int
    loopback: bool

    @property
    def slurm_conf(self) -> Path:
        return self.state / "slurm.conf"

    @property
    def record(self) -> Path:
        """The file that marks a directory as a lab's, and remembers number and variant."""
        return self.state / "lab.json"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def munge_socket(self) -> Path:
        return self.state / "munge" / "socket"

    @property
    def database_socket(self) -> Path:
        return self.state / "database.socket"

    @property
    def bridge(self) -> str:
        return f"lab{self.number}-br"

    @property
    def controller_address(self) -> str:
        return "127.0.0.1" if self.loopback else f"10.77.{self.number}.1"

    @property
    def controller_port(self) -> int:
        return _FIRST_PORT + _PORTS_PER_LAB * self.number

    @property
    def accounting_port(self) -> int:
        return self.controller_port + 1

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._node(index) for index in range(1, NUM_NODES + 1))

    def _node(self, index: int) -> Node:
        return Node(
            index=index,
            name=f"node{index}",
            address="127.0.0.1" if self.loopback else f"10.77.{self.number}.{10 + index}",
            port=self.controller_port + 2 + (index if self.loopback else 0),
            namespace=f"lab{self.number}-node{index}",
            veth=f"lab{self.number}-ve{index}",
        )


def read_labs(env: Mapping[str, str], *, default_state: Path, loopback: bool = False) -> tuple[Lab, ...]:
    """The lab that the environment names, once for each number that it may have, best first.

    Raises LabError for a number or a directory that cannot be used.
    """
    numbers = env.get("ORCHESTRATE_LAB_NUMBER", "0123456789")
    if "ORCHESTRATE_LAB_NUMBER" in env and not re.fullmatch(r"[0-9]", numbers):
        raise LabError(f"ORCHESTRATE_LAB_NUMBER={numbers!r}: write one digit, 0 to 9")
    state = Path(env.get("ORCHESTRATE_LAB_DIR") or default_state).absolute()
    if len(str(state)) > _LONGEST_STATE_PATH or not _SAFE_PATH.fullmatch(str(state)):
        raise LabError(
            f"{state}: the lab's directory must have at most {_LONGEST_STATE_PATH} plain characters "
            "(sockets lie in it, Slurm's files name it); set ORCHESTRATE_LAB_DIR to another one"
        )
    return tuple(Lab(state=state, number=int(number), loopback=loopback) for number in numbers)
