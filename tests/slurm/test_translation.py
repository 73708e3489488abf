"""The translation recipe on two nodes of two ranks: the same samples and the same losses as in one process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.recipes.translation.own_run import SMALL, place_at
from tests.recipes.workplace import Workplace
from tests.slurm.slurm_lab import ROOT, SlurmLab
from tests.support.tracked import largest_difference, losses, windows

STEPS = 20
EXACT = (
    "model.args.dropout=0.0",
    "precision=fp64",
    "duration.epochs=null",
    f"duration.steps={STEPS}",
    "tracking.sample_ids=true",
    "resources.cpus_per_gpu=1",
)


def trained(place: Workplace, *words: str) -> Path:
    ended = place.orchestrate("submit", "--wait", "--json", "--again", *words)
    assert ended.returncode == 0, ended.stderr
    return Path(json.loads(ended.stdout)["run_dir"])


def test_two_nodes_of_two_ranks_have_the_curve_of_one_process_in_fp64(lab: SlurmLab, tmp_path: Path) -> None:
    """Sentences are grouped by length, so ranks have the same ones of a window, in other places."""
    place = place_at(tmp_path / "recipe", *SMALL, *EXACT)
    assert place.orchestrate("stage").returncode == 0
    alone = trained(place, "--set", "resources.gpus_per_node=1")
    two_by_two = ("--set", "resources.num_nodes=2", "--set", "resources.gpus_per_node=2")
    spread = trained(place, "--cluster", str(ROOT / "cluster" / "dev.yaml"), *two_by_two)
    launch = json.loads((spread / "attempts" / "000" / "launch.json").read_text())
    assert len(launch["nodes"]) == 2
    assert len(losses(alone)) == STEPS and largest_difference(losses(alone), losses(spread)) <= 1e-12
    one, other = ({step: sorted(ids) for step, ids in windows(run).items()} for run in (alone, spread))
    assert one == other
