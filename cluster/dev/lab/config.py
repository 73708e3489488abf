"""The text of the lab's configuration files. Equal labs give equal text."""

from __future__ import annotations

from lab.layout import CLUSTER_NAME, CPUS_PER_NODE, GPUS_PER_NODE, MEMORY_PER_NODE_MB, Lab, Node


def slurm_conf(lab: Lab, *, hostname: str, user: str) -> str:
    """``slurm.conf``; ``hostname`` is this machine's short name, ``user`` the one all daemons run as."""
    controller = hostname if lab.loopback else "ctl"
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={controller}({lab.controller_address})",
        f"SlurmctldPort={lab.controller_port}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={lab.munge_socket}",
        f"StateSaveLocation={lab.state}/controller",
        f"SlurmdSpoolDir={lab.state}/spool/%n",
        f"SlurmctldPidFile={lab.state}/slurmctld.pid",
        f"SlurmdPidFile={lab.state}/slurmd-%n.pid",
        f"SlurmdLogFile={lab.logs}/slurmd-%n-steps.log",
        "MailProg=/bin/true",
        *_POLICY,
        f"AccountingStorageHost={lab.controller_address}",
        f"AccountingStoragePort={lab.accounting_port}",
        f"AccountingStoragePass={lab.munge_socket}",  # with munge, this names the socket for talking to slurmdbd
        *(_node_line(lab, node, hostname) for node in lab.nodes),
        "PartitionName=debug Nodes=ALL Default=YES PriorityTier=10 MaxTime=12:00:00 State=UP",
        "PartitionName=preempt Nodes=ALL PriorityTier=1 MaxTime=INFINITE State=UP",
    ]
    return "\n".join(lines) + "\n"


# How the cluster behaves. The waits are short, so that a test of a lost node or of a preemption takes seconds.
_POLICY = (
    "ProctrackType=proctrack/linuxproc",
    "TaskPlugin=task/none",
    "MpiDefault=none",
    "SelectType=select/cons_tres",
    "SelectTypeParameters=CR_CPU",
    "GresTypes=gpu",
    "SlurmdParameters=config_overrides",  # a node may have more CPUs than this machine
    "ReturnToService=2",
    "SlurmdTimeout=20",
    "KillWait=5",
    "JobRequeue=1",
    "PreemptType=preempt/partition_prio",
    "PreemptMode=REQUEUE",
    "SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=5",
    "MaxArraySize=20001",
    "MaxJobCount=50000",
    "JobAcctGatherType=jobacct_gather/linux",
    "AccountingStorageType=accounting_storage/slurmdbd",
    "AccountingStorageEnforce=associations,limits",
    "AccountingStorageTRES=gres/gpu",
)


def _node_line(lab: Lab, node: Node, hostname: str) -> str:
    host = f" NodeHostname={hostname}" if lab.loopback else ""
    return (
        f"NodeName={node.name}{host} NodeAddr={node.address} Port={node.port} "
        f"CPUs={CPUS_PER_NODE} RealMemory={MEMORY_PER_NODE_MB} Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
    )


def gres_conf(lab: Lab) -> str:
    """``gres.conf``: pretend GPUs. Each has a device file, so that jobs see them in CUDA_VISIBLE_DEVICES."""
    files = f"g[0-{GPUS_PER_NODE - 1}]"
    return "".join(f"NodeName={node.name} Name=gpu File={lab.state}/dev/n{node.index}{files}\n" for node in lab.nodes)


def slurmdbd_conf(lab: Lab, *, user: str) -> str:
    """``slurmdbd.conf``; the database is reached by its socket alone (MYSQL_UNIX_PORT), so it needs no password."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={lab.munge_socket}",
        "DbdHost=localhost",
        f"DbdPort={lab.accounting_port}",
        f"SlurmUser={user}",
        f"PidFile={lab.state}/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        "StorageUser=root",
        "StorageLoc=slurm",
    ]
    return "\n".join(lines) + "\n"


def hosts(lab: Lab) -> str:
    """The nodes' ``/etc/hosts``: every node and the controller by name."""
    lines = ["127.0.0.1 localhost", f"{lab.controller_address} ctl"]
    lines += [f"{node.address} {node.name}" for node in lab.nodes]
    return "\n".join(lines) + "\n"
