"""`python -m orchestrator.job.unreached NODE`: exit code 0 when Slurm gets no answer from that node, else 1.

What a supervisor asks when the driver on another node has fallen silent. Where Slurm does not answer, nothing is known.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orchestrator.job.slurm_job import ask_unreached


def main(arguments: Sequence[str]) -> int:
    """Ask Slurm about one node."""
    return 0 if arguments[0] in ask_unreached(arguments[0]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
