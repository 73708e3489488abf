"""What nodes are compared by before training begins, and which of them fall behind. Pure.

Every rank measures and every rank judges, by the same numbers and with the same result. A node is what its slowest rank
is. It is compared with the median of all nodes, of an even number the lower one: of two nodes the slower is named.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import median_low
from typing import Any

from orchestrator.errors import Problem

CLOCK_S = 2.0
"""How far a node's clock may be from the median: more than a barrier on busy machines lets ranks go apart."""


@dataclass(frozen=True)
class Figures:
    """What one rank has measured, in seconds; NaN for what it has not."""

    matmul_s: float = math.nan
    """A product of two square matrices, the fastest of many."""
    link_s: float = math.nan
    """An exchange with the same rank of a neighbouring node, both ways at once: the faster of its two neighbours."""
    all_reduce_s: float = math.nan
    """One over all ranks, the fastest of some."""
    clock_s: float = math.nan
    """Since the epoch, just after a barrier."""
    write_s: float = math.nan
    """Some MiB beside the checkpoints, durably."""
    write_errno: float = 0
    """Why it could not write there; 0 where it could."""

    def numbers(self) -> tuple[float, ...]:
        """For the way to the other ranks."""
        return tuple(map(float, astuple(self)))


@dataclass(frozen=True)
class Bound:
    """How much slower than the median a node may be in one of its figures."""

    figure: str
    what: str
    """Said of a node: it takes so many seconds."""
    times: float
    beyond_s: float
    """And by how much at least."""
    fewest_nodes: int
    look_at: str


BOUNDS = (
    Bound("matmul_s", "a matrix product", 2.0, 0.0, 2, "what else runs there, and its clock rates and temperatures"),
    Bound("link_s", "an exchange with a neighbour", 4.0, 0.002, 3, "its network"),
    Bound("write_s", "a write beside the checkpoints", 10.0, 5.0, 2, "its way to the file system"),
)
"""Of 2, 4 and 10 times: docs/decisions/0026 says what was measured on crowded machines, and why no less."""


@dataclass(frozen=True)
class Finding:
    """A node that falls behind, by what, and what to do about it."""

    node: str
    what: str
    look_at: str

    def as_problem(self) -> Problem:
        fix = f"have {self.look_at} looked at; with preflight: false the run takes the node as it is"
        return Problem(f"preflight: {self.node}", self.what, fix)


@dataclass(frozen=True)
class Comparison:
    """The figures of all ranks, node by node."""

    nodes: tuple[str, ...]
    ranks: tuple[Figures, ...]
    """In their order: as many of each node, node by node."""

    @classmethod
    def of(cls, nodes: Sequence[str], numbers: Iterable[Sequence[float]]) -> Comparison:
        """Of what `Figures.numbers` gave on every rank."""
        return cls(tuple(nodes), tuple(Figures(*one) for one in numbers))

    def by_node(self, figure: str) -> dict[str, float]:
        """The largest of each node's ranks; of clocks the earliest, which was held up least. Without what is NaN."""
        pick, share = min if figure == "clock_s" else max, len(self.ranks) // len(self.nodes)
        found = {}
        for index, node in enumerate(self.nodes):
            values = [getattr(rank, figure) for rank in self.ranks[index * share : (index + 1) * share]]
            if known := [value for value in values if not math.isnan(value)]:
                found[node] = pick(known)
        return found

    def skews_s(self) -> dict[str, float]:
        """By how much each node's clock is ahead of the median."""
        clocks = self.by_node("clock_s")
        return {node: clock - median_low(clocks.values()) for node, clock in clocks.items()}

    def findings(self) -> tuple[Finding, ...]:
        """What falls behind, node by node."""
        found = (*self._slow(), *self._skewed(), *self._cannot_write())
        return tuple(sorted(found, key=lambda finding: self.nodes.index(finding.node)))

    def write_errno(self) -> int:
        """Why no node at all can write beside the checkpoints, which is no node's fault; 0 where one can."""
        errors = self.by_node("write_errno").values()
        return int(max(errors)) if all(errors) else 0

    def _slow(self) -> Iterator[Finding]:
        for bound in BOUNDS:
            values = self.by_node(bound.figure)
            if len(values) < bound.fewest_nodes:
                continue
            median_s = median_low(values.values())
            for node, value in values.items():
                if value > bound.times * median_s and value - median_s > bound.beyond_s:
                    usual = f"{duration(median_s)} in the median of {len(values)} nodes"
                    yield Finding(node, f"{bound.what} takes {duration(value)}, {usual}", bound.look_at)

    def _skewed(self) -> Iterator[Finding]:
        skews = self.skews_s()
        for node, skew_s in skews.items():
            if abs(skew_s) > CLOCK_S:
                way = "ahead of" if skew_s > 0 else "behind"
                what = f"its clock is {abs(skew_s):,.1f} s {way} the median of {len(skews)} nodes"
                yield Finding(node, what, "its time service")

    def _cannot_write(self) -> Iterator[Finding]:
        for node, number in self.by_node("write_errno").items():
            if number and not self.write_errno():
                what = f"it cannot write beside the checkpoints, where others can: {os.strerror(int(number))}"
                yield Finding(node, what, "its mount of the file system")

    def summary(self) -> dict[str, Any]:
        """Of each figure the median and the node that is farthest from it: as short for a thousand nodes as for two."""
        figures = {bound.figure: self.by_node(bound.figure) for bound in BOUNDS}
        told = {name: _extreme(values) for name, values in figures.items() if values}
        told["clock_skew_s"] = _extreme(self.skews_s())
        failed = [asdict(finding) for finding in self.findings()]
        all_reduce_s = max(rank.all_reduce_s for rank in self.ranks)
        return {"num_nodes": len(self.nodes), "all_reduce_s": all_reduce_s, **told, "failed": failed}


def _extreme(values: Mapping[str, float]) -> dict[str, Any]:
    median = median_low(values.values())
    node = max(values, key=lambda name: abs(values[name] - median))
    return {"median": median, "node": node, "value": values[node]}


def in_one_line(summary: Mapping[str, Any]) -> str:
    """A summary for a log: `all-reduce 3.1 ms; matmul 1 ms, node2 2.4 ms; ...`."""
    parts = [f"all-reduce {duration(summary['all_reduce_s'])}"]
    for name in ("matmul_s", "link_s", "write_s", "clock_skew_s"):
        if name in summary:
            told = summary[name]
            word = name.removesuffix("_s").replace("_", " ")
            parts.append(f"{word} {duration(told['median'])}, {told['node']} {duration(told['value'])}")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """`412 ms`, `0.0312 ms` or `3.1 s`."""
    return f"{seconds:.3g} s" if abs(seconds) >= 1 else f"{1000 * seconds:.3g} ms"
