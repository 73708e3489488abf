"""What holds for all tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.last_words import last_words
from tests.support.needed import skip_or_fail

settings.register_profile("orchestrate", deadline=None)  # a busy machine is slow; what is timed stands in tests/bench
settings.load_profile("orchestrate")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, what the runs in its folder said last is shown with it."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder is not None and (words := last_words(folder)):
        report.sections.append(("what its runs said last", words))
    return report


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs find for others like them is not found by tests of another day, nor by their user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def kernel_that_kills_nobody(request: pytest.FixtureRequest) -> Iterator[None]:
    """No other test has the kernel kill for want of memory while this one may kill a rank.

    A supervisor knows how many the kernel has killed on its machine, and not whose; the lab's tests and the others
    share one.
    """
    if not {"job", "slurm"} & set(request.path.parts) or "memory_group" in request.fixturenames:
        yield
        return
    with contextlib.ExitStack() as stack:
        with _locked("turn", fcntl.LOCK_EX):
            stack.enter_context(_locked("killing", fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    """A lock between all that test on this machine as this user. `turn` keeps who wants `killing` from starving."""
    path = Path(tempfile.gettempdir()) / f"orchestrate-tests-{os.getuid()}.{name}"
    with path.open("w") as file:
        fcntl.flock(file, how)
        yield


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A group of processes that may have 64 MiB in all; see `kernel_that_kills_nobody`."""
    with _locked("turn", fcntl.LOCK_EX), _locked("killing", fcntl.LOCK_EX), _group() as group:
        yield group


@contextlib.contextmanager
def _group() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    for hierarchy, limit in ((root / "memory", "memory.limit_in_bytes"), (root, "memory.max")):
        group = hierarchy / f"orchestrate-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(64 << 20))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    skip_or_fail("groups with limited memory cannot be made here (as root, on a cgroup file system)")
