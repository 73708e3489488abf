"""Print README.md with its shown outputs made anew: `python docs/generate_readme.py > README.new`, in the repository.

The recipe of the first screen is run through the commands beside it, next to the digits recipe's own Python.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- (?P<name>[a-z]+) -->\n```(?:yaml)?\n)(?P<text>.*?)(?=```\n)", re.DOTALL)


def blocks(readme: str) -> dict[str, str]:
    """The marked blocks of a README, by name."""
    return {match["name"]: match["text"] for match in _BLOCK.finditer(readme)}


def regenerated(readme: str) -> str:
    """`readme` with the output of each shown command as it is now."""
    recipe = blocks(readme)["recipe"]

    def shown(match: re.Match[str]) -> str:
        if match["name"] == "recipe":
            return match[0]
        command = match["text"].splitlines()[0]
        return f"{match[1]}{command}\n{output_of(command.removeprefix('$ '), recipe)}"

    return _BLOCK.sub(shown, readme)


def output_of(command: str, recipe: str) -> str:
    """What a command of the README prints, stdout and stderr, for the recipe of its first screen."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.py", "data.py"):
            shutil.copy(ROOT / "recipes" / "digits" / name, folder)
        Path(folder, "recipe.yaml").write_text(recipe)
        Path(folder, "cluster").symlink_to(ROOT / "cluster")
        words = (sys.executable, "-m", "orchestrator.cli", *shlex.split(command)[1:])
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr


if __name__ == "__main__":
    sys.stdout.write(regenerated((ROOT / "README.md").read_text()))
