"""The precision tuned in real runs: compared, tried, kept or taken back, and the same science all the while."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking.events import PRECISION, TUNING
from orchestrator.tracking.journal import read_journal_dir
from orchestrator.tuning import amp_law
from orchestrator.tuning.amp_law import LEAST_AMP_GAIN, Lower
from orchestrator.worker.exchange import Exchange
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.train import train
from orchestrator.worker.tuning import amp_tuner
from orchestrator.worker.tuning.amp_tuner import TAG
from tests.support.worlds import add_attempt, events_of, make_run, metrics_of, run_world, world_of
from tests.worker.recipes import CODE, POINTS, recipe
from tests.worker.tuning.windows import SHORT

NUM_STEPS = 60
AT_ONCE = {"fp32_s": 0.0, "lower_s": 0.0}
"""What a run takes changes none of its losses."""


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process; in those of a world SHORT_WINDOWS does it."""
    for module, name, value in SHORT:
        monkeypatch.setattr(module, name, value)
    yield
    torch.backends.cuda.matmul.fp32_precision = "none"


def prepared(folder: Path, model: str, tuning: str, *, steps: int = NUM_STEPS, **args: Any) -> RunDir:
    """An fp32 run that saves after each step, if nothing else is said, and keeps all."""
    save_every, optimizer = args.pop("save_every", {"steps": 1}), args.pop("optimizer", POINTS["optimizer"])
    wanted = recipe(
        POINTS,
        precision="fp32",
        optimizer=optimizer,
        batch={"effective": 16, "micro": 16},
        loader={"workers": 0},
        model={"target": f"precise:{model}", "args": args},
        validation=[],
        metrics={},
        duration={"samples": 16 * steps},
        checkpoint={"every": save_every, "keep": 1000},
        tuning={"workers": "off", "amp": tuning},
    )
    return make_run(folder, wanted, CODE)


def trained(folder: Path, model: str, tuning: str, **args: Any) -> RunDir:
    """In this process."""
    run = prepared(folder, model, tuning, **args)
    train(run, add_attempt(run, 1), {}, StopRequest())
    return run


def decisions(run: RunDir) -> list[dict[str, Any]]:
    return [event for event in events_of(run, TUNING) if event["knob"] == PRECISION]


def losses(run: RunDir, *, until: int | None = None, after: int = 0) -> dict[int, float]:
    found = metrics_of(run, "train/loss")
    return {step: loss for step, loss in found.items() if after < step <= (until or max(found))}


def tags_of(run: RunDir) -> list[str]:
    records = [record for _, record in read_journal_dir(run.path) if record["kind"] == "tags"]
    return [record["values"][TAG] for record in records if TAG in record["values"]]


def test_a_lower_precision_that_agrees_and_is_faster_is_kept(tmp_path: Path) -> None:
    tuned, untuned = (
        trained(tmp_path / "tuned", "Paced", "auto"),
        trained(tmp_path / "untuned", "Paced", "off", **AT_ONCE),
    )
    tried, kept = decisions(tuned)
    assert (tried["from"], tried["to"], tried["applied"]) == ("fp32", "bf16", True), tried
    assert tried["cosine"] > 0.999 and abs(tried["norm_ratio"] - 1) < 0.05 and tried["loss_gap"] < 0.01, tried
    assert kept["kept"] == "bf16" and kept["gain"] > LEAST_AMP_GAIN, kept
    assert tags_of(tuned) == [f"bf16 from step {tried['step']}"]
    one, other, begun = losses(tuned), losses(untuned), tried["step"]
    assert losses(tuned, until=begun) == losses(untuned, until=begun), "the comparison has left nothing behind"
    assert one != other and max(abs(one[step] - other[step]) for step in one) < 0.05


