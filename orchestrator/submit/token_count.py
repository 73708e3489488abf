"""How many tokens a text holds: what the rules of thumb say, and what the model's own tokenizer counts.

Everything is read, as a stream; the tokenizer reads all of a small text, and of a larger one a random sample of about
1 MiB, seeded, so that equal files give equal numbers. What is said of the whole then comes with its 95 % interval.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError, SubmissionError, did_you_mean
from orchestrator.files import read_json, write_json
from orchestrator.plan.token_rules import (
    TextCounts,
    count_text,
    error_percent,
    estimated_tokens,
    ratio_estimate,
    total,
    trusted_rule,
)
from orchestrator.submit.commands import last_line, run_command
from orchestrator.submit.text_files import Block, blocks_of_all, files_of

NUM_BLOCKS = 64
SEED = 0
TOKENIZER_TIMEOUT_S = 120.0
DATASET_TIMEOUT_S = 120.0
_MOST_ITEMS = 4096
_MOST_BYTES = 1024**2
_MOST_S = 30.0
_OF_A_RECIPE = re.compile(r"(?P<recipe>.+\.ya?ml):(?P<name>[A-Za-z0-9_.-]+)")


@dataclass(frozen=True)
class Measured:
    """Tokens by a real tokenizer: `half_width` is that of the 95 % interval, 0 where all of the text was counted."""

    tokenizer: str
    tokens: int
    half_width: int
    sample_bytes: int
    unknown_share: float = 0.0
    """Of the tokens counted: what the tokenizer has no word for, and a model cannot learn."""


@dataclass(frozen=True)
class PerSample:
    """A dataset's mean sample, from `num_read` of `num_samples`; half widths of 95 % intervals, in the same unit."""

    num_read: int
    num_samples: int
    characters: float
    characters_half_width: float
    tokens: float | None = None
    tokens_half_width: float | None = None


@dataclass(frozen=True)
class TokenReport:
    """What was read of `source`, and its tokens by each rule and by a tokenizer. Of a dataset: of the items read."""

    source: str
    num_files: int
    counts: TextCounts
    measured: Measured | None = None
    per_sample: PerSample | None = None

    @property
    def estimates(self) -> dict[str, int]:
        """Tokens by each rule."""
        return estimated_tokens(self.counts)

    @property
    def errors(self) -> dict[str, float]:
        """How far each rule is from the tokenizer's count, in percent; empty where that is 0, or is not known."""
        if self.measured is None or self.measured.tokens == 0:
            return {}
        return {rule: error_percent(tokens, self.measured.tokens) for rule, tokens in self.estimates.items()}

    @property
    def trusted(self) -> tuple[str | None, str]:
        """(rule, why) for a text like this."""
        return trusted_rule(self.counts)

    def as_json(self) -> dict[str, Any]:
        """All of it; null where nothing is known, and for a width that has no bound."""
        rule, why = self.trusted
        facts = {**asdict(self), "estimates": self.estimates, "errors_percent": self.errors}
        mean = facts["per_sample"]
        if mean is not None:
            facts["per_sample"] = {key: None if value == math.inf else value for key, value in mean.items()}
        return {**facts, "trusted_rule": rule, "why": why}


def count_tokens(source: str, *, tokenizer: str | None) -> TokenReport:
    """Count a text file, a folder of them, or (`recipe.yaml:name`) a dataset, which runs the recipe's code.

    Raises RecipeError for what cannot be read, and for a tokenizer that is not there.
    """
    match = _OF_A_RECIPE.fullmatch(source)
    if match and not Path(source).exists():
        return _of_dataset(source, Path(match["recipe"]), match["name"], tokenizer)
    files = files_of(Path(source))
    counts, sample = TextCounts(), list[Block]()
    draw = random.Random(SEED)
    for num_before, block in enumerate(blocks_of_all(files)):
        counts += total(map(count_text, block))
        if len(sample) < NUM_BLOCKS:
            sample.append(block)
        elif (place := draw.randrange(num_before + 1)) < NUM_BLOCKS:
            sample[place] = block
    if tokenizer is None:
        return TokenReport(source, len(files), counts)
    sizes = [sum(len(text.encode()) for text in block) for block in sample]
    numbers, unknown_share = _counted(tokenizer, sample)
    tokens, half_width = ratio_estimate(numbers, sizes, counts.bytes)
    measured = Measured(tokenizer, round(tokens), math.ceil(half_width), sum(sizes), unknown_share)
    return TokenReport(source, len(files), counts, measured)


