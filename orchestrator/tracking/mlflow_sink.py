"""The only place that knows MLflow: one run in one store, and its errors sorted into 'later' and 'never'.

A sqlite store is initialised and written under one lock beside it: MLflow's set-up of a fresh database fails when two
processes do it at once, and writers of one file starve each other. Its artifacts lie beside the database, in
`mlruns/<experiment id>/<run id>/artifacts`, which is where `mlflow ui` started there would put them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from orchestrator.files import PRIVATE_FILE, make_private_dir
from orchestrator.tracking.description import with_attempts
from orchestrator.tracking.replay import MAX_KEY, Point

if TYPE_CHECKING:
    from mlflow.entities import Run

RUN_UID = "orchestrate.run_uid"
DESCRIPTION = "mlflow.note.content"
METRICS_PER_CALL = 1000
_PARAMS_OR_TAGS_PER_CALL = 100
_MAX_PARAM_VALUE = 6000
_MAX_TAG_VALUE = 8000
_CUT = " ... [cut]"
_LOCK_WAIT_S = 60.0
_SQLITE = "sqlite:///"

# The forwarder owns the policy of retries; MLflow's own would block for minutes and then give up.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

T = TypeVar("T")
Status = Literal["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"]


class Unreachable(Exception):
    """MLflow cannot take it now; the same call may succeed later. The message is one line."""


class Rejected(Exception):
    """MLflow will never take it. The message is one line."""


def _cut(text: str, limit: int) -> str:
    """`text` within MLflow's limit, with a mark where something is missing."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def _one_line(error: BaseException) -> str:
    return _cut(" ".join(str(error).split()) or type(error).__name__, 400)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = list(items)
    while rest:
        yield rest[:size]
        rest = rest[size:]


