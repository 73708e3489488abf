"""Docs that can be generated are, and are compared. (The README's first command is run by tests/cli.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("script", "page"),
    [("generate_recipe.py", "docs/recipe.md"), ("generate_cli.py", "docs/cli.md"), ("generate_readme.py", "README.md")],
)
def test_a_generated_page_is_up_to_date(script: str, page: str) -> None:
    command = (sys.executable, str(ROOT / "docs" / script))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == (ROOT / page).read_text(), f"run `make docs`: {page} is not what {script} prints"


def test_decision_records_fit_on_a_page() -> None:
    for record in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(record.read_text().splitlines()) <= 40, record
