"""A run's description in MLflow: its attempts as a Markdown table, below a person's own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.run_dir import RunDir
from orchestrator.tracking.attempts import read_history
from orchestrator.tracking.description import MOST_ROWS, TITLE, Description, attempts_markdown, with_attempts
from orchestrator.tracking.forwarder import Forwarder, Interrupted
from orchestrator.tracking.mlflow_sink import DESCRIPTION, MlflowSink
from orchestrator.tracking.redact import HIDDEN, Redactor
from orchestrator.tracking.step_times import StepTimes
from orchestrator.tracking.stragglers import Straggler
from tests.support.attempts import even_steps, journal_steps, journal_straggler, leave_attempt
from tests.support.forwarding import Store

BEGAN = 1_700_000_000
SLOW = Straggler(3, "node2", "compute", times_median=1.83, cost=0.3121, since_step=40)


def markdown(run: RunDir, *secrets: str) -> str:
    return attempts_markdown(read_history(run, StepTimes(run.path)), Redactor(secrets))


def lose_a_node(run: RunDir, reason: str = "node2 is lost") -> None:
    """An attempt of sixty steps, the last ten of them for nothing."""
    steps = even_steps(1, 60, begins_at=BEGAN + 10)
    ended = {"outcome": "failed", "cause": "node_lost", "reason": reason, "then": "attempt 001: on node1"}
    leave_attempt(run, started_at=BEGAN, steps=steps, ended_at=BEGAN + 85, **ended)


def go_on(run: RunDir) -> None:
    """The attempt that trains to the end."""
    steps = even_steps(51, 100, begins_at=BEGAN + 120)
    done = {"outcome": "done", "cause": "done", "reason": "trained to the end: step 100"}
    leave_attempt(run, started_at=BEGAN + 90, steps=steps, nodes=["node1"], ended_at=BEGAN + 200, **done)


def test_the_table_of_two_attempts(tmp_path: Path) -> None:
    lose_a_node(run := RunDir(tmp_path))
    go_on(run)
    assert markdown(run) == (
        f"{TITLE}\n"
        "\n"
        "| Attempt | Started (UTC) | Job | Nodes | Steps | Lost | Restart | Why it ended |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| 0 | 2023-11-14 22:13:20 | 41 | node1,node2 | 1-60 | 10 | 51 s | a node was lost: node2 is lost |\n"
        "| 1 | 2023-11-14 22:14:50 | 41 | node1 | 51-100 | 0 | - | trained to the end: step 100 |\n"
        "\n"
        "Effective training time ratio 0.500: 100 s of steps that count in 200 s.\n"
    )


def test_what_comes_next_is_told_as_long_as_nothing_has_come(tmp_path: Path) -> None:
    lose_a_node(run := RunDir(tmp_path))
    assert "| a node was lost: node2 is lost; then attempt 001: on node1 |" in markdown(run)
    leave_attempt(run, started_at=BEGAN + 90)
    assert "| a node was lost: node2 is lost |" in markdown(run) and "| no verdict yet |" in markdown(run)
    assert "ratio" not in markdown(run)


def test_values_are_text_and_neither_markdown_nor_html_nor_secrets(tmp_path: Path) -> None:
    lose_a_node(
        run := RunDir(tmp_path), "loss.py:3: f|g <b>**x**</b>\n`y` [z](u) & __init__ token=hunter2hunter2 geheim"
    )
    row = next(line for line in markdown(run, "geheim").splitlines() if "a node was lost" in line)
    assert r"f\|g &lt;b&gt;\*\*x\*\*&lt;/b&gt; \`y\` \[z\](u) &amp; \_\_init\_\_" in row
    assert (
        "hunter2" not in row and "geheim" not in row and row.count(HIDDEN.replace("[", r"\[").replace("]", r"\]")) == 2
    )
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


def test_a_long_history_is_told_from_its_end_and_fits_into_a_tag(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    nodes = [f"cluster-node{number:04}" for number in range(64)]
    for number in range(57):
        leave_attempt(run, started_at=BEGAN + number, nodes=nodes, outcome="failed", cause="killed", reason="x|" * 500)
    text = markdown(run)
    assert f"Not shown: attempts before, {57 - MOST_ROWS} of them." in text and len(text) < 8000
    assert "\n| 37 |" in text and "\n| 36 |" not in text
    assert "cluster-node0000,cluster-node0001,cluster-node0002 and 61 more" in text


def test_a_persons_own_words_stay_above_the_table() -> None:
    first, second = f"{TITLE}\n\n| 0 |\n", f"{TITLE}\n\n| 1 |\n"
    assert with_attempts("", first) == first
    assert with_attempts(first, second) == second
    told = with_attempts("Compare this with *run 7*.\n", first)
    assert told == f"Compare this with *run 7*.\n\n{first}"
    assert with_attempts(told, second) == f"Compare this with *run 7*.\n\n{second}"


def test_there_is_news_when_an_attempt_begins_makes_its_first_step_and_ends(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    description = Description(run, Redactor())
    assert description.news() is None
    lose_a_node(run)
    assert "1-60" in (description.news() or "") and description.news() is None
    leave_attempt(run, started_at=BEGAN + 90)
    assert "no verdict yet" in (description.news() or "") and description.news() is None
    journal_steps(run, 1, even_steps(51, 52, begins_at=BEGAN + 120))
    assert "| 10 | 51 s |" in (description.news() or "")
    journal_steps(run, 1, even_steps(53, 54, begins_at=BEGAN + 122))
    assert description.news() is None
    (run.attempt(1).verdict).write_text(
        '{"outcome": "failed", "reason": "no", "cause": "unknown", "ended_at": 1700000200}'
    )
    assert "| 51-54 |" in (description.news() or "") and description.news() is None


def test_a_slow_rank_stands_below_the_table_as_long_as_its_attempt_is_the_last(
    new_run: Callable[..., RunDir], database: Path
) -> None:
    """A forwarder that is at work tells it as soon as the journal has it, and its end."""
    run = new_run()
    leave_attempt(run, started_at=BEGAN, steps=even_steps(1, 60, begins_at=BEGAN + 10))
    told: list[str] = []

    def pause(_: float) -> bool:
        """Between two looks at the journal it gets something more."""
        told.append(Store(database, run).tags[DESCRIPTION])
        if len(told) < 3:
            journal_straggler(run, 0, SLOW if len(told) == 1 else replace(SLOW, until_step=55))
        return len(told) == 3

    with pytest.raises(Interrupted):
        Forwarder(run, patience_s=0.0, pause=pause, say=lambda _: None).follow()
    line = "rank 3 on node2 {} slow at computing: 1.8 x the median of all ranks, at least 31% of each step ({}).\n"
    assert "slow" not in told[0]
    assert told[1].endswith(" |\n\n" + line.format("is", "since step 40"))
    assert told[2].endswith(" |\n\n" + line.format("was", "steps 40 to 55"))
    leave_attempt(run, started_at=BEGAN + 90)
    assert "slow" not in markdown(run)


def test_the_forwarder_keeps_the_table_in_the_runs_description(new_run: Callable[..., RunDir], database: Path) -> None:
    lose_a_node(run := new_run())

    def drain() -> str:
        Forwarder(run, patience_s=0.0, pause=lambda _: False, say=lambda _: None).drain()
        return Store(database, run).tags[DESCRIPTION]

    assert drain() == markdown(run)
    sink, store = MlflowSink(f"sqlite:///{database}"), Store(database, run)
    sink.set_tags(store.run_id, {DESCRIPTION: "Mine.\n\n" + store.tags[DESCRIPTION]})
    go_on(run)
    assert drain() == f"Mine.\n\n{markdown(run)}" and "Effective training time ratio 0.500" in drain()
