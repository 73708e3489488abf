"""What holds a run up, by name: only a run that waits for data is said to."""

from __future__ import annotations

from typing import Literal

import pytest

from orchestrator.tracking.report.bound import IN_WORDS, NEXT, Bound, bound_of


@pytest.mark.parametrize(
    ("wait_share", "exchange_share", "gpu_percent", "throttled_percent", "shared_percent", "accelerator", "bound"),
    [
        pytest.param(0.30, None, 40.0, 0.0, None, "cuda", "input", id="it waits, and its GPUs idle"),
        pytest.param(0.30, None, None, None, None, "cuda", "input", id="it waits, and a MIG slice tells nothing"),
        pytest.param(0.07, None, 95.0, 0.0, None, "cuda", "input", id="it waits a little beside a busy GPU"),
        pytest.param(0.30, None, 95.0, 0.0, None, "cuda", "unknown", id="it waits, and its GPU is busy all the same"),
        pytest.param(0.01, None, 95.0, 0.0, None, "cuda", "compute", id="its GPUs are busy"),
        pytest.param(0.01, None, 95.0, 80.0, None, "cuda", "throttled", id="its GPUs are busy, and held down"),
        pytest.param(
            0.01, None, 95.0, 80.0, 0.0, "cuda", "throttled", id="they are held down, and nobody else is there"
        ),
        pytest.param(
            0.01, None, 95.0, 80.0, 100.0, "cuda", "shared", id="others are there, and may be what heats them"
        ),
        pytest.param(0.01, None, 40.0, 0.0, 60.0, "cuda", "shared", id="its GPUs idle, and others are there"),
        pytest.param(0.01, None, None, None, 100.0, "cuda", "shared", id="nothing is told but that others are there"),
        pytest.param(0.01, None, 95.0, 0.0, 40.0, "cuda", "compute", id="others are there for a while"),
        pytest.param(0.30, None, 95.0, 0.0, 100.0, "cuda", "input", id="it waits, and others keep its GPU busy"),
        pytest.param(0.01, None, 40.0, 0.0, None, "cuda", "host", id="its GPUs idle, and data are there"),
        pytest.param(0.01, None, None, None, None, "cuda", "unknown", id="nobody tells of its GPUs"),
        pytest.param(0.01, None, None, None, None, "cpu", "compute", id="ranks on CPUs"),
        pytest.param(0.30, None, None, None, None, "cpu", "input", id="ranks on CPUs that wait"),
        pytest.param(0.01, 0.40, None, None, None, "cpu", "communication", id="ranks on CPUs that exchange"),
        pytest.param(0.01, 0.20, None, None, None, "cpu", "compute", id="they exchange a little"),
        pytest.param(0.01, 0.40, 99.0, 0.0, 0.0, "cuda", "communication", id="moving gradients keeps a GPU busy"),
        pytest.param(0.01, 0.40, 99.0, 80.0, 0.0, "cuda", "communication", id="a low clock moves them as fast"),
        pytest.param(0.01, 0.40, 99.0, 0.0, 90.0, "cuda", "shared", id="it exchanges, and others are there"),
        pytest.param(0.50, 0.40, None, None, None, "cpu", "input", id="it waits for data more than it exchanges"),
        pytest.param(0.30, 0.40, 99.0, 0.0, 0.0, "cuda", "communication", id="it exchanges more than it waits"),
        pytest.param(0.01, 0.20, 40.0, 0.0, None, "cuda", "host", id="its GPUs idle, and it exchanges a little"),
    ],
)
def test_the_figures_have_a_name(
    wait_share: float,
    exchange_share: float | None,
    gpu_percent: float | None,
    throttled_percent: float | None,
    shared_percent: float | None,
    accelerator: Literal["cuda", "cpu"],
    bound: Bound,
) -> None:
    found = bound_of(
        wait_share,
        exchange_share=exchange_share,
        gpu_percent=gpu_percent,
        throttled_percent=throttled_percent,
        shared_percent=shared_percent,
        accelerator=accelerator,
    )
    assert found == bound
    assert IN_WORDS[found] and NEXT[found]
