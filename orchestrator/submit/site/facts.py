"""What Slurm says of itself, as values: the text of `scontrol` and `sacctmgr` in, partitions, nodes and accounts out.

Pure. Read are the one-line forms (`scontrol -o show ...`), whose spelling has been the same from Slurm 20 to 25, where
JSON came late and changed. A key that is not there, `(null)`, `N/A`, `NONE` and `UNLIMITED` all mean: no limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.units import parse_walltime

_KEY = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z_]*)=")
_NO_LIMIT = frozenset({"", "(null)", "N/A", "NONE", "UNLIMITED", "INFINITE", "ALL"})
_GPU = re.compile(r"gpu(?![\w-])")
# A type may be digits alone, such as 3090, where a count or a mark comes after it.
_GRES = re.compile(r"gpu(?::(?!no_consume)(?P<type>[^:]*[^:\d][^:]*|\d+(?=:)))?(?::no_consume)?(?::(?P<count>\d+))?")
_OUT = frozenset({"DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILING", "FUTURE", "INVAL", "INVALID_REG"})
_SILENT = frozenset({"NOT_RESPONDING", "NO_RESPOND", "UNKNOWN"})
_HELD_BACK = frozenset({"MAINT", "MAINTENANCE", "RESERVED"})


@dataclass(frozen=True)
class Config:
    """What holds for the whole cluster (`scontrol show config`)."""

    cluster_name: str
    version: str
    enforce: frozenset[str]
    """AccountingStorageEnforce: what sbatch refuses by the accounting database."""
    kill_wait_s: int
    node_timeout_s: int
    binds_cpus: bool
    task_plugin: str
    selects_gpus: bool
    """Whether --gpus-per-node is understood (select/cons_tres); else GPUs are asked for by --gres."""
    preempt_type: str

    @property
    def enforces_accounts(self) -> bool:
        """Slurm: limits, qos, safe and wckeys each imply associations."""
        return bool(self.enforce & {"associations", "limits", "qos", "safe", "wckeys", "all"})

    @property
    def enforces_qos(self) -> bool:
        return bool(self.enforce & {"qos", "all"})


@dataclass(frozen=True)
class Partition:
    """A queue (`scontrol -o show partition`); None stands for no limit."""

    name: str
    state: str = "UP"
    """UP, DOWN (jobs queue and do not start), DRAIN (none is taken), INACTIVE (neither)."""
    default: bool = False
    hidden: bool = False
    root_only: bool = False
    max_time_s: int | None = None
    max_nodes: int | None = None
    max_cpus_per_node: int | None = None
    max_memory_bytes: int | None = None
    grace_time_s: int = 0
    priority_tier: int = 1
    preempt_mode: str = "OFF"
    allow_accounts: frozenset[str] | None = None
    deny_accounts: frozenset[str] = frozenset()
    allow_qos: frozenset[str] | None = None
    deny_qos: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Node:
    """A node (`scontrol -o show node`), as far as jobs can ask for it."""

    name: str
    partitions: frozenset[str] = frozenset()
    cpus: int = 1
    memory_bytes: int = 0
    gpus: tuple[tuple[str | None, int], ...] | None = ()
    """(type or None, count); None where Slurm's words for them are not understood."""
    features: frozenset[str] = frozenset()
    """Those too that it has only after a reboot."""
    state: frozenset[str] = frozenset({"IDLE"})

    @property
    def down(self) -> bool:
        """Out of service until somebody mends it: down, drained, failing, or silent."""
        return bool(self.state & (_OUT | _SILENT))

    @property
    def free_for_all(self) -> bool:
        """In service, and not held back for a reservation or for maintenance."""
        return not self.down and not self.state & _HELD_BACK

    def num_gpus(self, gpu_type: str | None = None) -> int:
        """GPUs of a type, or of all types for None, as far as they are known."""
        return sum(count for kind, count in self.gpus or () if gpu_type in (None, kind))


@dataclass(frozen=True)
class Association:
    """What accounting lets the user do: submit under `account`, in `partition` ("": any), with one of `qos`."""

    account: str
    partition: str = ""
    qos: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SlurmFacts:
    """One look at a Slurm. `associations` and `qos` are None where accounting does not decide, or did not answer."""

    config: Config
    partitions: Mapping[str, Partition]
    nodes: tuple[Node, ...]
    associations: tuple[Association, ...] | None = None
    qos: Mapping[str, frozenset[str]] | None = None
    """The flags of each quality of service."""

    def nodes_of(self, partition: str) -> tuple[Node, ...]:
        """The nodes of a partition, those that are down included."""
        return tuple(node for node in self.nodes if partition in node.partitions)


def parse_record(line: str) -> dict[str, str]:
    """`Key=value Key=value`: values may hold spaces. Of a key that comes twice (a Reason is free text) the first."""
    matches = list(_KEY.finditer(line))
    ends = [*(match.start() for match in matches[1:]), len(line)]
    found: dict[str, str] = {}
    for match, end in zip(matches, ends, strict=True):
        found.setdefault(match[1], line[match.end() : end].strip())
    return found