def test_ranks_compare_what_each_has_and_change_after_the_same_step(tmp_path: Path) -> None:
    """Of two ranks, one alone has the gradient that vanishes."""
    same = prepared(tmp_path / "same", "Paced", "auto")
    run_world(same, 2, SHORT_WINDOWS="1")
    tried, kept = decisions(same)
    assert tried["applied"] and kept["kept"] == "bf16"
    one = prepared(tmp_path / "one", "Paced", "auto")
    with world_of(one, 2, of_rank={1: {"VANISHES": "1"}}, SHORT_WINDOWS="1") as world:
        assert world.wait() == [0, 0], world.log()
    (refused,) = decisions(one)
    assert refused["refused"] and "the gradient of" in refused["why"]


def test_by_default_it_is_only_suggested_and_the_model_is_not_called_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(amp_tuner, "has_bf16", lambda device: True)
    run = trained(tmp_path / "run", "Refusing", "suggest")
    (told,) = decisions(run)
    assert (told["to"], told["applied"]) == ("bf16", False) and tags_of(run) == []
    assert f"orchestrate: step {told['step']}: try precision: bf16: steps wait for no data" in capfd.readouterr().err
    assert losses(run) == losses(trained(tmp_path / "off", "Paced", "off", **AT_ONCE))


def test_nothing_is_suggested_where_bf16_is_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amp_tuner, "has_bf16", lambda device: False)
    assert decisions(trained(tmp_path / "run", "Paced", "suggest", steps=40)) == []


def test_a_model_whose_gradient_dies_while_its_loss_looks_the_same_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, untuned = (trained(tmp_path / mode, "Vanishing", mode, fp32_s=0.0) for mode in ("auto", "off"))
    (told,) = decisions(run)
    assert told["refused"] and told["loss_gap"] < 0.001 and told["cosine"] < 0.5, told
    assert "bf16 is refused: the gradient of first is another one: cosine 0.000 and 0.00 x" in capfd.readouterr().err
    assert losses(run) == losses(untuned) and tags_of(run) == []


def test_what_cannot_be_computed_in_it_is_refused_and_the_log_says_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path / "run", "Refusing", "auto")
    (told,) = decisions(run)
    assert told["refused"] and told["why"] == "it could not be computed: a rank's log says why"
    assert "bf16: RuntimeError: no kernel for this type" in capfd.readouterr().err
    assert losses(run) == losses(trained(tmp_path / "off", "Paced", "off", **AT_ONCE))


def test_what_gains_too_little_is_taken_back_bitwise(tmp_path: Path) -> None:
    """From the step of the way back on, it is the fp32 run that goes on from the checkpoint of that step."""
    run = trained(tmp_path / "run", "Paced", "auto", lower_s=0.06)
    tried, reverted = decisions(run)
    assert tried["applied"] and reverted["reverted"] and reverted["gain"] < LEAST_AMP_GAIN
    assert (reverted["from"], reverted["to"]) == ("bf16", "fp32")
    step = reverted["step"]
    plain = prepared(tmp_path / "plain", "Paced", "off", **AT_ONCE)
    shutil.copytree(run.checkpoints / f"step-{step:08d}", plain.checkpoints / f"step-{step:08d}")
    train(plain, add_attempt(plain, 1), {}, StopRequest())
    assert losses(plain) == losses(run, after=step) and len(losses(plain)) == NUM_STEPS - step
    assert tags_of(run) == [f"bf16 from step {tried['step']}", f"fp32 from step {step}"]


def test_a_loss_that_is_no_number_takes_it_back_with_the_steps_since_the_checkpoint(tmp_path: Path) -> None:
    run = prepared(tmp_path / "run", "OverflowingLater", "auto", save_every={"minutes": 60})
    train(run, add_attempt(run, 1), {}, StopRequest())
    tried, kept, reverted = decisions(run)
    assert kept["kept"] == "bf16" and reverted["reverted"] and "the training loss is nan" in reverted["why"], reverted
    (back,) = events_of(run, "rolled_back")
    assert back["to_step"] == tried["step"] == reverted["step"], "it was saved when bf16 began"
    untuned = trained(tmp_path / "untuned", "Paced", "off", **AT_ONCE)
    after = back["from_step"]
    assert losses(run, after=after) == losses(untuned, after=after), "from there it is the fp32 run"
    assert tags_of(run)[-1] == f"fp32 from step {back['to_step']}"


