"""How a run's time was used, from what its ranks and supervisors have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import make_private_dir
from orchestrator.run_dir import RunDir
from orchestrator.tracking.report.usage import NUM_PARTS, read_usage
from tests.support.attempts import journal_events, journal_exchange, journal_samples, journal_waits

BEGUN = 1_700_000_000.0


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(make_private_dir(tmp_path / "run"))


def waits(run: RunDir, attempt: int, shares: list[float], *, begins_at: float, seconds: float = 1.0) -> None:
    """Steps of a second, each with its share of waiting."""
    journal_waits(run, attempt, [(begins_at + (i + 1) * seconds, seconds, each) for i, each in enumerate(shares)])


def test_steps_and_waits_add_up_and_keep_their_place_in_time(run: RunDir) -> None:
    waits(run, 0, [0.5] * 20 + [0.0] * 20, begins_at=BEGUN)
    usage = read_usage(run.path)
    assert usage.steps_s == {0: pytest.approx(40)} and usage.waited_s == {0: pytest.approx(10)}
    assert len(usage.parts) == NUM_PARTS == 40
    assert (usage.parts[0].begin, usage.parts[-1].end) == (BEGUN, pytest.approx(BEGUN + 40))
    assert sum(part.step_s for part in usage.parts) == pytest.approx(40)
    shares = [part.wait_share for part in usage.parts]
    assert shares == [pytest.approx(0.5)] * 20 + [pytest.approx(0.0)] * 20


def test_a_step_that_is_longer_than_a_part_is_in_each_that_it_covers(run: RunDir) -> None:
    waits(run, 0, [0.25, 0.75], begins_at=BEGUN, seconds=100.0)
    usage = read_usage(run.path)
    assert [part.step_s for part in usage.parts] == [pytest.approx(5.0)] * 40
    assert [part.wait_share for part in usage.parts] == [pytest.approx(0.25)] * 20 + [pytest.approx(0.75)] * 20


def test_between_two_attempts_nothing_is_known(run: RunDir) -> None:
    waits(run, 0, [0.1] * 10, begins_at=BEGUN)
    waits(run, 1, [0.1] * 10, begins_at=BEGUN + 30)
    usage = read_usage(run.path)
    assert usage.steps_s == {0: pytest.approx(10), 1: pytest.approx(10)}
    assert all(part.wait_share is None for part in usage.parts[12:28])


def test_gpus_are_told_by_node_and_only_what_is_known_of_them(run: RunDir) -> None:
    waits(run, 0, [0.0] * 40, begins_at=BEGUN)
    busy = {"cpu_percent": 7.0, "gpu/0/utilization_percent": 90.0, "gpu/1/utilization_percent": 50.0}
    journal_samples(run, "node1", [(BEGUN + 5, busy), (BEGUN + 6, busy | {"gpu/0/throttled_percent": 100.0})])
    journal_samples(run, "node2", [(BEGUN + 5, {"gpu/0/memory_percent": 3.0})])
    usage = read_usage(run.path)
    assert usage.gpus == {"node1 gpu 0": 90.0, "node1 gpu 1": 50.0}
    known = [part for part in usage.parts if part.gpu_percent is not None]
    assert [part.gpu_percent for part in known] == [70.0, 70.0]
    assert [part.throttled_percent for part in usage.parts if part.throttled_percent is not None] == [100.0]


def test_a_sample_counts_for_the_time_since_the_one_before_and_not_for_the_time_between_two_attempts(
    run: RunDir,
) -> None:
    waits(run, 0, [0.0] * 40, begins_at=BEGUN)
    waits(run, 1, [0.0] * 20, begins_at=BEGUN + 100)
    at = [1.0, 11.0, 21.0, 31.0, 41.0, 101.0, 111.0, 121.0]
    percent = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
    said = [(BEGUN + s, {"gpu/0/utilization_percent": one}) for s, one in zip(at, percent, strict=True)]
    journal_samples(run, "node1", said)
    told = [part.gpu_percent for part in read_usage(run.path).parts]
    assert told[:3] == [pytest.approx((10 + 2 * 20) / 3), 20.0, 20.0], "parts of 3 s, and a sample after the first"
    assert None not in told[:14] and told[14:33] == [None] * 19 and None not in told[34:]


def test_one_gpu_that_others_compute_on_is_enough_since_all_ranks_wait_for_its(run: RunDir) -> None:
    waits(run, 0, [0.0] * 40, begins_at=BEGUN)
    numbers = [{"gpu/0/others": 0.0, "gpu/1/others": 0.0}, {"gpu/0/others": 0.0, "gpu/1/others": 3.0}, {}]
    journal_samples(run, "node1", [(BEGUN + 10 * (i + 1), one) for i, one in enumerate(numbers)])
    journal_samples(run, "node2", [(BEGUN + 20, {"gpu/0/others": 0.5})])
    told = [part.shared_percent for part in read_usage(run.path).parts]
    assert told[9] == 0.0 and told[10:19] == [100.0] * 9, "however many"
    assert told[20:] == [None] * 20


def test_an_exchange_that_was_measured_stands_for_the_steps_from_then_on_in_its_attempt(run: RunDir) -> None:
    waits(run, 0, [0.0] * 9, begins_at=BEGUN)
    journal_exchange(run, 0, BEGUN + 10, 0.4)
    waits(run, 0, [0.0] * 9, begins_at=BEGUN + 10)
    journal_exchange(run, 0, BEGUN + 20, 1.5)
    waits(run, 1, [0.0] * 20, begins_at=BEGUN + 20)
    usage = read_usage(run.path)
    known = [part.exchange_share for part in usage.parts]
    assert known == [None] * 9 + [pytest.approx(0.4)] * 10 + [pytest.approx(1.0)] + [None] * 20, (
        "it is no longer a step"
    )
    assert usage.exchange_share == pytest.approx((10 * 0.4 + 1.0) / 11)
    lately = read_usage(run.path, since=BEGUN + 15)
    assert lately.parts[0].exchange_share == pytest.approx(0.4), "measured before"


def kept(gain: float, **more: Any) -> Mapping[str, Any]:
    return {"step": 1, "kept": 4, "gain": gain, **more}


def test_what_tuning_saved_grows_with_each_setting_that_is_kept_and_a_trial_that_is_taken_back_changes_nothing(
    run: RunDir,
) -> None:
    """As the tuner goes on: what is kept and the next trial are told in the same breath."""
    waits(run, 0, [0.0] * 40, begins_at=BEGUN)
    waits(run, 1, [0.0] * 10, begins_at=BEGUN + 50)
    trial = {"applied": True}
    changes = [
        (BEGUN + 2.5, "tuning", {"step": 2, "from": 1, "to": 4, **trial}),
        (BEGUN + 10.0, "tuning", kept(0.5)),
        (BEGUN + 10.0, "tuning", {"step": 10, "from": 4, "to": 5, **trial}),
        (BEGUN + 20.0, "tuning", kept(0.2)),
        (BEGUN + 20.0, "tuning", {"step": 20, "from": 5, "to": 6, **trial}),
        (BEGUN + 30.0, "tuning", {"step": 30, "from": 6, "to": 5, **trial}),
    ]
    journal_events(run, 0, changes)
    usage = read_usage(run.path)
    assert usage.saved_s == {0: pytest.approx(0.5 * 10 + 0.8 * 20)}
    assert [event.get("gain") for event in usage.events] == [None, 0.5, None, 0.2, None, None]


def test_a_precision_saves_beside_the_loader_until_it_is_taken_back(run: RunDir) -> None:
    waits(run, 0, [0.0] * 40, begins_at=BEGUN)
    trial, bf16 = {"knob": "precision", "from": "fp32", "to": "bf16"}, {"knob": "precision", "kept": "bf16"}
    changes = [
        (BEGUN + 2.0, "tuning", {"step": 2, **trial, "to": "tf32", "why": "", "gain": -0.2, "reverted": True}),
        (BEGUN + 10.0, "tuning", kept(0.5)),
        (BEGUN + 15.0, "tuning", {"step": 15, **trial, "why": "", "applied": True}),
        (BEGUN + 20.0, "tuning", {"step": 20, **bf16, "gain": 1.0}),
        (BEGUN + 30.0, "tuning", {"step": 30, "knob": "precision", "from": "bf16", "to": "fp32", "reverted": True}),
    ]
    journal_events(run, 0, changes)
    assert read_usage(run.path).saved_s == {0: pytest.approx(0.5 * 10 + 2.0 * 10 + 0.5 * 10)}


def test_fewer_processes_that_do_as_much_save_nothing(run: RunDir) -> None:
    waits(run, 0, [0.0] * 40, begins_at=BEGUN)
    journal_events(run, 0, [(BEGUN + 10.0, "tuning", kept(-0.01))])
    assert read_usage(run.path).saved_s == {0: 0.0}


def test_a_run_that_has_made_no_step_has_no_time_to_tell_of(run: RunDir) -> None:
    assert read_usage(run.path).parts == ()
    journal_samples(run, "node1", [(BEGUN, {"load1": 1.0})])
    assert read_usage(run.path).parts == ()


def test_records_of_other_versions_are_passed_over(run: RunDir) -> None:
    waits(run, 0, [0.0] * 3, begins_at=BEGUN)
    journal_samples(run, "node1", [(BEGUN + 1, {"gpu/0/utilization_percent": "nan"})])
    journal_events(run, 0, [(BEGUN, "saved", {"step": 1})])
    usage = read_usage(run.path)
    assert usage.events == () and usage.gpus == {}
