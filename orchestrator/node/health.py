"""What a node must have before torchrun starts: each check says what it saw, and a failed one what to do about it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.machine import num_usable_cpus
from orchestrator.node.gpus import GpuError, GpuState, gpu_states, visible_gpus
from orchestrator.node.launch import NodeLaunch
from orchestrator.run_dir import RunDir

MOST_TAKEN = 0.25
"""The share of a GPU's memory that others may hold."""


@dataclass(frozen=True)
class Check:
    """One thing looked at on a node. `detail` is one line; that of a failed check ends with what to do."""

    name: str
    ok: bool
    detail: str

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def check_node(run: RunDir, launch: NodeLaunch) -> tuple[Check, ...]:
    """All checks of this node, the failed ones included."""
    return tuple(_checks(run, launch))


def _checks(run: RunDir, launch: NodeLaunch) -> Iterator[Check]:
    yield check_writable(run.attempt(launch.attempt).path)
    yield check_cpus(num_usable_cpus(), expected=launch.cpus_per_node, binds_cpus=launch.binds_cpus)
    if launch.accelerator == "cuda":
        yield from check_gpus(launch.gpus_per_node, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if launch.node_rank == 0:
        yield check_endpoint_is_free(launch.host, launch.port)
    else:
        yield check_route(launch.host, launch.port)


def check_writable(directory: Path) -> Check:
    """Whether files can be made where all places of a run meet."""
    probe = directory / f".probe.{secrets.token_hex(4)}"
    try:
        probe.touch(0o600, exist_ok=False)
        probe.unlink()
    except OSError as error:
        detail = f"{directory}: {error.strerror}; submit from a directory that every node can write"
        return Check("run directory", False, detail)
    return Check("run directory", True, "writable")


def check_cpus(usable: int, *, expected: int | None, binds_cpus: bool) -> Check:
    """Fewer cores than planned are recorded; where the profile says that tasks are pinned, they are a failure."""
    if expected is None:
        return Check("cpus", True, f"{usable} usable")
    detail = f"{usable} usable, {expected} planned"
    if binds_cpus and usable < expected:
        fix = "ask for --cpus-per-task on srun too, or set binds_cpus: false in the cluster profile"
        return Check("cpus", False, f"{detail}; {fix}")
    return Check("cpus", True, detail)


def check_gpus(expected: int, visible_devices: str | None) -> Iterator[Check]:
    """As many GPUs as ranks, each answering to the driver, sound and free. Nothing falls back to another device."""
    try:
        found = visible_gpus(visible_devices)
    except GpuError as error:
        fix = "load the NVIDIA driver, or set accelerator: cpu in the cluster profile"
        yield Check("gpus", False, f"{error}; {fix}")
        return
    detail = f"{len(found)} visible, {expected} planned"
    if len(found) < expected:
        yield Check("gpus", False, f"{detail}; exclude this node, or ask for {len(found)} GPUs per node")
    else:
        yield Check("gpus", True, detail)
    states = gpu_states(found)
    yield check_ecc(states)
    yield check_gpu_memory(states)


def check_ecc(states: Sequence[GpuState]) -> Check:
    """No uncorrected error of a GPU's memory since it was reset: the next one ends whatever runs on it."""
    told = [state.uncorrected_errors for state in states]
    for index, errors in enumerate(told):
        if errors:
            fix = "exclude this node until the GPU is reset or replaced"
            return Check("gpu errors", False, f"GPU {index} has {errors} uncorrected memory errors; {fix}")
    silent = told.count(None)
    return Check("gpu errors", True, f"none uncorrected, {silent} of {len(told)} without ECC" if silent else "none")


def check_gpu_memory(states: Sequence[GpuState]) -> Check:
    """Nobody else holds more than MOST_TAKEN of a GPU's memory. A display and the driver itself hold some."""
    most = 0.0
    for index, state in enumerate(states):
        if not state.memory_total_bytes or state.memory_used_bytes is None:
            continue
        taken = state.memory_used_bytes / state.memory_total_bytes
        if taken > MOST_TAKEN:
            used, total = (number / 2**30 for number in (state.memory_used_bytes, state.memory_total_bytes))
            held = f"GPU {index}: {used:.1f} of {total:.1f} GiB are taken before this job has begun"
            return Check(
                "gpu memory", False, f"{held}; end what runs there (nvidia-smi shows it), or exclude this node"
            )
        most = max(most, taken)
    return Check("gpu memory", True, f"{most:.0%} taken at most")


def check_endpoint_is_free(host: str, port: int) -> Check:
    """On node 0: the address is this machine's own, and nobody has taken the port since the driver probed it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.bind(address)
    except OSError as error:
        return Check("head address", False, f"{host}:{port}: {error.strerror}; start the run again for another port")
    return Check("head address", True, f"{host}:{port} is free")


def check_route(host: str, port: int) -> Check:
    """On the other nodes: the head's name resolves and there is a route to it. Nothing is sent: it is not up yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.connect(address)
            source = probe.getsockname()[0]
    except OSError as error:
        fix = "set network_interface in the cluster profile to one that reaches all nodes"
        return Check("head address", False, f"no way to {host}:{port}: {error.strerror}; {fix}")
    return Check("head address", True, f"{host}:{port} by way of {source}")