def parse_config(text: str) -> Config:
    """`scontrol show config`. Raises ValueError for a text that is none."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    values = {key.strip(): value.strip() for key, _, value in pairs}
    if "ClusterName" not in values:
        raise ValueError("scontrol show config does not name a cluster")
    task_plugin = values.get("TaskPlugin", "")
    confined = "task/cgroup" in task_plugin and values.get("ConstrainCores", "no").lower() == "yes"
    return Config(
        cluster_name=values["ClusterName"],
        version=values.get("SLURM_VERSION", "unknown"),
        enforce=_words(values.get("AccountingStorageEnforce", "").lower()) or frozenset(),
        kill_wait_s=_leading_int(values.get("KillWait", "")) or 30,
        node_timeout_s=_leading_int(values.get("SlurmdTimeout", "")) or 300,
        binds_cpus="task/affinity" in task_plugin or confined,
        task_plugin=task_plugin,
        selects_gpus="cons_tres" in values.get("SelectType", ""),
        preempt_type=values.get("PreemptType", "preempt/none"),
    )


def parse_partitions(text: str) -> dict[str, Partition]:
    """`scontrol -o show partition`, by name, in Slurm's order."""
    records = (parse_record(line) for line in text.splitlines() if line.startswith("PartitionName="))
    return {record["PartitionName"]: _partition(record) for record in records}


def _partition(record: Mapping[str, str]) -> Partition:
    def yes(key: str) -> bool:
        return record.get(key, "NO").upper() == "YES"

    most_memory = _count(record.get("MaxMemPerNode", ""))
    return Partition(
        name=record["PartitionName"],
        state=record.get("State", "UP").upper(),
        default=yes("Default"),
        hidden=yes("Hidden"),
        root_only=yes("RootOnly"),
        max_time_s=_time_s(record.get("MaxTime", "")),
        max_nodes=_count(record.get("MaxNodes", "")),
        max_cpus_per_node=_count(record.get("MaxCPUsPerNode", "")),
        max_memory_bytes=None if most_memory is None else most_memory * 1024**2,
        grace_time_s=_leading_int(record.get("GraceTime", "")) or 0,
        priority_tier=_leading_int(record.get("PriorityTier", "")) or 1,
        preempt_mode=record.get("PreemptMode", "OFF").upper(),
        allow_accounts=_words(record.get("AllowAccounts", "")),
        deny_accounts=_words(record.get("DenyAccounts", "")) or frozenset(),
        allow_qos=_words(record.get("AllowQos", "")),
        deny_qos=_words(record.get("DenyQos", "")) or frozenset(),
    )


def parse_nodes(text: str) -> tuple[Node, ...]:
    """`scontrol -o show node`, in Slurm's order."""
    records = (parse_record(line) for line in text.splitlines() if line.startswith("NodeName="))
    return tuple(map(_node, records))


def _node(record: Mapping[str, str]) -> Node:
    memory = (_leading_int(record.get("RealMemory", "")) or 0) - (_leading_int(record.get("MemSpecLimit", "")) or 0)
    cpus = record.get("CPUEfctv") or record.get("CPUTot", "")
    features = (_words(record.get(key, "")) for key in ("AvailableFeatures", "ActiveFeatures", "Features"))
    return Node(
        name=record["NodeName"],
        partitions=_words(record.get("Partitions", "")) or frozenset(),
        cpus=max(1, _leading_int(cpus) or 1),
        memory_bytes=max(0, memory) * 1024**2,
        gpus=parse_gpus(record.get("Gres", "")),
        features=frozenset().union(*filter(None, features)),
        state=parse_state(record.get("State", "")),
    )


def parse_gpus(gres: str) -> tuple[tuple[str | None, int], ...] | None:
    """The GPUs in `gpu:a100:8(S:0-1),gpu:v100:2,mps:100`, as (type, count); the type is None where none is written.

    A lone `gpu:4` is a count, in `gpu:3090:4` the type comes first. None for GPUs in words that are not understood.
    """
    matches = [_GRES.fullmatch(part) for part in re.sub(r"\([^)]*\)", "", gres).split(",") if _GPU.match(part)]
    known = [match for match in matches if match is not None]
    return tuple((match["type"], int(match["count"] or 1)) for match in known) if len(known) == len(matches) else None


def parse_state(text: str) -> frozenset[str]:
    """The words of `DOWN*+DRAIN`: a `*` means that the node does not respond, other marks are about its power."""
    silent = {"NOT_RESPONDING"} if "*" in text else set()
    return frozenset(word.strip("*~#!%$@^-").upper() for word in text.split("+") if word) | silent


def parse_associations(text: str) -> tuple[Association, ...]:
    """`sacctmgr -nP show assoc format=account,partition,qos`."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") >= 2)
    return tuple(Association(row[0], row[1], _words(row[2]) or frozenset()) for row in rows)


def parse_qos(text: str) -> dict[str, frozenset[str]]:
    """`sacctmgr -nP show qos format=name,flags`: the flags of each, by its name."""
    rows = (line.split("|") for line in text.splitlines() if "|" in line)
    return {row[0].strip(): _parts(row[1].split(",")) for row in rows}


def _words(text: str) -> frozenset[str] | None:
    """The words of a comma list; None where Slurm says all, or nothing."""
    return None if text.strip() in _NO_LIMIT else _parts(text.split(","))


def _parts(words: Iterable[str]) -> frozenset[str]:
    return frozenset(filter(None, (word.strip() for word in words)))


def _leading_int(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _count(text: str) -> int | None:
    return None if text in _NO_LIMIT else _leading_int(text)


def _time_s(text: str) -> int | None:
    """Seconds of `7-00:00:00`; None for no limit, and for what is no time."""
    try:
        return None if text in _NO_LIMIT else parse_walltime(text)
    except ValueError:
        return None
