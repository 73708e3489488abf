"""Which ranks failed first, from torchrun's own words (its real output is read in tests/job/test_driver.py)."""

from __future__ import annotations

from orchestrator.node.failures import failed_ranks

LOG = """
W1124 13:04:08.723000 20233 torch/distributed/elastic/...] Sending process 20237 closing signal SIGTERM
E1124 13:04:08.724000 20233 torch/distributed/elastic/...] failed (exitcode: 1) local_rank: 1 (pid: 20238)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
script.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-24_13:04:08
  host      : node2
  rank      : 6 (local_rank: 2)
  exitcode  : -9 (pid: 20239)  (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 20239
[2]:
  time      : 2026-11-24_13:04:08
  host      : node2
  rank      : 4 (local_rank: 0)
  exitcode  : -15 (pid: 20237)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 20237
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_13:04:08
  host      : node2
  rank      : 5 (local_rank: 1)
  exitcode  : 1 (pid: 20238)
  error_file: <N/A>
============================================================
"""


def test_the_first_failure_comes_first_and_ranks_that_torchrun_ended_are_no_cause() -> None:
    assert failed_ranks(LOG) == [{"rank": 5, "exit_code": 1}, {"rank": 6, "exit_code": -9}]


def test_a_log_without_a_table_names_nobody() -> None:
    assert failed_ranks("SignalException: Process 7 got signal: 15") == []
