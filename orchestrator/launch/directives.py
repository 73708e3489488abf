"""What may be the value of an option of sbatch, in a script or on its command line. Pure."""

from __future__ import annotations

import re

from orchestrator.errors import Problem, RecipeError

_ALLOWED = re.compile(r"[A-Za-z0-9_./(\[][A-Za-z0-9_.,:/@%+=&|()\[\]*-]{0,999}")


def allowed(option: str, value: str) -> str:
    """`value` itself. Raises RecipeError where it may not be one."""
    if not _ALLOWED.fullmatch(value):
        what = f"{value!r} may not stand in a job script"
        raise RecipeError(Problem(option, what, "use letters, digits and . , : / @ % + = - only, without spaces"))
    return value
