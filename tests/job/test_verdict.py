"""How an attempt ended, judged from every kind of evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.job.verdict import Evidence, NodeReport, OutOfMemory, RankError, judge, last_lines

ENDED = (NodeReport("node1", "ended", exit_code=1), NodeReport("node2", "ended", exit_code=1))
WELL = tuple(replace(node, exit_code=0) for node in ENDED)
TWO_BY_TWO = Evidence(exit_code=1, nodes=ENDED, gpus_per_node=2, now=1000.0)


def with_failed(*, node1: tuple[tuple[int, int], ...] = (), node2: tuple[tuple[int, int], ...] = ()) -> Evidence:
    nodes = (replace(ENDED[0], failed_ranks=node1), replace(ENDED[1], failed_ranks=node2))
    return replace(TWO_BY_TWO, nodes=nodes)


def error(rank: int, message: str, *, kind: str = "ValueError", time: float = 10.0) -> RankError:
    return RankError(rank, kind, message, time)


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


def test_a_supervisor_that_fell_silent_is_named_with_the_time() -> None:
    heartbeats = {"node1": 999.0, "node2": 900.0}
    nodes = tuple(NodeReport(name, "running", heartbeat_at=at) for name, at in heartbeats.items())
    verdict = judge(replace(TWO_BY_TWO, nodes=nodes), lambda rank: "")
    assert verdict.node == "node2" and verdict.reason.startswith("the supervisor of node2 is silent since ")


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
