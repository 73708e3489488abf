"""`python -m orchestrator.worker.verify REQUEST ANSWER`: whether a recipe trains the same on every topology.

REQUEST is a JSON file: {recipe (text), source, plan, folder, worlds, steps, precisions}; `folder` is a run directory
with the code's snapshot, and takes all files of the trials. ANSWER gets {problems} where the recipe's own files are
wrong, else {reference, rows, moved, reasons}. What it is at stands on stderr, each line after `verify: `.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, TrainingError
from orchestrator.files import read_json, write_json

if TYPE_CHECKING:
    from orchestrator.worker.verify.matrix import Laboratory
    from orchestrator.worker.verify.outcome import Outcome
    from orchestrator.worker.verify.trial import Trial


def main(request_path: str, answer_path: str) -> int:
    """0 when there is an answer, whatever it says; 2 where the reference itself cannot be trained."""
    request, answer = read_json(Path(request_path)), Path(answer_path)
    print("verify: importing torch", file=sys.stderr, flush=True)
    try:
        write_json(answer, answered(request))
    except TrainingError as error:
        traceback.print_exc()
        write_json(answer, {"problems": [asdict(problem) for problem in error.problems]})
        return 2
    return 0


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request. Raises TrainingError when one process cannot train the recipe."""
    import torch

    from orchestrator.plan.plan import plan_from_json
    from orchestrator.plan.verification import cases_of, reference_case
    from orchestrator.recipe.read import recipe_from_stored
    from orchestrator.run_dir import RunDir
    from orchestrator.worker.verify.matrix import Laboratory
    from orchestrator.worker.verify.outcome import Reference
    from orchestrator.worker.verify.preload import preload
    from orchestrator.worker.verify.reasons import reasons_of
    from orchestrator.worker.verify.trial import Question

    torch.set_num_threads(1)
    recipe, plan = recipe_from_stored(request["recipe"], request["source"]), plan_from_json(request["plan"])
    laboratory = Laboratory(Question(RunDir(Path(request["folder"])), recipe, plan))
    preload(laboratory.folder)
    size, limit, steps = plan.batch.effective_batch_size, plan.batch.largest_micro_batch, request["steps"]
    first = reference_case(size, limit)
    names, cases = request["precisions"], cases_of(size, request["worlds"], limit)
    alone = {name: laboratory.trial(first, name, steps) for name in names}
    rotated = {name: laboratory.trial(first, name, steps, "rotated") for name in names}
    trials = [laboratory.trial(case, name, steps) for name in names for case in cases]
    laboratory.run([*alone.values(), *rotated.values()])
    known = {
        name: Reference.of(_needed(laboratory, alone[name]), laboratory.outcome(rotated[name]), name) for name in names
    }
    made, rows = laboratory.compared(trials, known)
    reasons = () if all(row.holds for row in rows) else reasons_of(laboratory, rows, made)
    words, _ = first.describe(size, plan.batch.micro_multiple)
    return {
        "reference": words,
        "rows": [*map(asdict, rows)],
        "moved": [[name, *moved] for name in names for moved in known[name].moved.items()],
        "reasons": [*map(asdict, reasons)],
    }


def _needed(laboratory: Laboratory, reference: Trial) -> Outcome:
    outcome = laboratory.outcome(reference)
    if outcome is None:
        why = laboratory.failed[reference.number]
        raise TrainingError(Problem("", f"one process cannot train it in {reference.precision}: {why}"))
    return outcome


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
