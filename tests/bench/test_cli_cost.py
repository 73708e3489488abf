"""What the login side costs, as ratios of CPU time measured in one run against `python -c pass`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import RECIPES, TINY

ROUNDS = 9
TRIES = 3
"""What else runs on the machine is not the verb's doing: as many measurements before one fails."""
DIGITS = RECIPES.parents[2] / "recipes" / "digits" / "digits.yaml"
ENTRY = Path(sys.executable).parent / "orchestrate"

pytestmark = pytest.mark.bench


def cpu_s(argv: tuple[str, ...], cwd: Path) -> float:
    """CPU seconds, user and system, of one finished process; compiled modules are kept, as on a person's machine."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, argv
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("words", "most"),
    [(("--help",), 6.0), (("plan", str(TINY)), 26.0), (("plan", str(DIGITS)), 26.0)],
    ids=["--help", "plan tiny", "plan digits"],
)
def test_a_verb_costs_at_most_so_many_times_an_empty_python(
    words: tuple[str, ...], most: float, tmp_path: Path
) -> None:
    """26 is what torchx 0.7.0's dry run of `dist.ddp -j 2x8` costs, measured the same way."""
    cpu_s((str(ENTRY), *words), tmp_path)
    argvs = ((sys.executable, "-c", "pass"), (str(ENTRY), *words))
    for _ in range(TRIES):
        pairs = [tuple(cpu_s(argv, tmp_path) for argv in argvs) for _ in range(ROUNDS)]
        ratio = statistics.median(verb for _, verb in pairs) / statistics.median(empty for empty, _ in pairs)
        print(f"\norchestrate {words[0]}: {ratio:.1f} times python -c pass (at most {most:g})")
        if ratio <= most:
            break
    assert ratio <= most