def sqlite_path(uri: str) -> Path | None:
    """The database file of a `sqlite:///` URI, or None for any other store."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


_NEVER = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_STATE",
    "NOT_IMPLEMENTED",
}
_PERMANENT_ERRNO = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def _sort(error: Exception) -> Unreachable | Rejected:
    """Whether the same call may succeed later; an unknown error is taken for one that may."""
    text = _one_line(error)
    if "Invalid Host header" in text:
        return Unreachable("403 Invalid Host header: start the MLflow server with --allowed-hosts HOST:PORT")
    code = getattr(error, "error_code", None)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if code is not None:
        never = code in _NEVER
    elif status is not None:
        never = status in (400, 404, 405, 409, 413, 422)
    elif isinstance(error, OSError):
        never = error.errno in _PERMANENT_ERRNO
    else:
        never = isinstance(error, ValueError | TypeError)
    return Rejected(text) if never else Unreachable(text)


class MlflowSink:
    """The store at `uri`. Every method raises Unreachable or Rejected, and nothing else, when MLflow cannot do it."""

    def __init__(self, uri: str) -> None:
        os.environ.update(_SETTINGS)
        self._database = sqlite_path(uri)
        if self._database:
            uri = f"{_SQLITE}{self._database}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow.entities
            from mlflow.tracking import MlflowClient
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        self._entities = mlflow.entities
        with self._burst(), self._beside_database():
            self._client = MlflowClient(tracking_uri=uri)

    @contextlib.contextmanager
    def _burst(self) -> Iterator[None]:
        """One burst of calls: alone in a sqlite store, and with errors sorted."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._locked_database(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (MlflowException, SQLAlchemyError, OSError, ValueError, TypeError) as error:
            raise _sort(error) from error

    @contextlib.contextmanager
    def _locked_database(self) -> Iterator[None]:
        if self._database is None:
            yield
            return
        make_private_dir(self._database.parent)
        lock = self._database.with_name(f"{self._database.name}.lock")
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            _lock_within(fd, _LOCK_WAIT_S)
            os.close(os.open(self._database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
            yield
        finally:
            os.close(fd)

    def _beside_database(self) -> contextlib.AbstractContextManager[None]:
        """MLflow derives a sqlite store's artifact root from the working directory, once, when it opens the store."""
        return contextlib.chdir(self._database.parent) if self._database else contextlib.nullcontext()

    def find_or_create_run(self, experiment: str, run_uid: str, *, name: str, start_time_ms: int) -> tuple[str, str]:
        """(experiment id, run id) of the one run tagged `run_uid`; two that a stalled server made become one."""
        with self._burst():
            experiment_id = self._experiment_id(experiment)
            if not self._runs(experiment_id, run_uid):
                self._client.create_run(experiment_id, start_time=start_time_ms, tags={RUN_UID: run_uid}, run_name=name)
            oldest, *others = self._runs(experiment_id, run_uid)
            for run in others:
                self._client.delete_run(run.info.run_id)
            return experiment_id, str(oldest.info.run_id)

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run may create it at this moment
                    raise
            found = self._client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise Unreachable(f"the experiment {name!r} is deleted: restore it, or set another tracking.experiment")
        return str(found.experiment_id)

    def _runs(self, experiment_id: str, run_uid: str) -> list[Run]:
        """The live runs with this uid, oldest first."""
        runs = self._client.search_runs([experiment_id], f"tags.`{RUN_UID}` = '{run_uid}'", max_results=100)
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def delete_twins(self, run_id: str, run_uid: str) -> None:
        """Delete other runs with this uid: a stalled server may have made one after its client gave up."""
        with self._burst():
            for run in self._runs(self._client.get_run(run_id).info.experiment_id, run_uid):
                if run.info.run_id != run_id:
                    self._client.delete_run(run.info.run_id)

    def run_state(self, run_id: str) -> Literal["active", "deleted", "absent"]:
        """Whether the store has this run."""
        try:
            with self._burst():
                stage = self._client.get_run(run_id).info.lifecycle_stage
        except Rejected:
            return "absent"
        return "active" if stage == "active" else "deleted"

    def log_batch(self, run_id: str, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Send points and tags; sending them again changes nothing."""
        metric = self._entities.Metric
        with self._burst():
            for chunk in _chunks(points, METRICS_PER_CALL):
                self._client.log_batch(run_id, metrics=[metric(p.key, p.value, p.time_ms, p.step) for p in chunk])
            self._set_tags(run_id, tags)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log parameters; one that has another value already becomes a tag `orchestrate.param_changed.<key>`."""
        wanted = {key: _cut(value, _MAX_PARAM_VALUE) for key, value in params.items()}
        with self._burst():
            known = self._client.get_run(run_id).data.params
            new = [self._entities.Param(key, value) for key, value in wanted.items() if key not in known]
            for chunk in _chunks(new, _PARAMS_OR_TAGS_PER_CALL):
                self._client.log_batch(run_id, params=chunk)
            changed = {key: value for key, value in wanted.items() if known.get(key, value) != value}
            prefix = "orchestrate.param_changed."
            self._set_tags(run_id, {f"{prefix}{key}"[:MAX_KEY]: value for key, value in changed.items()})

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags; the last value wins."""
        with self._burst():
            self._set_tags(run_id, tags)

    def describe(self, run_id: str, attempts: str) -> None:
        """Put `attempts` into the run's description; a person's own words above it stay."""
        with self._burst():
            known = self._client.get_run(run_id).data.tags.get(DESCRIPTION, "")
            self._set_tags(run_id, {DESCRIPTION: with_attempts(known, attempts)})

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        entities = [self._entities.RunTag(key, _cut(value, _MAX_TAG_VALUE)) for key, value in tags.items()]
        for chunk in _chunks(entities, _PARAMS_OR_TAGS_PER_CALL):
            self._client.log_batch(run_id, tags=chunk)

    def log_artifact(self, run_id: str, path: str, text: str) -> None:
        """Store `text` as the artifact `path`, replacing one of that name."""
        with self._burst():
            self._client.log_text(run_id, text, path)

    def set_status(self, run_id: str, status: Status) -> None:
        """Say what a live run is doing."""
        with self._burst():
            self._client.update_run(run_id, status=status)

    def set_terminated(self, run_id: str, status: Status, end_time_ms: int) -> None:
        """Say how and when the run ended."""
        with self._burst():
            self._client.set_terminated(run_id, status=status, end_time=end_time_ms)


def _lock_within(fd: int, timeout_s: float) -> None:
    """Take the exclusive lock; raises Unreachable when its holder keeps it too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unreachable("another process has held the database's lock for a minute") from None
            time.sleep(0.02)
