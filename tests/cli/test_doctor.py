"""`orchestrate doctor`: a page to paste, the same as data, and an exit code that means it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import TINY, orchestrate
from tests.support.fake_slurm import FakeSlurm
from tests.support.ports import free_port

SITE = "{name: site, scheduler: slurm, partitions: {main: {nodes: {num_nodes: 1, cpus: 1}, default: true}}}"
SLEEPING_PROBE = "import sys, time; 'orchestrator.submit.doctor.probe' in sys.orig_argv and time.sleep(60)"
"""What a file system that does not answer does to the process that asks it."""


def test_a_machine_without_problems_is_a_page_and_exit_code_0(tmp_path: Path) -> None:
    done = orchestrate("doctor", TINY, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines, verdict = done.stdout.splitlines()
    assert head.startswith("orchestrate ")
    assert all(re.match(r"(ok|warning|unknown) +\S|  +-> \S", line) for line in lines), done.stdout
    assert any(line.startswith("ok       torchrun") for line in lines)
    assert verdict == "nothing is wrong" or re.match(r"\d+ warning|nothing is wrong; not known", verdict)
    assert list(tmp_path.iterdir()) == []


def test_a_problem_is_exit_code_1_and_its_line_has_what_to_do(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    uri = f"http://127.0.0.1:{free_port()}"
    recipe.write_text(TINY.read_text() + f"tracking: {{uri: '{uri}'}}\n")
    done = orchestrate("doctor", "recipe.yaml", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert facts["elapsed_s"] < 10
    problems = [finding for finding in facts["findings"] if finding["status"] == "problem"]
    assert [(problem["name"], problem["seen"]) for problem in problems] == [("mlflow", f"{uri}: Connection refused")]
    assert problems[0]["fix"]
    screen = orchestrate("doctor", "recipe.yaml", cwd=tmp_path).stdout
    assert "problem  mlflow" in screen and screen.splitlines()[-1].startswith("1 problem")


def test_with_everything_hanging_there_is_a_page_in_under_ten_seconds(tmp_path: Path) -> None:
    fake = FakeSlurm.install(tmp_path / "slurm")
    (fake.room / "bin" / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "sitecustomize.py").write_text(SLEEPING_PROBE)
    (tmp_path / "site.yaml").write_text(SITE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "recipe.yaml").write_text(TINY.read_text() + f"tracking: {{uri: '{uri}'}}\n")
        env = {**fake.environment, "PYTHONPATH": str(tmp_path)}
        started = time.monotonic()
        done = orchestrate("doctor", "recipe.yaml", "--cluster", "site.yaml", cwd=tmp_path, env=env)
        assert time.monotonic() - started < 10
    assert (done.returncode, done.stderr) == (0, "")
    unknown = dict(line.split(maxsplit=1)[1].split("  ", 1) for line in done.stdout.splitlines() if "unknown" in line)
    assert unknown.keys() == {"installation", "slurm", "run directory", "asset cache", "mlflow"}
    assert all("no answer within" in seen for seen in unknown.values())
    assert done.stdout.splitlines()[-1].endswith("not known: installation, slurm, run directory, asset cache, mlflow")
    assert "ok       torchrun" in done.stdout


def test_a_broken_recipe_is_told_as_everywhere(tmp_path: Path) -> None:
    done = orchestrate("doctor", "nowhere.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nowhere.yaml: there is no such file")


@pytest.mark.parametrize("verb", ["doctor", "status"])
def test_a_folder_that_has_been_deleted_is_told_in_a_line(tmp_path: Path, verb: str) -> None:
    program = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); "
    program += f"import sys; sys.argv = ['orchestrate', '{verb}']; sys.path.remove(''); "
    program += "from orchestrator.cli.__main__ import main; sys.exit(main())"
    done = subprocess.run((sys.executable, "-c", program), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "the current folder is not there any more\n    cd to one that is\n")
