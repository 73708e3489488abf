"""Calls the function that prepares an asset: `python -m ... TASK`, as the recipe's author would call it in a script."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from orchestrator.submit.assets.prepare import FAULT


def call(task: dict[str, Any]) -> None:
    """Import the function, its folder first on the path, and call it."""
    sys.path.insert(0, task["code"])
    module, _, name = task["target"].partition(":")
    function = getattr(importlib.import_module(module), name)
    assets = {name: Path(path) for name, path in task["assets"].items()}
    function(assets, Path(task["folder"]), **task["args"])


def main(text: str) -> int:
    """0 when it is done; else what was raised, and where in the recipe's code, is told in one line."""
    task = json.loads(text)
    try:
        call(task)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(task["code"])]
        last = (own or frames)[-1]
        first_line = str(error).strip().partition("\n")[0]
        where = f"{Path(last.filename).name}:{last.lineno}"
        fault = {"what": f"{type(error).__name__}: {first_line}".rstrip(": "), "where": where}
        sys.stderr.write(f"{FAULT}{json.dumps(fault)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
