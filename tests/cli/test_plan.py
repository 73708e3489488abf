"""`orchestrate plan`: the screen, the script, the JSON, the commands; and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from tests.support.command_line import TINY, orchestrate

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "recipes" / "digits" / "digits.yaml"


def test_the_screen_says_what_would_run_and_nothing_is_written(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--set", "resources.gpus_per_node=2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:10].strip(): " ".join(line[10:].split()) for line in done.stdout.splitlines()}
    assert rows["topology"].startswith("1 node x 2 ")
    assert rows["batch"] == "2 ranks x (8) = 16 samples exactly 1 accumulation step; no limit on the micro-batch"
    assert rows["lr"] == "0.1 at batch 16 (as written: no base_batch) warm-up 32 samples = 2 steps, then cosine"
    assert rows["data"] == "clouds 64 samples, 4 passes"
    assert rows["horizon"] == "16 steps = 256 samples checkpoint every 5 minutes"
    assert rows["run"].startswith("runs/tiny-")
    assert list(tmp_path.iterdir()) == []


def test_every_number_explains_itself_with_its_formula_and_source(tmp_path: Path) -> None:
    words = ("plan", DIGITS, "--set", "batch.effective=512", "--explain")
    screen = orchestrate(*words, cwd=tmp_path).stdout.split("\n\n")
    assert screen[4:6] == [
        "learning_rate.batch_ratio = 8\n"
        "    formula   effective_batch / base_batch\n"
        "    inputs    512 / 64\n"
        "    why       k: the batch over the one that lr belongs to, in samples\n"
        "    source    definition",
        "learning_rate.factor = 2.82843\n"
        "    formula   sqrt(batch_ratio)\n"
        "    inputs    sqrt(8)\n"
        "    why       sqrt (adamw): the variance of Adam's update stays put\n"
        "    source    Malladi et al. 2022 (arXiv:2205.10287)",
    ]
    facts = json.loads(orchestrate(*words, "--json", cwd=tmp_path).stdout)
    assert len(screen) == len(facts["numbers"]) + len(facts["warnings"])
    assert [warning["code"] for warning in facts["warnings"]] == ["W_BIG_K", "W_FEW_STEPS"]
    assert facts["numbers"][5]["inputs"] == {"batch_ratio": 8.0}


def test_a_batch_in_tokens_is_shown_in_samples_and_tokens(tmp_path: Path) -> None:
    tokens = ("batch.effective=64", "batch.unit=tokens", "batch.sequence_length=4", "optimizer.base_batch=32")
    changes = [word for change in tokens for word in ("--set", change)]
    done = orchestrate("plan", TINY, *changes, cwd=tmp_path)
    assert "1 rank x (16) = 16 samples = 64 tokens exactly" in done.stdout
    assert "0.1 at batch 32 -> 0.2 at 64 tokens (linear: sgd)" in done.stdout
    assert "16 steps = 256 samples = 1,024 tokens" in done.stdout


def test_a_model_with_batch_norm_is_warned_of_at_its_line(tmp_path: Path) -> None:
    for file in TINY.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "model.py").open("a") as file:
        file.write(
            "\n\ndef build_normed(**args):\n    return torch.nn.Sequential(build(**args), torch.nn.BatchNorm1d(2))\n"
        )
    line = len((tmp_path / "model.py").read_text().splitlines())
    assert "W_BN" not in orchestrate("plan", "tiny.yaml", cwd=tmp_path).stdout
    words = ("plan", "tiny.yaml", "--set", "resources.gpus_per_node=2")
    assert "W_BN" not in orchestrate(*words, cwd=tmp_path).stdout
    done = orchestrate(*words, "--set", "model.target=model:build_normed", cwd=tmp_path)
    assert f"W_BN: model.py:{line} normalises over micro-batches, here of 8 samples, not 16" in done.stdout


def test_tokens_are_estimated_by_the_rule_that_the_screen_names(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--set", "datasets.0.chars_per_sample=30", cwd=tmp_path)
    assert "256 samples = about 1,920 tokens, 4 characters each" in done.stdout


def test_json_holds_the_plan_the_script_and_the_run_directory(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["plan"]["schedule"]["num_steps"] == 16
    assert facts["script"].endswith(f"-m orchestrator.job {facts['run_dir']}\n")


def test_the_torchrun_command_of_each_node_is_shown(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--show", "torchrun", "--set", "resources.num_nodes=2", cwd=tmp_path)
    commands = [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("#")]
    assert ["--node-rank=0" in commands[0], "--node-rank=1" in commands[1], len(commands)] == [True, True, 2]
    assert {"--nnodes=2", "--master-port=PORT", "--master-addr=HEAD_ADDRESS"} <= set(commands[0]) & set(commands[1])


@pytest.mark.parametrize("other", ["--explain", "--json", "--shapes"])
def test_two_screens_at_once_are_refused(other: str, tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--show", "script", other, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "each print something else" in done.stderr


def test_a_pipe_is_refused_as_a_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    done = orchestrate("plan", "pipe.yaml", cwd=tmp_path, timeout_s=20)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "pipe.yaml: this is a pipe")


def test_one_is_one_and_thousands_are_written_out(tmp_path: Path) -> None:
    changes = ("batch.effective=1", "duration={epochs: null, samples: 1}", "schedule.warmup=null")
    done = orchestrate("plan", TINY, *(word for change in changes for word in ("--set", change)), cwd=tmp_path)
    assert "1 rank x (1) = 1 sample exactly" in done.stdout and "1 step = 1 sample " in done.stdout
    done = orchestrate("plan", TINY, "--set", "duration.epochs=12345", cwd=tmp_path)
    assert "12,345 passes" in done.stdout


def test_the_resolved_recipe_is_shown_and_plans_alike(tmp_path: Path) -> None:
    shown = orchestrate("plan", TINY, "--show", "recipe", "--set", "batch.effective=32", cwd=tmp_path).stdout
    for file in TINY.parent.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "again.yaml").write_text(shown)
    done = orchestrate("plan", "again.yaml", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["plan"]["batch"]["effective_batch_size"] == 32


def test_a_profile_gives_partition_cores_and_directives(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--cluster", ROOT / "cluster" / "dev.yaml", "--show", "script", cwd=tmp_path)
    assert "#SBATCH --partition=debug\n" in done.stdout
    assert "#SBATCH --gres=gpu:1\n" in done.stdout
    assert "#SBATCH --cpus-per-task=2\n" in done.stdout


def test_an_impossible_batch_is_one_problem_at_its_line_and_exit_code_2(tmp_path: Path) -> None:
    done = orchestrate("plan", TINY, "--set", "resources.gpus_per_node=3", cwd=tmp_path)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{TINY}:") and first.endswith("batch.effective: 16 cannot be shared evenly by 3 ranks")
    assert second == "    use 15 or 18, a world of 2 or 4, or batch.on_indivisible: uneven (6 + 5 + 5)"


def test_an_unknown_partition_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    words = ("--cluster", ROOT / "cluster" / "dev.yaml", "--set", "resources.partition=debugg")
    done = orchestrate("plan", TINY, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "--set resources.partition=debugg: the profile 'dev' has no partition 'debugg'",
        "    did you mean 'debug'?",
    ]


def test_a_missing_recipe_is_one_line_with_its_path(tmp_path: Path) -> None:
    done = orchestrate("plan", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("nowhere.yaml: there is no such file")
    assert "Traceback" not in done.stderr


def test_a_misspelt_verb_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    done = orchestrate("sumbit", TINY, cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'submit'?" in done.stderr


def test_the_snapshot_is_refused_when_it_is_data_rather_than_code(tmp_path: Path) -> None:
    for file in TINY.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(60 * 1024**2)
    done = orchestrate("plan", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "too much to copy with every run" in done.stderr and "weights.bin" in done.stderr
