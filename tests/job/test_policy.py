"""What the driver does after an attempt, verdict by verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.policy import (
    MOST_WITHOUT_CHECKPOINT,
    RELAUNCHES,
    Circumstances,
    Move,
    next_move,
    without_progress,
)
from orchestrator.job.verdict import Cause, OutOfMemory, Verdict

CAUSES: tuple[Cause, ...] = get_args(Cause)
QUEUE = Circumstances(has_queue=True, nodes=("node1", "node2"))
LOCAL = Circumstances(nodes=("here",))
FAILED = Verdict("failed", "rank 1 on node1: the data is bad", rank=1, node="node1", cause="user_code", failed_step=7)
KILLED = Verdict("failed", "rank 3 on node2 was killed by SIGKILL", rank=3, node="node2", cause="killed")
HUNG = replace(KILLED, cause="hung")
LOST = Verdict("failed", "node2 is lost", node="node2", cause="node_lost")
PREEMPTED = Verdict("stopped", "saved at step 4 after SIGTERM", step=4, cause="preempted")
NETWORK = Verdict("failed", "rank 0 on node1: another rank ended first", rank=0, node="node1", cause="network")
ELSEWHERE = "node2 is the first node; goes on elsewhere from the newest checkpoint"
AGAIN = "started again from the newest checkpoint"


def out_of_memory(size: int | None) -> Verdict:
    return replace(FAILED, cause="device_memory", out_of_memory=OutOfMemory(micro_batch_size=size))


def at(step: int, verdict: Verdict) -> Verdict:
    """The verdict on an attempt that left a checkpoint at `step`."""
    return replace(verdict, checkpoint_step=step)


@pytest.mark.parametrize(
    ("verdict", "past", "around", "move"),
    [
        pytest.param(Verdict("done", "trained", cause="done"), (), QUEUE, Move("stop"), id="done"),
        pytest.param(Verdict("stopped", "saved", cause="asked"), (), QUEUE, Move("stop"), id="asked by a person"),
        pytest.param(Verdict("stopped", "saved", cause="cancelled"), (), QUEUE, Move("stop"), id="cancelled"),
        pytest.param(KILLED, (), replace(QUEUE, is_cancelled=True), Move("stop"), id="killed, and cancelled meanwhile"),
        pytest.param(PREEMPTED, (), replace(QUEUE, is_cancelled=True), Move("stop"), id="preempted, and cancelled"),
        pytest.param(replace(KILLED, asked_by="SIGTERM"), (), QUEUE, Move("stop"), id="asked to end, and then failed"),
        pytest.param(
            PREEMPTED,
            (),
            QUEUE,
            Move("requeue", "preempted; goes on from the newest checkpoint"),
            id="preempted, where there is a queue",
        ),
        pytest.param(
            replace(PREEMPTED, outcome="failed", asked_by="SIGTERM"),
            (PREEMPTED,) * 9,
            QUEUE,
            Move("requeue", "preempted; goes on from the newest checkpoint"),
            id="preempted too fast to save, however often",
        ),
        pytest.param(
            replace(PREEMPTED, cause="time_limit"),
            (),
            QUEUE,
            Move("requeue", "its time was up; goes on from the newest checkpoint"),
            id="no time left",
        ),
        pytest.param(
            replace(PREEMPTED, outcome="failed", cause="time_limit"),
            (replace(PREEMPTED, outcome="failed", cause="time_limit"),) * 2,
            QUEUE,
            Move("stop", "no new checkpoint in 3 attempts: raise resources.walltime"),
            id="a time that never suffices for a checkpoint",
        ),
        pytest.param(
            at(30, replace(PREEMPTED, cause="time_limit")),
            (at(10, replace(PREEMPTED, cause="time_limit")), at(20, replace(PREEMPTED, cause="time_limit"))),
            QUEUE,
            Move("requeue", "its time was up; goes on from the newest checkpoint"),
            id="as many times as it needs, while it gets on",
        ),
        pytest.param(
            replace(KILLED, node="node1"),
            (replace(KILLED, node="node1"),),
            QUEUE,
            Move("requeue", ELSEWHERE.replace("node2", "node1"), ("node1",)),
            id="killed twice on the driver's own node",
        ),
        pytest.param(replace(PREEMPTED, cause="time_limit"), (), LOCAL, Move("stop"), id="no queue to go back to"),
        pytest.param(KILLED, (), QUEUE, Move("relaunch", AGAIN), id="a killed rank: on the same nodes"),
        pytest.param(
            KILLED,
            (KILLED,),
            QUEUE,
            Move("relaunch", f"{AGAIN}, without node2", ("node2",)),
            id="killed twice on one node: without it",
        ),
        pytest.param(KILLED, (replace(KILLED, node="node1"),), QUEUE, Move("relaunch", AGAIN), id="on different nodes"),
        pytest.param(
            HUNG,
            (HUNG,),
            replace(QUEUE, nodes=("node2",)),
            Move("requeue", ELSEWHERE, ("node2",)),
            id="the last node hangs",
        ),
        pytest.param(
            replace(KILLED, node="here"),
            (replace(KILLED, node="here"),),
            LOCAL,
            Move("relaunch", AGAIN),
            id="no other node at all",
        ),
        pytest.param(
            LOST, (), QUEUE, Move("relaunch", f"{AGAIN}, without node2", ("node2",)), id="a lost node shrinks the job"
        ),
        pytest.param(
            LOST, (), replace(QUEUE, nodes=("node2",)), Move("requeue", ELSEWHERE, ("node2",)), id="the only node"
        ),
        pytest.param(
            replace(LOST, cause="failed_check", reason="node2: check of the gpus failed"),
            (),
            QUEUE,
            Move("relaunch", f"{AGAIN}, without node2", ("node2",)),
            id="a node that fails its check",
        ),
        pytest.param(
            replace(LOST, cause="failed_check", failed_nodes=("node2", "node4")),
            (),
            replace(QUEUE, nodes=("node1", "node2", "node3", "node4")),
            Move("relaunch", f"{AGAIN}, without node2, node4", ("node2", "node4")),
            id="two that fail it, at once",
        ),
        pytest.param(
            replace(LOST, cause="failed_check", failed_nodes=("node2", "node1")),
            (),
            QUEUE,
            Move("requeue", ELSEWHERE.replace("node2", "node1"), ("node2", "node1")),
            id="the first node among them",
        ),
        pytest.param(replace(LOST, cause="failed_check", node="here"), (), LOCAL, Move("stop"), id="of one node"),
        pytest.param(
            replace(LOST, lost_nodes=("node2", "node3", "node4")),
            (),
            replace(QUEUE, nodes=("node1", "node2", "node3", "node4", "node5")),
            Move("relaunch", f"{AGAIN}, without node2, node3, node4", ("node2", "node3", "node4")),
            id="a whole rack, at once",
        ),
        pytest.param(
            replace(LOST, lost_nodes=("node2", "node1")),
            (),
            QUEUE,
            Move("requeue", ELSEWHERE.replace("node2", "node1"), ("node2", "node1")),
            id="every node, the driver's too",
        ),
        pytest.param(NETWORK, (NETWORK,), QUEUE, Move("relaunch", AGAIN), id="nobody is to blame for the network"),
        pytest.param(FAILED, (), QUEUE, Move("relaunch", AGAIN), id="an error of the user's code, once"),
        pytest.param(
            at(9, FAILED),
            (at(5, replace(FAILED, reason="rank 0 on node2: the data is bad", failed_step=3)),),
            QUEUE,
            Move("stop", "the same error twice"),
            id="the same error, though it got on in between",
        ),
        pytest.param(
            FAILED,
            (replace(FAILED, reason="rank 1 on node1: the disk is slow"),),
            QUEUE,
            Move("stop", "2 attempts ended like this without a new checkpoint"),
            id="another error, without a checkpoint in between",
        ),
        pytest.param(
            at(9, FAILED),
            (at(5, replace(FAILED, reason="rank 1 on node1: the disk is slow")),),
            QUEUE,
            Move("relaunch", AGAIN),
            id="another error, and it gets on",
        ),
        pytest.param(replace(FAILED, failed_step=None), (), QUEUE, Move("stop"), id="before the first step"),
        pytest.param(replace(FAILED, cause="non_finite"), (), QUEUE, Move("stop"), id="a loss that is no number"),
        pytest.param(replace(FAILED, cause="disk_full"), (), QUEUE, Move("stop"), id="a full disk"),
        pytest.param(
            KILLED,
            (NETWORK, HUNG),
            QUEUE,
            Move("stop", "no new checkpoint in 3 attempts"),
            id="a crash loop of any causes",
        ),
        pytest.param(
            at(30, KILLED),
            (at(10, NETWORK), at(20, HUNG)),
            QUEUE,
            Move("relaunch", AGAIN),
            id="it gets on all the while",
        ),
        pytest.param(
            replace(KILLED, cause="host_memory"),
            (replace(KILLED, cause="host_memory", node="node1"),),
            QUEUE,
            Move("stop", "2 attempts ended like this without a new checkpoint"),
            id="host memory, twice",
        ),
        pytest.param(
            KILLED, (), replace(QUEUE, resumes=False), Move("stop"), id="a plain command is not started again"
        ),
        pytest.param(
            replace(KILLED, cause="launch", node=None),
            (),
            replace(QUEUE, resumes=False),
            Move("relaunch", "started again: no rank had begun"),
            id="but where it had not begun: a controller did not answer, a supervisor did not start",
        ),
        pytest.param(
            replace(KILLED, cause="failed_check"),
            (),
            replace(QUEUE, resumes=False),
            Move("relaunch", "started again: no rank had begun"),
            id="nor where a node's check failed: a port was taken, say; it keeps its nodes",
        ),
        pytest.param(
            replace(KILLED, cause="launch", node=None),
            (),
            Circumstances(resumes=False),
            Move("stop"),
            id="what it needs to start at all is missing",
        ),
    ],
)
def test_the_move_follows_from_the_verdict_the_budgets_and_the_nodes(
    verdict: Verdict, past: tuple[Verdict, ...], around: Circumstances, move: Move
) -> None:
    assert next_move(verdict, past, around) == move


@pytest.mark.parametrize(
    ("verdict", "history", "action", "why"),
    [
        pytest.param(out_of_memory(8), (), "relaunch", "smaller micro-batches", id="memory"),
        pytest.param(out_of_memory(4), (out_of_memory(8),), "relaunch", "smaller micro-batches", id="memory again"),
        pytest.param(out_of_memory(8), (out_of_memory(8),), "stop", "no smaller micro-batch than", id="no progress"),
        pytest.param(out_of_memory(1), (out_of_memory(2),), "stop", "activation_checkpointing: true", id="one sample"),
        pytest.param(out_of_memory(None), (), "stop", "no smaller micro-batch helps", id="not in a micro-batch"),
        pytest.param(
            replace(out_of_memory(8), asked_by="SIGTERM"), (), "stop", "", id="somebody has asked for the end"
        ),
        pytest.param(
            replace(FAILED, out_of_memory=OutOfMemory(8, opens_session=True)), (), "relaunch", "smaller", id="a session"
        ),
        pytest.param(
            replace(FAILED, out_of_memory=OutOfMemory(1, opens_session=True)),
            (),
            "stop",
            "use torch.utils.checkpoint in the script, shorter samples",
            id="one sample of a session",
        ),
        pytest.param(
            replace(FAILED, out_of_memory=OutOfMemory(is_command=True)), (), "stop", "the command owns", id="a command"
        ),
    ],
)
def test_memory_is_tried_again_where_smaller_micro_batches_may_help(
    verdict: Verdict, history: tuple[Verdict, ...], action: str, why: str
) -> None:
    move = next_move(verdict, history)
    assert move.action == action
    assert why in move.why and bool(why) == bool(move.why)


def test_smaller_micro_batches_are_no_part_of_a_crash_loop() -> None:
    past = (out_of_memory(8), out_of_memory(4), KILLED)
    assert without_progress(past, None) == (KILLED,)
    assert next_move(KILLED, past, QUEUE).action == "relaunch"


def verdicts(causes: Iterable[Cause]) -> st.SearchStrategy[Verdict]:
    return st.builds(
        Verdict,
        outcome=st.just("failed"),
        reason=st.sampled_from(["rank 0: a", "rank 1: a", "rank 1: b"]),
        node=st.sampled_from([None, "node1", "node2"]),
        cause=st.sampled_from(list(causes)),
        failed_step=st.sampled_from([None, 1, 2]),
    )


@given(st.lists(verdicts(CAUSES), min_size=20, max_size=20), st.booleans())
def test_whatever_befalls_a_run_that_never_saves_it_has_no_more_than_three_failures_of_its_own(
    told: list[Verdict], has_queue: bool
) -> None:
    failures, past = 0, list[Verdict]()
    for verdict in told:
        failures += verdict.cause != "preempted"
        if next_move(verdict, past, replace(QUEUE, has_queue=has_queue)).action == "stop":
            break
        past.append(verdict)
    assert failures <= MOST_WITHOUT_CHECKPOINT


@given(st.lists(verdicts(RELAUNCHES.keys() - {"user_code"}), min_size=9))
def test_a_run_that_saves_in_every_attempt_is_never_stopped_by_the_cluster(told: list[Verdict]) -> None:
    past = list[Verdict]()
    for step, verdict in enumerate(told, start=1):
        assert next_move(at(step, verdict), past, QUEUE).action != "stop"
        past.append(at(step, verdict))
