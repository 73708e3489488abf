"""A public training script that this project did not write, unmodified, on two nodes of the lab."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import metadata
from pathlib import Path

from tests.slurm.slurm_lab import ROOT, SlurmLab
from tests.support.command_line import RECIPES, orchestrate
from tests.support.tracked import records

PROFILE = ("--cluster", ROOT / "cluster" / "dev.yaml", "--set", "resources.cpus_per_gpu=1")
SCRIPT = "accelerate/test_utils/scripts/test_script.py"
TRAINED = "Training yielded the same results on one CPU or distributed setup with batch split."
"""What each node's first rank prints when the weights agree with those that one process gets from the same batches."""


def test_accelerates_own_script_trains_on_two_nodes(lab: SlurmLab, tmp_path: Path) -> None:
    assert_as_published(SCRIPT)
    two_nodes = ("--set", "resources.num_nodes=2", "--set", "resources.gpus_per_node=1")
    done = orchestrate(
        "submit", RECIPES / "accelerate.yaml", *PROFILE, *two_nodes, "--wait", "--json", cwd=tmp_path, timeout_s=300
    )
    assert done.returncode == 0, done.stderr
    run_dir = Path(json.loads(done.stdout)["run_dir"])
    attempt = run_dir / "attempts" / "000"
    verdict = json.loads((attempt / "verdict.json").read_text())
    assert (verdict["outcome"], verdict["reason"]) == ("done", "the command ended with exit code 0 on every rank")
    for rank, node in enumerate(("node1", "node2")):
        assert json.loads((attempt / f"node-{node}.json").read_text())["exit_code"] == 0
        assert (attempt / "logs" / f"rank-{rank}.log").read_text().count(TRAINED) == 2
        assert {record["host"] for record in records(run_dir, f"000.{node}.node.log") if "host" in record} == {node}


def assert_as_published(script: str) -> None:
    """The file is the one of the wheel, by the hash that the wheel's own record has of it."""
    recorded = next(file for file in metadata.files("accelerate") or () if str(file) == script)
    assert recorded.hash is not None and recorded.hash.mode == "sha256"
    digest = hashlib.sha256(Path(recorded.locate()).read_bytes()).digest()
    assert recorded.hash.value == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
