"""`python -m orchestrator.worker.data.texts REQUEST ANSWER`: the text in a random sample of a dataset's items.

REQUEST is a JSON file: {folder, dataset (as in the recipe), seed, most_items, most_bytes, most_s}. ANSWER gets
{num_samples, items: [[text, ...], ...]}, or {what}. A process of its own, because it runs the user's code.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.files import read_json, write_json
from orchestrator.plan.token_rules import texts_in
from orchestrator.recipe.data import Dataset
from orchestrator.worker.failure import one_line
from orchestrator.worker.targets import UserCode


def sampled_texts(request: dict[str, Any]) -> dict[str, Any]:
    """The answer: items in random order without repetition, until one of the limits is reached or all are read."""
    dataset = UserCode(Path(request["folder"])).build(Dataset.model_validate(request["dataset"]))
    num_samples = len(dataset)
    stop_at = time.monotonic() + request["most_s"]
    items: list[list[str]] = []
    num_bytes = 0
    chosen = random.Random(request["seed"]).sample(range(num_samples), min(num_samples, request["most_items"]))
    for index in chosen:
        items.append(list(texts_in(dataset[index])))
        num_bytes += sum(len(text.encode()) for text in items[-1])
        if num_bytes >= request["most_bytes"] or time.monotonic() > stop_at:
            break
    return {"num_samples": num_samples, "items": items}


def main(request_path: str, answer_path: str) -> None:
    """Write the answer; an error of the user's code is one line of it."""
    request = read_json(Path(request_path))
    try:
        told = sampled_texts(request)
    except Exception as error:  # the user's code may raise anything
        told = {"what": one_line(error, Path(request["folder"]).resolve())}
    write_json(Path(answer_path), told)


if __name__ == "__main__":
    main(*sys.argv[1:])
