"""How an attempt ended, judged from every kind of evidence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.hang import Hang
from orchestrator.job.evidence import Evidence, NodeReport, RankError
from orchestrator.job.judge import judge
from orchestrator.job.log_lines import last_lines
from orchestrator.job.verdict import OutOfMemory, verdict_from_json

ENDED = (NodeReport("node1", "ended", exit_code=1), NodeReport("node2", "ended", exit_code=1))
WELL = tuple(replace(node, exit_code=0) for node in ENDED)
TWO_BY_TWO = Evidence(exit_code=1, nodes=ENDED, gpus_per_node=2)


def with_failed(*, node1: tuple[tuple[int, int], ...] = (), node2: tuple[tuple[int, int], ...] = ()) -> Evidence:
    nodes = (replace(ENDED[0], failed_ranks=node1), replace(ENDED[1], failed_ranks=node2))
    return replace(TWO_BY_TWO, nodes=nodes)


def error(rank: int, message: str, *, kind: str = "ValueError", time: float = 10.0) -> RankError:
    return RankError(rank, kind, message, time)


STARVED_NODE = replace(TWO_BY_TWO, nodes=(ENDED[0], replace(ENDED[1], oom_kills=1)))
BEHIND = RankError(3, "NodesFailed", "preflight: node2: its clock is 9.0 s behind", 10.0, nodes=("node2",))


@pytest.mark.parametrize(
    ("evidence", "outcome", "reason"),
    [
        (replace(TWO_BY_TWO, done={"step": 9, "metrics": {"a": 1.0}}), "done", "trained to the end: step 9"),
        (
            replace(TWO_BY_TWO, stop={"step": 4, "signal": "SIGUSR2"}, nodes=WELL),
            "stopped",
            "saved at step 4 after SIGUSR2",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, is_command=True, nodes=WELL),
            "done",
            "the command ended with exit code 0 on every rank",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, nodes=WELL),
            "failed",
            "every rank ended with exit code 0, but rank 0 left no done.json",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, nodes=WELL, opens_session=True),
            "failed",
            "every rank ended with exit code 0, but rank 0 left no done.json: the command opened no session, "
            "or did not end it; use orchestrator.worker.session, or take the datasets away",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, nodes=WELL, opens_session=True, done={"step": 9}),
            "done",
            "trained to the end: step 9",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, nodes=WELL, opens_session=True, stop={"step": 4, "signal": "SIGTERM"}),
            "stopped",
            "saved at step 4 after SIGTERM",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, asked="SIGTERM", opens_session=True),
            "failed",
            "asked to stop (SIGTERM), but the ranks ended before they had saved",
        ),
        (
            replace(TWO_BY_TWO, asked="SIGTERM"),
            "failed",
            "asked to stop (SIGTERM), but the ranks ended before they had saved",
        ),
        (
            replace(TWO_BY_TWO, exit_code=0, asked="SIGTERM", is_command=True),
            "failed",
            "asked to stop (SIGTERM), but the command left no stop.json",
        ),
        (TWO_BY_TWO, "failed", "torchrun failed on node1; see its log"),
        (
            replace(TWO_BY_TWO, exit_code=137, nodes=(NodeReport("node1", "ended", exit_code=0),)),
            "failed",
            "the step ended with exit code 137",
        ),
        (
            replace(TWO_BY_TWO, exit_code=-9, nodes=()),
            "failed",
            "the step was killed by SIGKILL (out of memory, or killed by hand)",
        ),
    ],
)
def test_the_outcome_comes_from_files_and_the_reason_is_one_line(evidence: Evidence, outcome: str, reason: str) -> None:
    verdict = judge(evidence, lambda rank: "")
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_a_node_that_failed_before_anybody_asked_makes_it_a_failure_though_the_others_saved() -> None:
    """torchrun ends the ranks beside a killed one by SIGTERM, and a rank that needs no other may save then."""
    nodes = (replace(ENDED[0], asked="SIGTERM"), replace(ENDED[1], failed_ranks=((3, -9),)))
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes, stop={"step": 4, "signal": "SIGTERM"}), lambda rank: "")
    assert (verdict.outcome, verdict.rank, verdict.step) == ("failed", 3, 4)


def test_slurm_may_ask_the_nodes_alone() -> None:
    nodes = tuple(replace(node, asked="SIGUSR2") for node in ENDED)
    saved = judge(replace(TWO_BY_TWO, nodes=nodes, stop={"step": 4, "signal": "SIGUSR2"}), lambda rank: "")
    unsaved = judge(replace(TWO_BY_TWO, nodes=nodes), lambda rank: "")
    assert saved.outcome == "stopped"
    assert unsaved.reason == "asked to stop (SIGUSR2), but the ranks ended before they had saved"


def test_ranks_that_met_their_deadline_have_saved_whatever_befell_a_node_then() -> None:
    """Nobody asked them, so a node that stumbles at the end would else count as a failure."""
    for nodes in (WELL, ENDED):
        verdict = judge(replace(TWO_BY_TWO, nodes=nodes, stop={"step": 4, "deadline": True}), lambda rank: "")
        assert (verdict.outcome, verdict.cause, verdict.step) == ("stopped", "time_limit", 4)
        assert verdict.reason == "saved at step 4, as the job's time was nearly up"
    cancelled = replace(TWO_BY_TWO, nodes=WELL, stop={"step": 4, "deadline": True}, job_end="cancelled")
    assert judge(cancelled, lambda rank: "").cause == "cancelled"


def test_done_carries_the_last_metrics_even_when_torchrun_stumbled_at_the_end() -> None:
    verdict = judge(replace(TWO_BY_TWO, done={"step": 9, "metrics": {"heldout/accuracy": 0.97}}), lambda rank: "")
    assert verdict.metrics == {"heldout/accuracy": 0.97} and verdict.step == 9


@pytest.mark.parametrize(
    ("evidence", "rank", "node", "reason"),
    [
        pytest.param(
            replace(TWO_BY_TWO, errors=(error(0, "late", time=11.0), error(3, "data.py:4: ValueError: bad"))),
            3,
            "node2",
            "rank 3 on node2: data.py:4: ValueError: bad",
            id="the first error by time",
        ),
        pytest.param(
            replace(TWO_BY_TWO, errors=(error(0, "gone", kind="PeerLost", time=9.0), error(2, "mine"))),
            2,
            "node2",
            "rank 2 on node2: mine",
            id="an error of one's own before one that only notices another's",
        ),
        pytest.param(
            replace(with_failed(node2=((3, -9),)), errors=(error(0, "gone", kind="PeerLost"),)),
            3,
            "node2",
            "rank 3 on node2 was killed by SIGKILL (out of memory, or killed by hand)",
            id="a killed rank says nothing, the others' errors come of it",
        ),
        pytest.param(
            with_failed(node1=((0, -15),), node2=((2, 3),)),
            0,
            "node1",
            "rank 0 on node1 was killed by SIGTERM",
            id="torchrun's own word, when nobody left another",
        ),
        pytest.param(
            replace(with_failed(node2=((2, 3),)), asked="SIGTERM"),
            2,
            "node2",
            "rank 2 on node2 ended with exit code 3",
            id="a rank's failure explains more than the signal before it",
        ),
    ],
)
def test_the_rank_that_failed_first_is_named(evidence: Evidence, rank: int, node: str, reason: str) -> None:
    verdict = judge(evidence, lambda asked: f"last words of {asked}\n")
    assert (verdict.outcome, verdict.rank, verdict.node, verdict.reason) == ("failed", rank, node, reason)
    assert verdict.last_lines == (f"last words of {rank}",)


def test_a_rank_that_ran_out_of_memory_explains_whatever_befell_the_others() -> None:
    """Clocks of nodes differ, and torchrun may have had to kill a rank that was waiting."""
    memory = OutOfMemory(micro_batch_size=8, step=5)
    ran_out = replace(error(2, "step 5: out of memory", kind="OutOfMemory", time=12.0), memory=memory)
    errors = (error(0, "NCCL: remote error", kind="DistBackendError", time=11.0), ran_out)
    verdict = judge(replace(with_failed(node1=((1, -9),)), errors=errors), lambda rank: "")
    assert (verdict.rank, verdict.reason) == (2, "rank 2 on node2: step 5: out of memory")
    assert verdict.out_of_memory == memory and verdict.as_json(ended_at=0.0)["out_of_memory"]["step"] == 5


def test_a_rank_that_the_kernel_killed_for_want_of_host_memory_is_a_failure_that_says_so() -> None:
    evidence = with_failed(node2=((3, -9),))
    verdict = judge(replace(evidence, nodes=(ENDED[0], replace(evidence.nodes[1], oom_kills=1))), lambda rank: "")
    assert verdict.out_of_memory is None
    assert verdict.reason == (
        "rank 3 on node2 was killed by SIGKILL while the kernel killed for want of host memory: "
        "raise resources.memory, or lower loader.workers"
    )


def test_a_command_that_ran_out_of_memory_is_known_by_its_last_line() -> None:
    log = "Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory. Tried 2.00 GiB.\n"
    verdict = judge(replace(with_failed(node1=((1, 1),)), is_command=True), lambda rank: log)
    assert verdict.out_of_memory == OutOfMemory(is_command=True)
    other = judge(replace(with_failed(node1=((1, 1),)), is_command=True), lambda rank: "KeyError: 'x'\n")
    assert other.out_of_memory is None


def test_a_session_that_ran_out_of_memory_says_so_in_its_error_file_or_cannot_be_helped_by_smaller_micro_batches() -> (
    None
):
    memory = OutOfMemory(micro_batch_size=8, step=5)
    told = replace(error(1, "step 5: out of memory", kind="OutOfMemory"), memory=memory)
    evidence = replace(with_failed(node1=((1, 1),)), opens_session=True)
    assert judge(replace(evidence, errors=(told,)), lambda rank: "").out_of_memory == replace(
        memory, opens_session=True
    )
    before_it = judge(evidence, lambda rank: "torch.OutOfMemoryError: CUDA out of memory. Tried 2.00 GiB.\n")
    assert before_it.out_of_memory == OutOfMemory(micro_batch_size=None, is_command=False)


def test_a_plain_script_that_raises_is_quoted() -> None:
    log = "hello\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    boom()\nKeyError: 'x'\n"
    verdict = judge(with_failed(node1=((1, 1),)), lambda rank: log)
    assert verdict.reason == "rank 1 on node1 ended with exit code 1: KeyError: 'x'"
    assert verdict.last_lines == ("hello", "KeyError: 'x'")


@pytest.mark.parametrize(
    ("nodes", "killed", "node", "reason"),
    [
        pytest.param(
            (ENDED[0], NodeReport("node2", "ended", failed_check="gpus failed: 1 visible, 2 planned; exclude it")),
            (),
            "node2",
            "node2: check of the gpus failed: 1 visible, 2 planned; exclude it",
            id="a failed check",
        ),
        pytest.param(
            (ENDED[0], NodeReport("node2")),
            (),
            "node2",
            "the supervisor of node2 did not start; see the job's log",
            id="no file",
        ),
        pytest.param(
            ENDED,
            ("node2",),
            "node2",
            "the supervisor of node2 was killed by SIGKILL (out of memory, or killed by hand)",
            id="killed",
        ),
    ],
)
def test_a_node_that_failed_is_named(
    nodes: tuple[NodeReport, ...], killed: tuple[str, ...], node: str, reason: str
) -> None:
    evidence = replace(TWO_BY_TWO, exit_code=-9 if killed else 1, nodes=nodes, killed_nodes=killed)
    verdict = judge(evidence, lambda rank: "")
    assert (verdict.outcome, verdict.rank, verdict.node, verdict.reason) == ("failed", None, node, reason)


def test_a_supervisor_that_fell_silent_is_named() -> None:
    nodes = tuple(NodeReport(name, "running") for name in ("node1", "node2"))
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes, silent_nodes=("node2",)), lambda rank: "")
    assert (verdict.node, verdict.reason) == ("node2", "the supervisor of node2 fell silent")


def test_the_last_lines_leave_out_blank_lines_and_the_frames_of_a_traceback() -> None:
    log = "\n".join(
        [
            *(f"step {step}" for step in range(9)),
            "",
            "Traceback (most recent call last):",
            '  File "train.py", line 3, in <module>',
            "    main()",
            "    ^^^^^^",
            '  File "train.py", line 2, in main',
            '    raise ValueError("bad")',
            "ValueError: bad",
            "    indented, but told by the program",
        ]
    )
    assert last_lines(log) == ("step 6", "step 7", "step 8", "ValueError: bad", "    indented, but told by the program")


CUT_OFF = (ENDED[0], NodeReport("node2", "running"))


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (replace(TWO_BY_TWO, done={"step": 9}), "done"),
        (replace(TWO_BY_TWO, exit_code=0, is_command=True, nodes=WELL), "done"),
        (replace(TWO_BY_TWO, stop={"step": 4, "signal": "SIGTERM"}, nodes=WELL), "asked"),
        (replace(TWO_BY_TWO, stop={"step": 4}, nodes=WELL, job_end="cancelled"), "cancelled"),
        (replace(TWO_BY_TWO, stop={"step": 4}, nodes=WELL, job_end="preempted"), "preempted"),
        (replace(TWO_BY_TWO, stop={"step": 4}, nodes=WELL, job_end="time_limit"), "time_limit"),
        (replace(TWO_BY_TWO, asked="SIGTERM", job_end="preempted"), "preempted"),
        (replace(TWO_BY_TWO, errors=(error(1, "bad"),)), "user_code"),
        (with_failed(node1=((1, 3),)), "user_code"),
        (replace(TWO_BY_TWO, exit_code=0, nodes=WELL), "user_code"),
        (replace(TWO_BY_TWO, errors=(error(1, "out of memory", kind="OutOfMemory"),)), "device_memory"),
        (
            replace(with_failed(node1=((1, -9),)), nodes=(replace(ENDED[0], failed_ranks=((1, -9),), oom_kills=1),)),
            "host_memory",
        ),
        (replace(TWO_BY_TWO, nodes=CUT_OFF, lost_nodes=("node2",)), "node_lost"),
        (replace(TWO_BY_TWO, nodes=CUT_OFF, lost_nodes=("node1", "node2")), "node_lost"),
        (with_failed(node1=((1, -9),)), "killed"),
        (with_failed(node1=((1, -11),)), "killed"),
        (replace(TWO_BY_TWO, exit_code=-9, killed_nodes=("node2",)), "killed"),
        (replace(TWO_BY_TWO, nodes=(replace(ENDED[0], exit_code=-9), ENDED[1])), "killed"),
        (replace(TWO_BY_TWO, exit_code=137, nodes=(replace(WELL[0], asked="SIGTERM"), CUT_OFF[1])), "killed"),
        (replace(TWO_BY_TWO, nodes=(ENDED[0], replace(ENDED[1], hang=Hang(3, "step", 40.0)))), "hung"),
        (replace(TWO_BY_TWO, errors=(error(0, "gone", kind="PeerLost"),)), "network"),
        (replace(TWO_BY_TWO, errors=(error(0, "refused", kind="DistNetworkError"),)), "network"),
        (replace(TWO_BY_TWO, errors=(error(2, "loader", kind="LoaderKilled"),)), "killed"),
        (replace(STARVED_NODE, errors=(error(2, "loader", kind="LoaderKilled"),)), "host_memory"),
        (replace(STARVED_NODE, errors=(error(0, "loader", kind="LoaderKilled"),)), "killed"),
        (replace(TWO_BY_TWO, errors=(error(0, "the loss is nan", kind="NonFiniteError"),)), "non_finite"),
        (replace(TWO_BY_TWO, errors=(error(0, "no room", kind="NoRoom"),)), "disk_full"),
        (replace(TWO_BY_TWO, nodes=(replace(ENDED[0], failed_check="gpus failed"),)), "failed_check"),
        (replace(TWO_BY_TWO, errors=(BEHIND,)), "failed_check"),
        (replace(TWO_BY_TWO, nodes=(ENDED[0], NodeReport("node2"))), "launch"),
        (TWO_BY_TWO, "unknown"),
    ],
)
def test_every_kind_of_end_has_its_cause(evidence: Evidence, cause: str) -> None:
    assert judge(evidence, lambda rank: "").cause == cause


def test_nodes_that_fell_behind_are_named_whichever_rank_says_so() -> None:
    told = replace(BEHIND, rank=0, nodes=("node2", "node1"))
    verdict = judge(replace(TWO_BY_TWO, errors=(error(1, "gone", kind="PeerLost", time=1.0), told)), lambda rank: "")
    assert (verdict.node, verdict.rank, verdict.failed_nodes) == ("node2", None, ("node2", "node1"))
    assert verdict.reason == "preflight: node2: its clock is 9.0 s behind"
    assert verdict_from_json(json.loads(json.dumps(verdict.as_json(ended_at=1.0)))) == verdict


def test_of_several_nodes_that_failed_their_check_one_is_told_and_all_are_to_blame() -> None:
    nodes = tuple(replace(node, failed_check=f"gpus failed on {node.name}") for node in ENDED)
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes), lambda rank: "")
    assert (verdict.reason, verdict.node) == ("node1: check of the gpus failed on node1", "node1")
    assert verdict.failed_nodes == ("node1", "node2")


def test_a_supervisor_that_was_killed_under_slurm_is_a_failure_though_the_other_ranks_saved_when_slurm_ended_them() -> (
    None
):
    nodes = (replace(WELL[0], asked="SIGTERM"), CUT_OFF[1])
    verdict = judge(
        replace(TWO_BY_TWO, exit_code=137, nodes=nodes, stop={"step": 4, "signal": "SIGTERM"}), lambda rank: ""
    )
    assert (verdict.outcome, verdict.node, verdict.step) == ("failed", "node2", 4)
    assert verdict.reason == "the supervisor of node2 was killed"


def test_a_rank_that_hung_is_told_with_what_it_was_at_and_the_file_that_shows_where() -> None:
    """Its supervisor has killed it, and the others lost it: that comes of it."""
    hung = replace(ENDED[1], hang=Hang(3, "step", 41.7, "logs/stack-3.txt"), failed_ranks=((3, -9),))
    gone = error(0, "gone", kind="PeerLost")
    verdict = judge(replace(TWO_BY_TWO, nodes=(ENDED[0], hung), errors=(gone,)), lambda rank: "")
    assert (verdict.rank, verdict.node) == (3, "node2")
    assert verdict.reason == "rank 3 on node2 gave no sign of life for 42 s in its step, see logs/stack-3.txt"


WAITS = Hang(0, "step", 62.0, step=7, since=900.0)
HELD = Hang(3, "step", 61.0, step=7, is_held=True, since=901.0)


@pytest.mark.parametrize(
    ("nodes", "rank"),
    [
        pytest.param((replace(ENDED[0], hang=WAITS), replace(ENDED[1], hang=HELD)), 3, id="both have told"),
        pytest.param((replace(ENDED[0], hang=WAITS), replace(ENDED[1], silent=HELD)), 3, id="one had no time to"),
        pytest.param((replace(ENDED[0], silent=WAITS), replace(ENDED[1], hang=HELD)), 3, id="one only waited"),
    ],
)
def test_of_several_nodes_that_hang_the_rank_is_named_that_the_others_wait_for(
    nodes: tuple[NodeReport, ...], rank: int
) -> None:
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes), lambda rank: "")
    assert (verdict.cause, verdict.rank, verdict.failed_step) == ("hung", rank, 8)


def test_a_rank_that_waited_for_a_node_whose_supervisor_says_nothing_did_not_hang() -> None:
    silent = NodeReport("node2", "running")
    nodes = (replace(ENDED[0], hang=WAITS), silent)
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes, silent_nodes=("node2",)), lambda rank: "")
    assert (verdict.cause, verdict.node) == ("killed", "node2")


def test_silence_alone_is_no_hang_where_something_else_ended_the_attempt() -> None:
    nodes = (replace(ENDED[0], silent=WAITS), ENDED[1])
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes, errors=(error(3, "bad"),)), lambda rank: "")
    assert (verdict.cause, verdict.rank) == ("user_code", 3)


def test_a_rank_that_hung_before_its_first_step_was_at_no_step() -> None:
    nodes = (replace(ENDED[0], hang=Hang(1, "start", 905.0)), ENDED[1])
    assert judge(replace(TWO_BY_TWO, nodes=nodes), lambda rank: "").failed_step is None


def test_a_verdict_survives_its_file() -> None:
    verdict = judge(replace(TWO_BY_TWO, errors=(replace(error(1, "bad"), step=7),)), lambda rank: "a\nb\n")
    verdict = replace(verdict, out_of_memory=OutOfMemory(8), left_out=("node2",), checkpoint_step=5)
    told = json.loads(json.dumps(verdict.as_json(ended_at=1.0)))
    assert verdict_from_json(told) == verdict and verdict.failed_step == 7


@pytest.mark.parametrize(
    ("errors", "cause"),
    [
        ((), "disk_full"),
        ((error(1, "gone", kind="PeerLost"), error(0, "no room", kind="NoRoom")), "disk_full"),
        ((error(1, "no such key"),), "user_code"),
    ],
    ids=["nobody could tell", "a rank tells", "a rank tells of something else"],
)
def test_a_full_disk_explains_an_end_without_words(errors: tuple[RankError, ...], cause: str) -> None:
    cut_off = tuple(NodeReport(name, "running") for name in ("node1", "node2"))
    evidence = replace(TWO_BY_TWO, nodes=cut_off, errors=errors, no_room="No space left on device")
    verdict = judge(evidence, lambda rank: "")
    assert (verdict.outcome, verdict.cause) == ("failed", cause)
    assert cause != "disk_full" or verdict.reason.endswith("cannot be written any more: No space left on device")


@pytest.mark.parametrize(("phase", "failed_step"), [("start", None), ("preflight", None), ("step", 1)])
def test_a_rank_that_hangs_before_its_first_step_failed_at_none(phase: str, failed_step: int | None) -> None:
    nodes = (replace(ENDED[0], hang=Hang(0, phase, 5.0)), ENDED[1])
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes), lambda rank: "")
    assert (verdict.cause, verdict.failed_step) == ("hung", failed_step)
