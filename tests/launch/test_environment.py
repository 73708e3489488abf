"""What ranks get in their environment: their share of the cores, threads that sleep, the site's interface."""

from __future__ import annotations

import pytest

from orchestrator.cluster import LOCAL, Allocation, Cluster
from orchestrator.launch.environment import rank_environment


@pytest.mark.parametrize(
    ("allocation", "threads"),
    [(Allocation(1, 4, 32), "8"), (Allocation(2, 4, 6), "1"), (Allocation(1, 8, 2), "1"), (Allocation(1, 2), "1")],
)
def test_each_rank_gets_its_share_of_the_cores_as_threads(allocation: Allocation, threads: str) -> None:
    assert rank_environment(allocation, LOCAL)["OMP_NUM_THREADS"] == threads


def test_threads_sleep_at_barriers_where_ranks_compute_on_cpus() -> None:
    assert rank_environment(Allocation(1, 1, accelerator="cpu"), LOCAL)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in rank_environment(Allocation(1, 1, accelerator="cuda"), LOCAL)


def test_cuda_counts_gpus_as_the_driver_and_slurm_do() -> None:
    assert rank_environment(Allocation(1, 2, accelerator="cuda"), LOCAL)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_DEVICE_ORDER" not in rank_environment(Allocation(1, 2, accelerator="cpu"), LOCAL)


def test_the_sites_interface_is_the_one_for_gloo_and_nccl() -> None:
    site = Cluster(name="site", scheduler="local", network_interface="ib0")
    found = rank_environment(Allocation(2, 8, accelerator="cuda"), site)
    assert (found["GLOO_SOCKET_IFNAME"], found["NCCL_SOCKET_IFNAME"]) == ("ib0", "ib0")
    assert "GLOO_SOCKET_IFNAME" not in rank_environment(Allocation(2, 8), LOCAL)
