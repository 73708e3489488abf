"""From records to points: keys that MLflow takes, and the first value of every (key, step)."""

import math
import posixpath
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tracking.replay import Batch, Cursor, Point, Source, add_record, clean_key


def replay(*attempts: tuple[int, list[dict[str, Any]]], node: str = "node1", created_at: float = 0.0) -> list[Point]:
    """The points of records that reach the forwarder in this order, as (attempt, records)."""
    batch, cursor = Batch(), Cursor()
    for attempt, records in attempts:
        for record in records:
            add_record(batch, cursor, Source(attempt, node, created_at), record)
        cursor = Cursor.from_json(vars(cursor))
    return batch.points


def metrics(step: int, time_ms: int = 1000, **values: Any) -> dict[str, Any]:
    return {"kind": "metrics", "time_ms": time_ms, "step": step, "values": values}


def test_a_replayed_step_is_not_sent_again() -> None:
    first = [metrics(step, loss=float(step)) for step in (1, 2, 3)]
    resumed = [metrics(step, loss=100.0 + step) for step in (2, 3, 4)]
    assert [(point.step, point.value) for point in replay((0, first), (1, resumed))] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 104.0),
    ]  # fmt: skip


def test_a_key_that_the_first_attempt_never_had_is_new_at_any_step() -> None:
    points = replay((0, [metrics(5, loss=1.0)]), (1, [metrics(3, loss=9.0, accuracy=0.5)]))
    assert [(point.key, point.step) for point in points] == [("loss", 5), ("accuracy", 3)]


def test_late_records_of_an_old_attempt_do_not_repeat_what_the_new_one_sent() -> None:
    points = replay((0, [metrics(1, loss=1.0)]), (1, [metrics(2, loss=2.0)]), (0, [metrics(2, loss=9.0)]))
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 2.0)]


def test_a_step_that_came_late_from_an_old_attempt_is_not_repeated_by_the_new_one() -> None:
    old, new = [metrics(1, a=1.0)], [metrics(2, a=2.0)]
    points = replay((0, old), (1, new), (0, [metrics(3, a=3.0)]), (1, [metrics(3, a=9.0)]))
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_within_one_attempt_every_point_is_sent() -> None:
    points = replay((0, [metrics(2, a=1.0), metrics(1, a=2.0), metrics(2, a=3.0)]))
    assert [point.value for point in points] == [1.0, 2.0, 3.0]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=6))
def test_of_resumed_attempts_every_step_is_sent_once_and_the_first_value_stays(spans: list[tuple[int, int]]) -> None:
    attempts: list[tuple[int, list[dict[str, Any]]]] = []
    first_value: dict[int, float] = {}
    reached = 0
    for number, (rewind, length) in enumerate(spans):
        steps = range(max(1, reached + 1 - rewind), max(1, reached + 1 - rewind) + length)
        attempts.append((number, [metrics(step, loss=float(number)) for step in steps]))
        for step in steps:
            first_value.setdefault(step, float(number))
        reached = max(reached, steps[-1])
    points = replay(*attempts)
    assert len(points) == len(first_value)
    assert {point.step: point.value for point in points} == first_value


def test_system_samples_stand_on_seconds_since_the_run_began() -> None:
    record = {"kind": "system", "time_ms": 1_007_900, "values": {"cpu_percent": 3}}
    assert replay((0, [record]), created_at=1000.0) == [Point("system/node1/cpu_percent", 3.0, 1_007_900, 7)]


def test_words_become_the_numbers_that_json_has_not() -> None:
    values = {point.key: point.value for point in replay((0, [metrics(1, a="nan", b="inf", c="-inf")]))}
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    "record",
    [
        metrics(1, a="three"),
        metrics(1, a=None),
        metrics(2**63, a=1.0),
        metrics(1, time_ms=2**63, a=1.0),
        {"kind": "metrics", "time_ms": 1, "step": 1.5, "values": {"a": 1.0}},
        {"kind": "metrics", "time_ms": 1, "step": 1},
        {"kind": "metrics", "step": 1, "values": {"a": 1.0}},
    ],
)
def test_what_is_no_point_is_counted_and_costs_nothing_else(record: dict[str, Any]) -> None:
    batch = Batch()
    add_record(batch, Cursor(), Source(0, "n", 0.0), record)
    add_record(batch, Cursor(), Source(0, "n", 0.0), metrics(1, b=1.0))
    assert (batch.unreadable, len(batch.points)) == (1, 1)


def test_tags_are_kept_and_other_kinds_are_not_sent() -> None:
    batch = Batch()
    for record in (
        {"kind": "tags", "time_ms": 1, "values": {"phase": "one"}},
        {"kind": "tags", "time_ms": 2, "values": {"phase": "two"}},
        {"kind": "tags", "time_ms": 3, "values": None},
        {"kind": "window", "time_ms": 1, "step": 1, "micro_batches": [[1]]},
        {"kind": "event", "time_ms": 1, "name": "saved", "detail": {}},
        {"kind": "of a later version", "time_ms": 1},
    ):
        add_record(batch, Cursor(), Source(0, "n", 0.0), record)
    assert (batch.tags, batch.points, batch.unreadable) == ({"phase": "two"}, [], 0)


@pytest.mark.parametrize(
    ("key", "clean"),
    [("train/loss", "train/loss"), ("acc@1", "acc_1"), ("/a//b/", "a/b"), ("..", "_"), ("", "_"), ("a[0]", "a_0_")],
)
def test_a_key_keeps_what_mlflow_takes(key: str, clean: str) -> None:
    assert clean_key(key) == clean


@given(st.text(max_size=400))
def test_every_key_becomes_one_that_mlflow_takes(key: str) -> None:
    clean = clean_key(key)
    assert re.fullmatch(r"[/\w.\- :]{1,250}", clean, re.ASCII)
    assert posixpath.normpath(clean) == clean
    assert clean != "." and not clean.startswith(("..", "/"))
    assert clean_key(clean) == clean