def test_a_number_that_is_none_while_it_is_compared_again_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amp_tuner, "_LOOKS_AGAIN_AFTER", (10, 20))
    run = trained(tmp_path / "run", "OverflowingWhenCompared", "auto")
    _, kept, reverted = decisions(run)
    (back,) = events_of(run, "rolled_back")
    assert back["from_step"] - kept["step"] == 11, "between the two windows of the comparison"
    assert "the training loss is nan" in reverted["why"] and max(losses(run)) == NUM_STEPS


def test_what_was_given_up_stays_so_where_a_checkpoint_of_before_is_gone_back_to(tmp_path: Path) -> None:
    """By the recipe's own policy, and by the next attempt: the checkpoint after it knows."""
    run = prepared(tmp_path / "run", "OverflowingLater", "auto")
    train(run, add_attempt(run, 1), {}, StopRequest())
    last = read_json(run.checkpoints / f"step-{NUM_STEPS:08d}" / "state.json")
    (back,) = events_of(run, "rolled_back")
    assert last["tuned_precision"] is None and back["to_step"] > decisions(run)[1]["step"]
    steps = (back["to_step"], back["to_step"] + 1)
    states = [read_json(run.checkpoints / f"step-{step:08d}" / "state.json") for step in steps]
    assert [state["tuned_precision"] for state in states] == ["bf16", None]


def test_weights_that_are_no_number_are_found_before_they_are_saved_and_taken_back(tmp_path: Path) -> None:
    """The loss was a number, its gradient was none."""
    sgd = {"name": "sgd", "lr": 0.01}  # its gradient is not measured in each step
    run = trained(tmp_path / "run", "LosingItsWeights", "auto", save_every={"steps": 39}, optimizer=sgd)
    tried, _, reverted = decisions(run)
    assert (tried["step"], reverted["why"]) == (9, "step 39: the norm of the weights is nan")
    untuned = trained(tmp_path / "untuned", "Paced", "off", optimizer=sgd, **AT_ONCE)
    assert max(losses(run)) == NUM_STEPS and losses(run, after=39) == losses(untuned, after=39)


def test_a_resume_above_tf32_goes_on_with_the_ladder_and_one_on_other_devices_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amp_tuner, "ladder", lambda capability: ("tf32",))
    first = trained(tmp_path / "first", "Paced", "auto", tf32_s=0.003)
    assert decisions(first)[-1]["kept"] == "tf32"
    last = f"step-{NUM_STEPS:08d}"
    for rungs, told in ((("tf32", "bf16"), [("bf16", None), (None, "bf16")]), (("fp16",), [("fp32", None)])):
        monkeypatch.setattr(amp_tuner, "ladder", lambda capability, rungs=rungs: rungs)
        run = prepared(tmp_path / rungs[0], "Paced", "auto", steps=2 * NUM_STEPS, tf32_s=0.03)
        shutil.copytree(first.checkpoints / last, run.checkpoints / last)
        train(run, add_attempt(run, 1), {}, StopRequest())
        assert [(one.get("to"), one.get("kept")) for one in decisions(run)][:2] == told


def test_a_gradient_that_begins_to_vanish_is_seen_when_it_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amp_tuner, "_LOOKS_AGAIN_AFTER", (10, 20))
    run = trained(tmp_path / "run", "VanishingLater", "auto", after=25)
    _, kept, reverted = decisions(run)
    assert kept["kept"] == "bf16" and reverted["reverted"] and "the gradient of" in reverted["why"]
    assert reverted["step"] - kept["step"] == 22, "20 steps, and the two windows that are looked at"


