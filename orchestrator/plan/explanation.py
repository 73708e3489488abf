"""One number of a plan with its formula, inputs, reason and source. Pure data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Number = int | float
Inputs = dict[str, Number]
DEFINITION = "definition"


@dataclass(frozen=True)
class Explanation:
    """One number of a plan. `name` is its key in the plan's JSON; `formula` gives `value` from `inputs`."""

    name: str
    value: Number
    formula: str
    inputs: Inputs
    why: str
    source: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
