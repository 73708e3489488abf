"""What the driver does after an attempt, verdict by verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.job.policy import next_move
from orchestrator.job.verdict import OutOfMemory, Verdict

FAILED = Verdict("failed", "the data is bad", rank=1)


def out_of_memory(size: int | None) -> Verdict:
    return replace(FAILED, out_of_memory=OutOfMemory(micro_batch_size=size))


@pytest.mark.parametrize(
    ("verdict", "history", "action", "why"),
    [
        pytest.param(Verdict("done", "trained"), (), "stop", "", id="done"),
        pytest.param(Verdict("stopped", "saved"), (), "stop", "", id="saved when asked"),
        pytest.param(FAILED, (), "stop", "", id="an error of the user's code would come again"),
        pytest.param(out_of_memory(8), (), "relaunch", "smaller micro-batches", id="memory"),
        pytest.param(out_of_memory(4), (out_of_memory(8),), "relaunch", "smaller micro-batches", id="memory again"),
        pytest.param(out_of_memory(8), (out_of_memory(8),), "stop", "no smaller micro-batch than", id="no progress"),
        pytest.param(out_of_memory(1), (out_of_memory(2),), "stop", "activation_checkpointing: true", id="one sample"),
        pytest.param(out_of_memory(None), (), "stop", "no smaller micro-batch helps", id="not in a micro-batch"),
        pytest.param(
            replace(out_of_memory(8), asked_by="SIGTERM"), (), "stop", "", id="somebody has asked for the end"
        ),
        pytest.param(
            replace(FAILED, out_of_memory=OutOfMemory(is_command=True)), (), "stop", "the command owns", id="a command"
        ),
    ],
)
def test_only_memory_that_smaller_micro_batches_may_mend_is_tried_again(
    verdict: Verdict, history: tuple[Verdict, ...], action: str, why: str
) -> None:
    move = next_move(verdict, history)
    assert move.action == action
    assert why in move.why and bool(why) == bool(move.why)
