"""What Slurm's programs say when nobody has answered them. Pure."""

from __future__ import annotations

import re

UNREACHED = re.compile(
    r"unable to contact|connection refused|timed out|zero bytes|communication|connect failure|munge|credential"
    r"|configuration (file|source)|temporarily una|in standby|slurm_persist",
    re.I,
)
"""Slurm's words for not having been asked, or for an answer that was lost; any other error is its answer."""
