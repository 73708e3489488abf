"""A Slurm made of small programs on PATH: each records its call, and answers as the real one would."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = (
    f"#!{sys.executable}\n"
    + """
import json, os, pathlib, shutil, sys, time
room = pathlib.Path(sys.argv[0]).parent.parent
name = pathlib.Path(sys.argv[0]).name
with (room / "calls.jsonl").open("a") as calls:
    slurm = {key: value for key, value in os.environ.items() if key.startswith(("SLURM", "SBATCH"))}
    calls.write(json.dumps({"program": name, "argv": sys.argv[1:], "environment": slurm}) + "\\n")
answers = json.loads((room / "answers.json").read_text())
asked = [key for key in answers if key.split()[0] == name and set(key.split()[1:]) <= set(sys.argv[1:])]
answer = answers[max(asked, key=len)] if asked else {}
if isinstance(answer, list):
    number = sum(json.loads(line)["program"] == name for line in (room / "calls.jsonl").open()) - 1
    answer = answer[min(number, len(answer) - 1)]
jobs_file = room / "jobs.json"
jobs = json.loads(jobs_file.read_text()) if jobs_file.exists() else []
if name == "sbatch" and "--test-only" in sys.argv:
    (room / "tested.sh").write_text(sys.stdin.read())
elif name == "sbatch" and (not answer.get("code") or "arrives_after" in answer):
    shutil.copy(sys.argv[-1], room / "received.sh")
    job_id = 41 + len(jobs)
    comment = next(word for word in sys.argv if word.startswith("--comment=")).partition("=")[2]
    jobs.append({"id": job_id, "line": f"{job_id}|PENDING|{comment}|", "looks": answer.get("arrives_after", 0)})
    jobs_file.write_text(json.dumps(jobs))
    if "arrives_after" not in answer:
        print(f"Submitted batch job {job_id}")
elif name == "squeue" and "--me" in sys.argv and not answer:
    print(*(job["line"] for job in jobs if job["looks"] <= 0), sep="\\n")
    jobs_file.write_text(json.dumps([{**job, "looks": job["looks"] - 1} for job in jobs]))
elif name == "scancel" and not answer:
    jobs_file.write_text(json.dumps([job | {"looks": 9999} if str(job["id"]) == sys.argv[-1] else job for job in jobs]))
time.sleep(answer.get("hangs_s", 0))
print(answer.get("out", ""), end="")
print(answer.get("err", ""), end="", file=sys.stderr)
sys.exit(answer.get("code", 0))
"""
)


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
        names = ("sbatch", "srun", "sinfo", "squeue", "sacct", "sacctmgr", "scancel", "scontrol")
        install_programs(room, names, PROGRAM)
        fake = cls(room)
        fake.answers({})
        return fake

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.room / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def answers(self, answers: dict[str, dict[str, Any] | list[dict[str, Any]]]) -> None:
        """What each program says: {"squeue": {"out": "41|RUNNING\\n", "err": "", "code": 0}}.

        A key may go on with words that must be among the arguments: "sbatch --test-only", "scontrol show node".
        A list is answered in turn, by the number of the program's call; its last answer stays. Beside what it says,
        {"hangs_s": 9} answers late; of sbatch, {"arrives_after": n} takes the job and tells nobody: `squeue --me`
        shows it when it has been asked n times. Jobs that were taken are shown until scancel ends them.
        """
        (self.room / "answers.json").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.room / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls_of(self, program: str) -> list[list[str]]:
        return [call["argv"] for call in self.calls if call["program"] == program]

    @property
    def jobs(self) -> list[int]:
        """The ids of the jobs that are there: taken, and not ended by scancel."""
        path = self.room / "jobs.json"
        return [job["id"] for job in json.loads(path.read_text()) if job["looks"] < 999] if path.exists() else []

    @property
    def tested(self) -> str:
        """The script that `sbatch --test-only` was given."""
        return (self.room / "tested.sh").read_text()

    @property
    def received(self) -> bytes:
        """The script that sbatch was given."""
        return (self.room / "received.sh").read_bytes()
