"""What a real Slurm 22.05 said, recorded from a lab with nodes that differ: the texts, their facts, fake answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.submit.site.facts import (
    Association,
    SlurmFacts,
    parse_config,
    parse_nodes,
    parse_partitions,
)

_FOLDER = Path(__file__).parent.parent.parent / "data" / "slurm"
CONFIG, PARTITIONS, NODES = ((_FOLDER / f"{name}.txt").read_text() for name in ("config", "partitions", "nodes"))
STARTS = "sbatch: Job 41 to start at 2026-11-24T19:01:53 using 1 processors on nodes node1 in partition debug\n"


def recorded_facts(**changes: Any) -> SlurmFacts:
    """The recorded cluster, its user in the accounts dev and lab."""
    values: dict[str, Any] = {
        "config": parse_config(CONFIG),
        "partitions": parse_partitions(PARTITIONS),
        "nodes": parse_nodes(NODES),
        "associations": (
            Association("dev", "", frozenset({"normal"})),
            Association("lab", "small", frozenset({"high"})),
        ),
        "qos": {"normal": frozenset(), "high": frozenset()},
    }
    return SlurmFacts(**(values | changes))


def recorded_answers(**more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same as answers of the fake programs."""
    return {
        "scontrol ping": {"out": "Slurmctld(primary) at ctl is UP\n"},
        "scontrol config": {"out": CONFIG},
        "scontrol partition": {"out": PARTITIONS},
        "scontrol node": {"out": NODES},
        "sacctmgr assoc": {"out": "dev||normal\nlab|small|high\n"},
        "sacctmgr qos": {"out": "normal|\nhigh|\n"},
        "sbatch --test-only": {"err": STARTS},
        **more,
    }
