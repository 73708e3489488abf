"""The screen of `orchestrate plan --explain`: every number with its formula, why, and where that comes from. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.plan.explain import ExplainedWarning
from orchestrator.plan.explanation import Explanation


def explain_screen(explanations: Sequence[Explanation], warnings: Sequence[ExplainedWarning]) -> str:
    """A paragraph a number: name and value, the formula, the same with its numbers, the reason, the source."""
    return "\n".join([*map(_paragraph, explanations), *map(_warning, warnings)])


def _paragraph(told: Explanation) -> str:
    with_numbers = re.sub(r"[a-z]\w*", lambda word: _number(told, word[0]), told.formula)
    lines = [
        f"{told.name} = {_shown(told.value)}",
        f"    formula   {told.formula}",
        *([f"    inputs    {with_numbers}"] if told.inputs else []),
        f"    why       {told.why}",
        f"    source    {told.source}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _number(told: Explanation, name: str) -> str:
    return _shown(told.inputs[name]) if name in told.inputs else name


def _warning(told: ExplainedWarning) -> str:
    return f"{told.code}\n    what      {told.message}\n    source    {told.source}\n"


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
