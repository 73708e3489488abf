"""Nodes compared with each other before training begins: each rank measures, all judge alike, and whoever falls behind
is named. What is too slow, and compared with what, says `orchestrator.preflight`.

Each part is repeated for a fixed time and its fastest repeat counts: what others do on the machine meanwhile makes some
repeats slower, and a slow node all of them.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from orchestrator.errors import NodesFailed
from orchestrator.files import PRIVATE_FILE, make_private_dir
from orchestrator.preflight import Comparison, Figures, in_one_line
from orchestrator.pulse import Phase
from orchestrator.talk import tell
from orchestrator.tracking.journal import Journal
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.world import Peers, World

_MATMUL_S, _LINK_S, _ALL_REDUCE_S = 1.0, 0.4, 0.4
"""For how long each is repeated."""
_WRITE_BYTES = 4 << 20


def compare_nodes(inputs: Inputs, peers: Peers, journal: Journal, pulse: Pulse) -> None:
    """The preflight, where the recipe asks for one. A collective: every rank has the same result.

    Raises NodesFailed with the nodes that fall behind, OSError where no node can write beside the checkpoints.
    """
    if not inputs.recipe.preflight:
        return
    peers.wait()
    begun_at_s, folder = time.monotonic(), inputs.run.checkpoints
    with pulse.during(Phase.PREFLIGHT, learns=False):
        comparison = Comparison.of(inputs.nodes, peers.gather(_measure(peers, folder, pulse).numbers()))
    _forget_memory(peers.device)
    if peers.world.rank == 0:
        seconds, told = time.monotonic() - begun_at_s, comparison.summary()
        journal.event("preflight", {"seconds": seconds, **told})
        tell(f"preflight of {len(inputs.nodes)} nodes in {seconds:.1f} s: {in_one_line(told)}")
    if number := comparison.write_errno():
        raise OSError(number, os.strerror(number), str(folder))
    if findings := comparison.findings():
        nodes = dict.fromkeys(finding.node for finding in findings)
        raise NodesFailed((finding.as_problem() for finding in findings), nodes)


def _measure(peers: Peers, folder: Path, pulse: Pulse) -> Figures:
    """Each part begins with a sign of how far this rank is, so that one that never comes back is found."""
    pulse.backward()
    matmul_s = _matmul_s(peers.device, pulse)
    pulse.backward()
    link_s = _link_s(peers, pulse)
    pulse.backward()
    all_reduce_s = _all_reduce_s(peers, pulse)
    pulse.backward()
    peers.wait()
    clock_s = time.time()
    pulse.backward()
    write_s, number = _write_s(folder) if peers.world.local_rank == 0 else (float("nan"), 0)
    pulse.backward()
    return Figures(matmul_s, link_s, all_reduce_s, clock_s, write_s, number)


def _timed(device: torch.device, what: Callable[[], object]) -> float:
    """Seconds until `what` is done, on the device too."""
    _finish(device)
    begun_at_s = time.perf_counter()
    what()
    _finish(device)
    return time.perf_counter() - begun_at_s


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matmul_s(device: torch.device, pulse: Pulse) -> float:
    """Half precision on a GPU, some milliseconds; on a CPU a product that ends within its share of a busy core."""
    size, kind = (8192, torch.float16) if device.type == "cuda" else (256, torch.float32)
    left, right, product = (torch.full((size, size), 0.5, dtype=kind, device=device) for _ in range(3))
    fastest_s, end_at_s = float("inf"), time.monotonic() + _MATMUL_S
    while time.monotonic() < end_at_s:
        fastest_s = min(fastest_s, _timed(device, lambda: torch.mm(left, right, out=product)))
        pulse.beat()
    return fastest_s


def _payload(device: torch.device) -> torch.Tensor:
    """64 MiB on GPUs, 1 MiB elsewhere."""
    return torch.zeros((64 << 18) if device.type == "cuda" else (1 << 18), device=device)


def _link_s(peers: Peers, pulse: Pulse) -> float:
    """The faster of the two links to the neighbours of a ring of nodes; NaN for a node alone.

    A link that is slow by the neighbour's fault leaves the other one.
    """
    sent, received = _payload(peers.device), _payload(peers.device)
    found = [_exchange_s(other, sent, received, peers, pulse) for other in neighbours(peers.world)]
    return min(found, default=float("nan"))


def neighbours(world: World) -> Iterator[int]:
    """The ranks that this rank exchanges with, in an order in which nobody waits for more than one link.

    Its namesakes on the next and the last node of a ring. First all links from even nodes to the next, then from odd
    ones, then the one that closes a ring of an odd number.
    """
    num_nodes, here = world.world_size // world.local_world_size, world.node_rank
    links = [(node, (node + 1) % num_nodes) for node in range(num_nodes if num_nodes > 2 else num_nodes - 1)]
    for link in (*links[0 : num_nodes - 1 : 2], *links[1 : num_nodes - 1 : 2], *links[num_nodes - 1 :]):
        if here in link:
            other = link[0] if link[1] == here else link[1]
            yield world.rank + (other - here) * world.local_world_size


def _exchange_s(other: int, sent: torch.Tensor, received: torch.Tensor, peers: Peers, pulse: Pulse) -> float:
    """The fastest of some exchanges with one rank. The lower one says with each whether another one follows.

    An end that always comes late finds all there already, and takes the link for faster than it is: both ends agree on
    the longer time.
    """
    _exchange(other, sent, received)  # connects the two, and waits for the other one to come here
    leads, fastest_s, goes_on = peers.world.rank < other, float("inf"), True
    end_at_s = time.monotonic() + _LINK_S
    while goes_on:
        sent[0] = time.monotonic() < end_at_s
        fastest_s = min(fastest_s, _timed(peers.device, lambda: _exchange(other, sent, received)))
        goes_on = bool((sent if leads else received)[0].item())
        pulse.beat()
    sent[0] = fastest_s
    _exchange(other, sent[:1], received[:1])
    return max(float(sent[0].item()), float(received[0].item()))


def _exchange(other: int, sent: torch.Tensor, received: torch.Tensor) -> None:
    """Both ways at once."""
    operations = [dist.P2POp(dist.isend, sent, other), dist.P2POp(dist.irecv, received, other)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()


def _all_reduce_s(peers: Peers, pulse: Pulse) -> float:
    payload = _payload(peers.device)
    fastest_s, end_at_s = float("inf"), time.monotonic() + _ALL_REDUCE_S
    while peers.from_first(time.monotonic() < end_at_s):
        fastest_s = min(fastest_s, _timed(peers.device, lambda: dist.all_reduce(payload)))
        pulse.beat()
    return fastest_s


def _write_s(folder: Path) -> tuple[float, int]:
    """Seconds for some MiB until they are durable, or NaN and why it cannot be done."""
    probe, begun_at_s = folder / f".probe.{secrets.token_hex(4)}", time.monotonic()
    try:
        make_private_dir(folder)
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(bytes(_WRITE_BYTES))
                file.flush()
                os.fsync(descriptor)
            return time.monotonic() - begun_at_s, 0
        finally:
            probe.unlink()
    except OSError as error:
        return float("nan"), error.errno or 0


def _forget_memory(device: torch.device) -> None:
    """The model's peak is counted without what this took."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
