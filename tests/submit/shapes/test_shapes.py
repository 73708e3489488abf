"""`plan --shapes` and `submit --soonest` against a Slurm that is half full, as a person meets them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cluster import Allocation
from orchestrator.plan.plan import make_plan
from orchestrator.profile import read_profile
from orchestrator.recipe.read import read_recipe
from tests.support.command_line import TINY, orchestrate
from tests.support.earlier_runs import leave_run
from tests.support.half_full_slurm import PROFILE, HalfFullSlurm

Verb = Callable[..., "subprocess.CompletedProcess[str]"]
OWN = ("--set", "resources.num_nodes=4", "--set", "resources.walltime=0:20:00")
UNTOUCHED = "The effective batch is 16 samples on every numbered shape: the choice does not touch the science."


@pytest.fixture
def slurm(tmp_path: Path) -> HalfFullSlurm:
    return HalfFullSlurm.install(tmp_path / "slurm")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "half.yaml").write_text(PROFILE)
    return folder


@pytest.fixture
def verb(slurm: HalfFullSlurm, work: Path) -> Verb:
    """`orchestrate` on the tiny recipe, whose own shape has to wait: it asks for four nodes of which two are busy."""

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return orchestrate(name, TINY, "--cluster", "half.yaml", *OWN, *words, cwd=work, env=slurm.environment)

    return run


def shapes(done: subprocess.CompletedProcess[str]) -> dict[tuple[int, int, str], dict[str, Any]]:
    """The shapes of `--shapes --json`, in the order of their rank."""
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["shapes"]
    return {(row["num_nodes"], row["gpus_per_node"], row["partition"]): row for row in rows}


def test_the_table_is_ranked_by_start_and_names_the_traps_and_says_that_the_science_stays(verb: Verb) -> None:
    done = verb("plan", "--shapes")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert " ".join(head.split()) == (
        "NODES RANKS WORLD PARTITION BATCH SHARED MICRO ACCUM IDLE STEPS RANK-HOURS START"
    )
    numbered = [row.split() for row in rows if row[:2].strip().isdecimal()]
    assert [row[0].rstrip("*") for row in numbered] == [str(number + 1) for number in range(len(numbered))]
    starts = [row[-1] for row in numbered]
    assert starts.count("now") >= 6 and starts[: starts.count("now")] == ["now"] * starts.count("now")
    assert "unknown" not in starts
    own = next(row for row in numbered if row[0].endswith("*"))
    assert own[1:5] == ["4", "1", "4", "debug"] and own[-1] != "now"
    assert any(row.split()[:1] == ["-"] and "16 is not divisible by 3; 2 or 4 ranks divide it" in row for row in rows)
    assert rows[-1] == UNTOUCHED
    assert max(map(len, rows)) <= 110


def test_the_same_is_there_as_data(verb: Verb) -> None:
    done = verb("plan", "--shapes", "--json")
    rows = shapes(done)
    facts = json.loads(done.stdout)
    assert (facts["changes_science"], facts["unanswered"], facts["sources"]) == (False, None, [])
    now, later, trap = rows[2, 2, "debug"], rows[4, 1, "debug"], rows[3, 1, "debug"]
    assert facts["asked_at"][:16] <= now["start"][:16] < later["start"][:16]
    assert (later["is_own"], later["is_exact"], trap["is_exact"], trap["start"]) == (True, True, False, None)
    assert (now["num_steps"], now["idle_share"], now["most_gpu_hours"]) == (16, 0.0, pytest.approx(4 / 3))


def test_of_a_model_that_was_not_looked_into_it_is_not_said_that_the_science_stays(verb: Verb) -> None:
    words = ("--set", "model.target=sklearn.svm:SVC", "--set", "model.args={}")
    table = verb("plan", "--shapes", *words)
    unknown = "whether a BatchNorm would see other micro-batches is not known (sklearn: not looked into)"
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[-1] == f"The effective batch is 16 samples on every numbered shape; {unknown}."
    done = verb("submit", "--soonest", "--json", *words)
    assert done.stderr.splitlines()[0].endswith(f" The effective batch is 16 samples on both; {unknown}.")


@pytest.mark.parametrize("words", [("--offline",), ()], ids=["offline", "a dead controller"])
def test_without_a_slurm_that_answers_the_table_has_no_starts(
    verb: Verb, slurm: HalfFullSlurm, words: tuple[str, ...]
) -> None:
    slurm.answers({"down": "Unable to contact slurm controller (connect failure)"})
    done = verb("plan", "--shapes", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "START" not in done.stdout and "now" not in done.stdout.split()
    assert ("no start estimates: " in done.stdout) == (not words)
    assert done.stdout.splitlines()[-1] == UNTOUCHED


def test_an_estimate_that_does_not_come_is_unknown_and_its_shape_ranks_behind_those_with_one(
    verb: Verb, slurm: HalfFullSlurm
) -> None:
    slurm.answers({"2x2 debug": "Unable to contact slurm controller (connect failure)"})
    rows = shapes(verb("plan", "--shapes", "--json"))
    assert rows[2, 2, "debug"]["is_exact"] and rows[2, 2, "debug"]["start"] is None
    exact = [shape for shape, row in rows.items() if row["is_exact"]]
    assert exact[-1] == (2, 2, "debug")
    table = verb("plan", "--shapes").stdout
    assert "unknown" in table.split()
    assert "\nSTART unknown: Unable to contact slurm controller (connect failure)\n" in table


def test_estimates_that_none_of_the_shapes_gets_are_told_with_the_reason_and_not_in_a_column(
    verb: Verb, slurm: HalfFullSlurm
) -> None:
    sbatch = slurm.room / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\nexec sleep 60\n")
    table = verb("plan", "--shapes", "--set", "resources.partition=debug")
    assert table.returncode == 0, table.stderr
    assert "START" not in table.stdout and "unknown" not in table.stdout.split()
    assert "\nno start estimates: sbatch: no answer within 5 s\n" in table.stdout


def test_what_slurm_refuses_stands_below_with_its_words(verb: Verb, slurm: HalfFullSlurm) -> None:
    slurm.answers({"long": "Invalid qos specification"})
    rows = shapes(verb("plan", "--shapes", "--json"))
    refused = [row for shape, row in rows.items() if shape[2] == "long"]
    assert len(refused) >= 4
    assert all(not row["is_exact"] and "Invalid qos specification" in row["why_not"] for row in refused)
    assert rows[2, 2, "debug"]["is_exact"]


def test_a_recipe_whose_own_shape_is_the_trap_still_gets_its_table(verb: Verb) -> None:
    done = verb("plan", "--shapes", "--set", "resources.num_nodes=3")
    assert done.returncode == 0, done.stderr
    trap = next(line for line in done.stdout.splitlines() if line.startswith(" -*"))
    assert trap.split(maxsplit=5)[1:] == ["3", "1", "3", "debug", "16 is not divisible by 3; 2 or 4 ranks divide it"]


def test_a_batch_per_gpu_changes_the_science_and_soonest_refuses_it(verb: Verb, work: Path) -> None:
    words = ("--set", "batch.effective=null", "--set", "batch.per_gpu=4")
    table = verb("plan", "--shapes", *words)
    assert table.stdout.splitlines()[-1] == (
        "The effective batch, and the lr with it, follows the world (batch.per_gpu): "
        "the choice does change the science."
    )
    refused = verb("submit", "--soonest", *words)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "--set batch.per_gpu=4: the effective batch would follow the shape that happens to start first",
        "    write batch.effective, or submit without --soonest",
    ]
    assert not (work / "runs").exists()


def test_without_a_profile_with_partitions_there_is_nothing_to_choose_from(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--shapes", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--shapes: this machine has no partitions to choose from\n    add --cluster PROFILE")


def test_a_recipe_that_no_shape_can_run_is_refused_at_its_line(verb: Verb) -> None:
    done = verb("plan", "--shapes", "--set", "resources.memory=7000M")
    assert done.returncode == 2
    assert done.stderr.startswith("--set resources.memory=7000M: 7000M per node is more than the 6000M in partition")


def test_soonest_submits_the_shape_that_starts_first_under_the_same_name_and_says_which_and_why(
    verb: Verb, slurm: HalfFullSlurm
) -> None:
    own = json.loads(verb("plan", "--json").stdout)
    done = verb("submit", "--soonest", "--json")
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[0]
    assert said.startswith(
        "soonest: 1 node x 4 ranks in debug, starts now; the recipe's own shape, 4 nodes x 1 rank in debug, starts "
    )
    assert said.endswith(". The effective batch is 16 samples on both: the science is the same.")
    assert "#SBATCH --nodes=1\n" in slurm.received and "#SBATCH --gres=gpu:4\n" in slurm.received
    run_dir = Path(json.loads(done.stdout)["run_dir"])
    assert run_dir == Path(own["run_dir"])
    stored = yaml.safe_load((run_dir / "recipe.yaml").read_text())["resources"]
    assert (stored["num_nodes"], stored["gpus_per_node"], stored["partition"]) == (1, 4, "debug")
    assert json.loads((run_dir / "plan.json").read_text())["batch"]["effective_batch_size"] == 16


def test_soonest_keeps_the_recipes_own_shape_where_no_other_is_sooner(verb: Verb, slurm: HalfFullSlurm) -> None:
    done = verb("submit", "--soonest", "--set", "resources.num_nodes=2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == (
        "soonest: the recipe's own shape, 2 nodes x 1 rank in debug, starts now: no other starts sooner"
    )
    assert "#SBATCH --nodes=2\n" in slurm.received and "#SBATCH --gres=gpu:1\n" in slurm.received


SLOW = ("--set", "batch.micro=4", "--set", "duration.epochs=300")


@pytest.fixture
def measured(work: Path) -> str:
    """An earlier run on one rank of `debug`: 8 samples a second in micro-batches of 4, 16 of them a step."""
    cluster = read_profile(work / "half.yaml")
    recipe = read_recipe(TINY, ("batch.micro=4",)).recipe
    leave_run(work / "runs" / "tiny-earlier", recipe, cluster, make_plan(recipe, cluster, Allocation(1, 1)), 8.0)
    return "tiny-earlier"


def test_a_measured_speed_gives_durations_hours_and_ends_and_is_told_with_its_run(verb: Verb, measured: str) -> None:
    """19,200 samples: 40 minutes on one rank, as measured; a quarter of that is predicted for four."""
    done = verb("plan", "--shapes", *SLOW)
    head, *rows = done.stdout.splitlines()
    assert head.split()[-4:] == ["RANK-HOURS", "START", "TAKES", "END"]
    cells = {tuple(row.split()[1:5]): row.split()[11:] for row in rows if row[:2].strip().isdecimal()}
    assert cells["4", "1", "4", "debug"][0] == cells["1", "4", "4", "debug"][0] == "~0.667"
    assert cells["1", "4", "4", "debug"][1:3] == ["now", "~0:10:00"]
    assert cells["1", "1", "1", "debug"] == ["0.667", "now", "0:40:00", "in", "2", "jobs"]
    assert cells["2", "4", "8", "debug"] == ["<=", "2.67", "now"]
    note = f"speeds of {measured} (1 rank, micro-batch 4: 8 samples/s); ~ is predicted from other worlds"
    assert any(row.startswith(note) for row in rows)


def test_soonest_takes_the_shape_that_ends_first_where_speeds_are_known(
    verb: Verb, slurm: HalfFullSlurm, measured: str
) -> None:
    done = verb("submit", "--soonest", "--set", "resources.num_nodes=1", *SLOW)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[0]
    assert said.startswith("soonest: 1 node x 4 ranks in debug, starts now and ends about ")
    assert "; the recipe's own shape, 1 node x 1 rank in debug, starts now. " in said
    assert "#SBATCH --nodes=1\n" in slurm.received and "#SBATCH --gres=gpu:4\n" in slurm.received


def test_after_an_earlier_run_a_known_end_in_an_hour_does_not_beat_a_start_now(
    verb: Verb, slurm: HalfFullSlurm, work: Path
) -> None:
    """The speed of the recipe's own shape says nothing of other micro-batches, and all other worlds have those."""
    words = ("--set", "resources.gpus_per_node=4", "--set", "duration.epochs=300")
    cluster = read_profile(work / "half.yaml")
    recipe = read_recipe(TINY, ("resources.num_nodes=4", "resources.gpus_per_node=4")).recipe
    leave_run(work / "runs" / "tiny-earlier", recipe, cluster, make_plan(recipe, cluster, Allocation(4, 4)), 32.0)
    rows = shapes(verb("plan", "--shapes", "--json", *words))
    assert rows[4, 4, "debug"]["end"] and not rows[2, 4, "debug"]["end"]
    done = verb("submit", "--soonest", *words)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[0]
    assert said.startswith("soonest: 2 nodes x 4 ranks in debug, starts now; the recipe's own shape, 4 nodes x 4 ranks")
    assert "#SBATCH --nodes=2\n" in slurm.received


def test_soonest_stays_with_a_known_end_that_no_other_is_known_to_beat(verb: Verb, measured: str) -> None:
    shape = ("--set", "resources.num_nodes=1", "--set", "resources.gpus_per_node=4")
    done = verb("submit", "--soonest", *shape, *SLOW)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[0]
    assert said.startswith("soonest: the recipe's own shape, 1 node x 4 ranks in debug, starts now and ends about ")
    assert said.endswith(": no other is known to end sooner")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [((), 3, "no start is known: "), (("--offline",), 2, "there is no Slurm to ask when a job would start")],
)
def test_soonest_without_an_estimate_submits_nothing(
    verb: Verb, slurm: HalfFullSlurm, work: Path, words: tuple[str, ...], code: int, why: str
) -> None:
    slurm.answers({"down": "Unable to contact slurm controller (connect failure)"})
    done = verb("submit", "--soonest", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"--soonest: {why}")
    assert not (work / "runs").exists()
