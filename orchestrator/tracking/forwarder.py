"""Replays one run's journal into MLflow: batch by batch, each noted in the cursor once MLflow has taken it.

Killed between sending and noting, it sends that batch again, which changes nothing (see replay). With MLflow away it
waits, for ever if it may. What MLflow refuses for good is set aside in forward/rejected.log and counted.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from orchestrator.files import PRIVATE_FILE, make_private_dir, read_json, write_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking import describe
from orchestrator.tracking.description import Description
from orchestrator.tracking.mlflow_sink import MlflowSink, Rejected, Status, Unreachable
from orchestrator.tracking.reading import next_batch
from orchestrator.tracking.replay import Cursor

T = TypeVar("T")

POLL_S = 0.5
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0


def append_line(path: Path, line: str) -> None:
    """Add one line to a private text file."""
    make_private_dir(path.parent)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(fd, "a") as file:
        file.write(line + "\n")


class Interrupted(Exception):
    """Asked to end; nothing is lost."""


class GaveUp(Exception):
    """MLflow did not answer within the patience given. The message is the last error, in one line."""


class Forwarder:
    """One run, one store. `pause(seconds)` sleeps and returns True when asked to end; `say(line)` tells a person.

    `patience_s` is how long MLflow may stay silent before GaveUp; None waits for ever.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        patience_s: float | None,
        pause: Callable[[float], bool],
        say: Callable[[str], None],
    ) -> None:
        self.identity = describe.read_identity(run)
        self._run = run
        self._redactor = describe.read_redactor(run)
        self._description = Description(run, self._redactor)
        self._patience_s = patience_s
        self._pause = pause
        self._say = say
        self._answered_at = time.monotonic()
        self._silent = False
        self._tags_sent: dict[str, str] = {}
        self._shown: set[str] = set()
        self._run_id = ""
        self._cursor = Cursor()
        make_private_dir(run.forward)

    def create(self) -> None:
        """Find or create the run, and describe it; a completed run that is to be resumed becomes live again."""
        self._open(live=True)
        self._set_status("RUNNING" if self._is_running() else "SCHEDULED")

    def follow(self) -> None:
        """Replay the journal as it grows, until all is sent and the run is over, or goes on in another job."""
        if self.noted().complete and describe.read_ending(self._run):
            return
        self._open(live=True)
        self._set_status("RUNNING")
        while not self._replay_and_finish():
            self._check_pause(POLL_S)

    def drain(self) -> None:
        """Replay what there is, once; finish the run if it is over."""
        live = describe.read_ending(self._run) is None
        self._open(live=live)
        if live:
            self._set_status("RUNNING" if self._is_running() else "SCHEDULED")
        self._replay_and_finish()

    def noted(self) -> Cursor:
        """How far the replay has come, as it is noted on disk: what a batch in hand adds is not in it."""
        return Cursor.from_json(read_json(self._run.cursor))

    def count_waiting(self) -> int:
        """Points in the journal that MLflow has not taken yet."""
        cursor, count, more = self.noted(), 0, True
        while more:
            batch, _, more = next_batch(self._run, cursor, self.identity.created_at, look_twice=True)
            count += len(batch.points)
        return count

    def _is_running(self) -> bool:
        return self._run.last_attempt() is not None and describe.read_ending(self._run) is None

    def _open(self, *, live: bool) -> None:
        """Reach the store, find the run in it, and say what is known at submission. All of it may be repeated.

        A `live` run is noted as not complete before MLflow is asked for anything, since it may be away.
        """
        self._cursor = self.noted()
        if live and self._cursor.complete:
            self._cursor.complete = False
            self._save_cursor()
        self._sink = self._insist(lambda: MlflowSink(self.identity.uri))
        self._run_id = self._insist(self._find_run)
        params = describe.read_params(self._run, self._redactor)
        self._each(list(params.items()), lambda some: self._sink.log_params(self._run_id, dict(some)))
        self._send_tags(describe.submission_tags(self._run, self.identity, self._redactor))
        self._send_artifacts(describe.early_artifacts(self._run, self._redactor))
        self._say(f"forwarding to MLflow run {self._run_id} in {self._redactor.text(self.identity.uri)}")

    def _find_run(self) -> str:
        """The MLflow run's id; a store that no longer knows it gets a new run and the whole journal again."""
        known = read_json(self._run.mlflow)
        if known and known["uri"] == self.identity.uri:
            state = self._sink.run_state(known["run_id"])
            if state == "active":
                return str(known["run_id"])
            if state == "deleted":
                raise Unreachable(f"the MLflow run {known['run_id']} was deleted: restore it to go on")
        start_ms = int(self.identity.created_at * 1000)
        experiment_id, run_id = self._sink.find_or_create_run(
            self.identity.experiment, self.identity.uid, name=self._run.path.name, start_time_ms=start_ms
        )
        if known and known["run_id"] != run_id:
            self._cursor = Cursor()
            self._save_cursor()
        write_json(self._run.mlflow, {"uri": self.identity.uri, "experiment_id": experiment_id, "run_id": run_id})
        return run_id

    def _set_status(self, status: Status) -> None:
        self._each([status], lambda _: self._sink.set_status(self._run_id, status))

    def _replay_and_finish(self) -> bool:
        """Send all there is; True when nothing comes after it from this job. That is read first.

        A run that is over is finished in MLflow.
        """
        ending, goes_on = describe.read_ending(self._run), describe.goes_on_elsewhere(self._run)
        while self._replay(look_twice=goes_on or ending is not None):
            self._check_pause(0)
        self._send_tags(describe.attempt_tags(self._run, self._redactor))
        if (text := self._description.news()) is not None:
            self._each([text], lambda some: self._sink.describe(self._run_id, some[0]))
        self._send_shown()
        if ending is None:
            return goes_on
        self._send_artifacts(describe.final_artifacts(self._run, self._redactor))
        self._insist(lambda: self._sink.delete_twins(self._run_id, self.identity.uid))
        self._each([ending], lambda _: self._sink.set_terminated(self._run_id, ending.status, ending.time_ms))
        self._cursor.complete = True
        self._save_cursor()
        return True

    def _replay(self, *, look_twice: bool) -> bool:
        """Send one batch; True when there may be more."""
        batch, moved, more = next_batch(self._run, self._cursor, self.identity.created_at, look_twice=look_twice)
        if moved:
            self._cursor.points += self._each(batch.points, lambda some: self._sink.log_batch(self._run_id, some, {}))
            tags = {key: str(self._redactor.value(key, value)) for key, value in batch.tags.items()}
            self._send_tags(tags)
            self._cursor.rejected += batch.unreadable
            self._save_cursor()
            if batch.tells_slow_rank:
                self._description.expect_news()
        return more

    def _send_tags(self, tags: dict[str, str]) -> None:
        """Set the tags that were not set to this value before."""
        new = [(key, value) for key, value in tags.items() if self._tags_sent.get(key) != value]
        if new:
            self._each(new, lambda some: self._sink.set_tags(self._run_id, dict(some)))
            self._tags_sent |= dict(new)

    def _send_artifacts(self, artifacts: Iterable[tuple[str, str]]) -> None:
        for path, text in artifacts:
            self._each([(path, text)], self._store_artifact)

    def _send_shown(self) -> None:
        """What this forwarder has not sent; one that comes after another sends it again, which changes nothing."""
        new = list(describe.shown_artifacts(self._run, self._redactor, self._shown))
        self._send_artifacts(new)
        self._shown.update(path for path, _ in new)

    def _store_artifact(self, artifacts: Sequence[tuple[str, str]]) -> None:
        for path, text in artifacts:
            self._sink.log_artifact(self._run_id, path, text)

    def _each(self, items: Sequence[T], post: Callable[[Sequence[T]], None]) -> int:
        """Post all items, setting aside those that MLflow refuses; returns how many it took."""

        def post_all() -> None:
            try:
                post(items)
            except Rejected:
                self._check_run()
                raise

        if not items:
            return 0
        try:
            self._persist(post_all)
            return len(items)
        except Rejected as error:
            if len(items) == 1:
                self._set_aside(items[0], error)
                return 0
        half = len(items) // 2
        return self._each(items[:half], post) + self._each(items[half:], post)

    def _check_run(self) -> None:
        """A run that was deleted meanwhile refuses everything: wait for it instead of setting everything aside."""
        if (state := self._sink.run_state(self._run_id)) != "active":
            raise Unreachable(f"the MLflow run {self._run_id} is {state}: restore it, or sync again")

    def _set_aside(self, item: object, error: Rejected) -> None:
        self._cursor.rejected += 1
        refused, why = self._redactor.text(str(item)[:1000]), self._redactor.text(str(error))
        line = json.dumps({"time": time.time(), "refused": refused, "why": why}, ensure_ascii=False)
        append_line(self._run.forward / "rejected.log", line)

    def _persist(self, action: Callable[[], T]) -> T:
        """Do `action` until MLflow answers, waiting 1 to 30 seconds between tries; what it refuses is raised."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                result = action()
            except Rejected:
                self._note_answer()
                raise
            except Unreachable as error:
                self._check_pause(self._wait_for(wait_s, str(error)))
                wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)
            else:
                self._note_answer()
                return result

    def _insist(self, action: Callable[[], T]) -> T:
        """As `_persist`, for what there is no going on without: a refusal is waited out as well."""

        def insisting() -> T:
            try:
                return action()
            except Rejected as error:
                raise Unreachable(str(error)) from error

        return self._persist(insisting)

    def _note_answer(self) -> None:
        if self._silent:
            self._say("MLflow answers again")
        self._silent, self._answered_at = False, time.monotonic()

    def _wait_for(self, wait_s: float, why: str) -> float:
        """How long to wait now, in seconds; raises GaveUp when patience has run out."""
        why = self._redactor.text(why)
        if not self._silent:
            self._say(f"MLflow cannot be reached, trying again until it can: {why}")
        self._silent = True
        wait_s *= random.uniform(0.5, 1.0)
        if self._patience_s is None:
            return wait_s
        left_s = self._answered_at + self._patience_s - time.monotonic()
        if left_s <= 0:
            raise GaveUp(why)
        return min(wait_s, left_s)

    def _check_pause(self, seconds: float) -> None:
        if self._pause(seconds):
            raise Interrupted

    def _save_cursor(self) -> None:
        write_json(self._run.cursor, vars(self._cursor))
