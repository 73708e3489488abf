"""The environment of the ranks, as far as it is derived and not secret. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.cluster import Allocation, Cluster


def rank_environment(allocation: Allocation, cluster: Cluster) -> dict[str, str]:
    """Variables every rank of an attempt gets: its share of the cores as threads, and the network interface.

    CUDA counts the GPUs of a node as the driver and Slurm do, by PCI bus; by itself it puts the fastest first.

    torchrun would set OMP_NUM_THREADS=1 for several ranks on a node; a rank may use the cores it was given. On a CPU
    its threads sleep at barriers instead of spinning: beside one busy process on two cores, two spinning threads made
    the digits step 52 ms, two sleeping ones 8 ms (torch 2.13).
    """
    cores = allocation.cpus_per_node or allocation.gpus_per_node
    variables = {
        "OMP_NUM_THREADS": str(max(1, cores // allocation.gpus_per_node)),
        "PYTHONUNBUFFERED": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }
    if allocation.accelerator == "cpu":
        variables["OMP_WAIT_POLICY"] = "PASSIVE"
    else:
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if cluster.network_interface:
        variables["GLOO_SOCKET_IFNAME"] = variables["NCCL_SOCKET_IFNAME"] = cluster.network_interface
    return variables


JOB_VARIABLES = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "PMI_", "PMIX_")
"""What a job leaves in the environment of its processes, and a new submission would obey."""


def outside_job(env: Mapping[str, str]) -> dict[str, str]:
    """`env` as it would be outside any job; where Slurm's configuration lies is kept."""
    return {name: value for name, value in env.items() if not name.startswith(JOB_VARIABLES) or name == "SLURM_CONF"}
