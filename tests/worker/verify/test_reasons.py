"""Reasons that need no experiment beyond the table itself."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.plan.verification import Row
from orchestrator.worker.verify.reasons import about_rounding

EXACT = Row("fp64", 2, "2 x (8)", 1, loss=1e-15, parameters=1e-15, worst="weight", same_ids=True, same_data=True)
LOOSE = replace(EXACT, precision="fp32", loss=1e-7, parameters=2e-3)


def test_what_holds_in_fp64_alone_is_rounding() -> None:
    (reason,) = about_rounding([EXACT, LOOSE])
    assert (reason.kind, reason.where) == ("rounding", "weight")


def test_nothing_is_called_rounding_that_fp64_has_not_shown() -> None:
    assert list(about_rounding([LOOSE])) == []
    assert list(about_rounding([replace(EXACT, loss=1e-6), LOOSE])) == []