@pytest.mark.parametrize("lower", ["bf16", "fp16"])
def test_a_resume_goes_on_in_what_was_kept_exactly(
    tmp_path: Path, lower: Lower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint knows the precision, and fp16's loss scale."""
    monkeypatch.setattr(amp_tuner, "ladder", lambda capability: (lower,))
    whole = trained(tmp_path / "whole", "Paced", "auto")
    kept = decisions(whole)[-1]
    assert kept["kept"] == lower
    step = kept["step"] + 5
    resumed = prepared(tmp_path / "resumed", "Paced", "auto")
    shutil.copytree(whole.checkpoints / f"step-{step:08d}", resumed.checkpoints / f"step-{step:08d}")
    train(resumed, add_attempt(resumed, 1), {}, StopRequest())
    assert losses(resumed) == losses(whole, after=step) and decisions(resumed) == []
    stored = torch.load(resumed.checkpoints / f"step-{NUM_STEPS:08d}" / "optimizer.pt", weights_only=True)
    assert bool(stored["scaler"]) == (lower == "fp16")


def test_a_resume_whose_recipe_wants_it_no_more_goes_on_in_fp32(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "Paced", "auto")
    last = f"step-{NUM_STEPS:08d}"
    assert read_json(whole.checkpoints / last / "state.json")["tuned_precision"] == "bf16"
    longer = prepared(tmp_path / "longer", "Refusing", "off", steps=NUM_STEPS + 5)
    shutil.copytree(whole.checkpoints / last, longer.checkpoints / last)
    train(longer, add_attempt(longer, 1), {}, StopRequest())
    assert len(losses(longer)) == 5, "in bf16 this model raises an error"


def test_fp16_whose_loss_scale_is_lost_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the steps since the last checkpoint: from which on nothing may have changed the weights."""
    monkeypatch.setattr(amp_tuner, "ladder", lambda capability: ("fp16",))
    monkeypatch.setattr(amp_tuner, "_LOOKS_AT_SCALE_EVERY", 10)
    monkeypatch.setattr(amp_tuner, "is_scale_lost", lambda scale: scale <= 65536.0)
    run = trained(tmp_path / "run", "Paced", "auto", save_every={"minutes": 60})
    tried, kept, reverted = decisions(run)
    assert kept["kept"] == "fp16" and "the loss scale has fallen below 1" in reverted["why"]
    (back,) = events_of(run, "rolled_back")
    assert (back["from_step"] - kept["step"], back["to_step"]) == (10, tried["step"])


def test_the_ladder_is_climbed_and_each_rung_is_verified_against_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amp_tuner, "ladder", lambda capability: ("tf32", "bf16"))
    run = trained(tmp_path / "run", "Paced", "auto")
    told = [(one.get("to"), one.get("kept")) for one in decisions(run)]
    assert told == [("tf32", None), ("fp32", None), ("bf16", None), (None, "bf16")]
    assert torch.backends.cuda.matmul.fp32_precision in ("ieee", "none")


def test_a_run_that_waits_for_its_data_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amp_law, "MOST_WAIT_SHARE", -1.0)
    assert decisions(trained(tmp_path / "run", "Paced", "auto", **AT_ONCE)) == []


def test_a_run_that_waits_for_the_exchange_of_gradients_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exchange, "exposed_s", lambda self: 10.0)
    assert decisions(trained(tmp_path / "run", "Paced", "auto", **AT_ONCE)) == []


def test_a_stop_while_it_is_tried_goes_on_in_fp32_and_tries_again(tmp_path: Path) -> None:
    """What is on trial is in no checkpoint."""
    run = prepared(tmp_path / "run", "Paced", "auto", fp32_s=0.2, lower_s=0.1)
    with world_of(run, 1, SHORT_WINDOWS="1") as world:
        while not decisions(run):
            world.wait_for_step(max(metrics_of(run, "train/loss"), default=0) + 1)
        world.signal(signal.SIGTERM, rank=0)
        assert world.wait() == [0], world.log()
    run_world(run, 1, SHORT_WINDOWS="1")
    told = decisions(run)
    assert [one.get("kept") for one in told] == [None, None, "bf16"]
    assert told[1]["applied"] and told[1]["step"] > told[0]["step"]