def _of_dataset(source: str, recipe: Path, name: str, tokenizer: str | None) -> TokenReport:
    num_samples, items = _sampled_items(source, recipe, name)
    if not any(items):
        what = "its items hold no text" if items else "it is empty"
        fix = "name the files that the text comes from, or a dataset whose items are not tokenized yet"
        raise RecipeError(Problem(source, what, fix))
    counts = total(count_text(text) for item in items for text in item)
    ones = [1.0] * len(items)

    def mean(values: Sequence[float]) -> tuple[float, float]:
        estimate, half_width = ratio_estimate(values, ones, num_samples)
        return estimate / num_samples, half_width / num_samples

    characters = mean([sum(map(len, item)) for item in items])
    if tokenizer is None:
        return TokenReport(source, 0, counts, None, PerSample(len(items), num_samples, *characters))
    numbers, unknown_share = _counted(tokenizer, items)
    measured = Measured(tokenizer, sum(numbers), 0, counts.bytes, unknown_share)
    return TokenReport(source, 0, counts, measured, PerSample(len(items), num_samples, *characters, *mean(numbers)))


def _sampled_items(source: str, recipe: Path, name: str) -> tuple[int, list[Block]]:
    from orchestrator.recipe.read import read_recipe

    read = read_recipe(recipe)
    declared = {dataset.name: dataset for dataset in (*read.recipe.datasets, *read.recipe.validation)}
    if name not in declared:
        raise RecipeError(Problem(source, f"{recipe} has no dataset {name!r}", did_you_mean(name, declared)))
    limits = {"seed": SEED, "most_items": _MOST_ITEMS, "most_bytes": _MOST_BYTES, "most_s": _MOST_S}
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        dataset = declared[name].model_dump(mode="json")
        write_json(request, {"folder": str(read.folder.resolve()), "dataset": dataset, **limits})
        argv = (sys.executable, "-m", "orchestrator.worker.data.texts", str(request), str(answer))
        told = _answer_of(argv, answer, env={**os.environ, **read.environment})
    if "what" in told:
        raise RecipeError(Problem(source, told["what"], "mend the dataset, or name the files that its text comes from"))
    return told["num_samples"], [tuple(item) for item in told["items"]]


def _answer_of(argv: Sequence[str], answer: Path, *, env: dict[str, str]) -> dict[str, Any]:
    try:
        done = run_command(argv, timeout_s=DATASET_TIMEOUT_S, env=env)
    except SubmissionError as error:
        return {"what": error.problems[0].what}
    last = last_line(done.stderr, "it said nothing")
    return read_json(answer) or {"what": f"its process ended with {done.returncode}: {last}"}


def _counted(tokenizer: str, blocks: Sequence[Block]) -> tuple[list[int], float]:
    """Tokens of each block, and the share of unknown ones, by a process that reaches no network."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    env = {**os.environ, **offline, "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    asked = json.dumps({"tokenizer": tokenizer, "blocks": blocks})
    argv = (sys.executable, "-m", "orchestrator.submit.tokenizer_process")
    try:
        done = run_command(argv, timeout_s=TOKENIZER_TIMEOUT_S, env=env, text=asked)
    except SubmissionError as error:
        problem = Problem(f"--tokenizer {tokenizer}", error.problems[0].what, "try a smaller one")
        raise RecipeError(problem) from None
    if done.returncode:
        last = last_line(done.stderr, f"exit code {done.returncode}")
        fix = "is it whole, and does its library load?"
        raise RecipeError(Problem(f"--tokenizer {tokenizer}", f"it cannot be used: {last}", fix))
    told = json.loads(done.stdout.splitlines()[-1])
    if "what" in told:
        raise RecipeError(Problem(f"--tokenizer {tokenizer}", told["what"], told["fix"]))
    counts: list[int] = told["counts"]
    return counts, told["unknown"] / max(1, sum(counts))
