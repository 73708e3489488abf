"""`python -m orchestrator.worker.fit REQUEST ANSWER`: the peaks of a recipe's training step, without a GPU.

REQUEST is a JSON file: {parent (pid), recipe (text), source, folder, accelerator, budget_bytes, most, recompute,
known}. ANSWER is written again after every piece of work, so that whoever started this process has what it found until
it was killed: {problems, sizes, sample, step_bytes, points, without_recompute, alone, failed, modules,
variables, cpu_s}. What it is at stands on stderr, each line after `fit: `. A process of its own, because simulating can
abort it.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.files import read_json, write_json
from orchestrator.plan.fit import fit_rows
from orchestrator.processes import die_with_parent
from orchestrator.units import format_memory
from orchestrator.worker.failure import one_line
from orchestrator.worker.fit.inputs import Inputs

if TYPE_CHECKING:
    from orchestrator.worker.fit.simulation import Simulation

TALK = "fit: "
Known = dict[tuple[int, bool], int | None]
"""Peak bytes by (micro-batch, accumulating); None: it cannot be trained on."""


class Answer:
    """What was found so far, and the file that holds it."""

    def __init__(self, path: Path, inputs: Inputs) -> None:
        self._path, self._inputs = path, inputs
        self._facts: dict[str, Any] = {"points": []}

    def tell(self, **facts: Any) -> None:
        """Add facts, and the CPU seconds so far, and write the file."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seen = {"modules": self._inputs.modules(), "variables": self._inputs.variables()}
        self._facts |= {**facts, **seen, "cpu_s": usage.ru_utime + usage.ru_stime}
        write_json(self._path, self._facts)

    def add_point(self, point: dict[str, Any]) -> None:
        """Add a peak."""
        self._facts["points"].append(point)
        self.tell()


def main(request_path: str, answer_path: str) -> int:
    """Simulate; 0 also where that failed, since the answer says so, and 2 where the user's own files are wrong."""
    request = read_json(Path(request_path))
    die_with_parent()
    if os.getppid() != request["parent"]:
        return 1
    folder = Path(request["folder"]).resolve()
    inputs = Inputs(folder)
    answer = Answer(Path(answer_path), inputs)
    say("importing torch")
    import torch

    torch.set_num_threads(1)
    inputs.watch_variables()
    try:
        simulation = _made(request, folder, answer)
    except OrchestratorError as error:
        answer.tell(problems=[asdict(problem) for problem in error.problems])
        return 2
    except Exception as error:  # a sample that cannot be had, or collated
        answer.tell(problems=[asdict(Problem("datasets.0", one_line(error, folder)))])
        return 2
    try:
        simulate(simulation, request, answer)
    except Exception as error:
        traceback.print_exc()
        answer.tell(failed=one_line(error, folder))
    return 0


def _made(request: dict[str, Any], folder: Path, answer: Answer) -> Simulation:
    """The simulation; the recipe's data and model are made. Raises whatever the user's code raises."""
    from orchestrator.recipe.read import recipe_from_stored
    from orchestrator.worker.fit.sample import Sample, model_sizes
    from orchestrator.worker.fit.simulation import Simulation
    from orchestrator.worker.targets import UserCode

    recipe, code = recipe_from_stored(request["recipe"], request["source"]), UserCode(folder)
    sample = Sample.of(recipe, code)
    say(f"making the model; its input is {sample.words}")
    simulation = Simulation(recipe, code, sample, request["accelerator"])
    if recipe.activation_checkpointing:
        simulation.check_recompute()
    gc.freeze()  # modules and the model are here to stay: the collector need not look at them again
    answer.tell(sizes=asdict(model_sizes(simulation.model, sample, precision=recipe.precision)), sample=sample.words)
    return simulation


def simulate(simulation: Simulation, request: dict[str, Any], answer: Answer) -> None:
    """The peaks of all modes asked for. Raises what the user's code raises, unless only recomputing fails."""
    step_bytes = simulation.step_bytes()
    answer.tell(step_bytes=step_bytes)
    for recompute in request["recompute"]:
        try:
            fit_rows(
                _peaks(simulation, request, answer, recompute=recompute),
                recompute=recompute,
                step_bytes=step_bytes,
                gradient_bytes=simulation.gradient_bytes,
                budget_bytes=request["budget_bytes"],
                most=request["most"],
            )
        except Exception as error:
            if not recompute or simulation.recipe.activation_checkpointing:
                raise
            answer.tell(without_recompute=one_line(error, Path(request["folder"]).resolve()))


def _peaks(
    simulation: Simulation, request: dict[str, Any], answer: Answer, *, recompute: bool
) -> Callable[[int, bool], int | None]:
    """The peak by (micro-batch, accumulating): known from an earlier time, or simulated, told and put in the answer.

    None for one sample that fails alone where more of them did not, as in a batch norm without other dimensions.
    """
    known: Known = {
        (point["micro_batch_size"], point["accumulating"]): point["num_bytes"]
        for point in request["known"]
        if point["recompute"] == recompute
    }

    def simulated(size: int, accumulating: bool) -> int | None:
        try:
            return simulation.forward_backward_bytes(size, accumulating=accumulating, recompute=recompute)
        except Exception as error:
            if size > 1 or max(known, default=(1, False))[0] == 1:
                raise
            answer.tell(alone=one_line(error, Path(request["folder"]).resolve()))
            return None

    def peak(size: int, accumulating: bool) -> int | None:
        if (size, accumulating) not in known:
            num_bytes = simulated(size, accumulating)
            mode = f"recompute {'on' if recompute else 'off'}, accumulation {'> 1' if accumulating else '1'}"
            say(f"{mode}, micro-batch {size}: {'refused' if num_bytes is None else format_memory(num_bytes)}")
            point = {"recompute": recompute, "accumulating": accumulating, "micro_batch_size": size}
            answer.add_point({**point, "num_bytes": num_bytes})
            known[size, accumulating] = num_bytes
        return known[size, accumulating]

    return peak


def say(line: str) -> None:
    """Talk for the person who waits."""
    print(f"{TALK}{line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
