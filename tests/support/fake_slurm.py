"""A Slurm made of small programs on PATH: each records its call, and answers as the real one would."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
room = pathlib.Path({{room!r}})
name = pathlib.Path(sys.argv[0]).name
with (room / "calls.jsonl").open("a") as calls:
    slurm = {{{{key: value for key, value in os.environ.items() if key.startswith(("SLURM", "SBATCH"))}}}}
    calls.write(json.dumps({{{{"program": name, "argv": sys.argv[1:], "environment": slurm}}}}) + "\\n")
answers = json.loads((room / "answers.json").read_text())
asked = [key for key in answers if key.split()[0] == name and set(key.split()[1:]) <= set(sys.argv[1:])]
answer = answers[max(asked, key=len)] if asked else {{{{}}}}
if name == "sbatch" and "--test-only" in sys.argv:
    (room / "tested.sh").write_text(sys.stdin.read())
elif name == "sbatch" and not answer.get("code"):
    shutil.copy(sys.argv[-1], room / "received.sh")
    print("Submitted batch job 41")
print(answer.get("out", ""), end="")
print(answer.get("err", ""), end="", file=sys.stderr)
sys.exit(answer.get("code", 0))
"""


def install_programs(room: Path, names: Sequence[str], text: str) -> None:
    """Put a program of each name into `room/bin`, all with the same text: it looks at the name it was called by."""
    programs = room / "bin"
    programs.mkdir(parents=True)
    for name in names:
        (programs / name).write_text(text)
        (programs / name).chmod(0o700)


@dataclass(frozen=True)
class FakeSlurm:
    """A folder of programs to put on PATH, and what they were asked."""

    room: Path

    @classmethod
    def install(cls, room: Path) -> FakeSlurm:
        names = ("sbatch", "srun", "squeue", "sacct", "sacctmgr", "scancel", "scontrol")
        install_programs(room, names, PROGRAM.format(room=str(room)))
        fake = cls(room)
        fake.answers({})
        return fake

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.room / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def answers(self, answers: dict[str, dict[str, Any]]) -> None:
        """What each program says: {"squeue": {"out": "41|RUNNING\\n", "err": "", "code": 0}}.

        A key may go on with words that must be among the arguments: "sbatch --test-only", "scontrol show node".
        """
        (self.room / "answers.json").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.room / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls_of(self, program: str) -> list[list[str]]:
        return [call["argv"] for call in self.calls if call["program"] == program]

    @property
    def tested(self) -> str:
        """The script that `sbatch --test-only` was given."""
        return (self.room / "tested.sh").read_text()

    @property
    def received(self) -> bytes:
        """The script that sbatch was given."""
        return (self.room / "received.sh").read_bytes()
