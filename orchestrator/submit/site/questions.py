"""Asking a Slurm what it is: each question once, those that do not wait for each other at the same time."""

from __future__ import annotations

import os
import pwd
import re
import time
from pathlib import Path
from subprocess import CompletedProcess

from orchestrator.errors import Problem, SubmissionError
from orchestrator.submit.commands import find_program, missing_program, run_command
from orchestrator.submit.site.facts import (
    Config,
    SlurmFacts,
    parse_associations,
    parse_config,
    parse_nodes,
    parse_partitions,
    parse_qos,
)
from orchestrator.submit.slurm import clean_environment, one_line


class Questions:
    """Questions to one Slurm that share a deadline. Every answer, or SubmissionError with one line of why not."""

    def __init__(self, slurm_conf: str | None, *, timeout_s: float) -> None:
        self._env = clean_environment(os.environ, slurm_conf)
        self._deadline = time.monotonic() + timeout_s

    def config(self) -> Config:
        """What holds for the whole cluster.

        A ping goes first: it is told at once that nobody listens, where the other questions retry for 9 s, and a
        missing slurm.conf is found before that, for which Slurm's programs would wait 60 s.
        """
        conf = self._env.get("SLURM_CONF")
        if conf is not None and not Path(conf).is_file():
            raise SubmissionError(Problem(conf, "no such file: slurm.conf", "start the cluster, or correct the path"))
        if find_program("scontrol") is None:
            raise SubmissionError(missing_program("scontrol"))
        pinged = self._run("scontrol", "ping")
        if not re.search(r"\bUP\b", pinged.stdout):
            what = one_line(pinged.stderr) if pinged.stderr.strip() else "no controller answers"
            raise SubmissionError(Problem("scontrol ping", what, "is it running, and is this a login node?"))
        try:
            return parse_config(self.ask("scontrol", "show", "config"))
        except ValueError as error:
            raise SubmissionError(Problem("scontrol", str(error), "is this Slurm's own scontrol?")) from None

    def facts(self, config: Config, *, accounting: bool) -> tuple[SlurmFacts, str]:
        """Partitions and nodes; with `accounting`, what it enforces on this user too, or why that is not known."""
        from concurrent.futures import ThreadPoolExecutor  # here: no plan without a Slurm needs it

        with ThreadPoolExecutor(max_workers=4) as pool:
            partitions = pool.submit(self.ask, "scontrol", "--all", "--oneliner", "show", "partition")
            nodes = pool.submit(self.ask, "scontrol", "--all", "--oneliner", "show", "node")
            asks = accounting and config.enforces_accounts
            accounts = pool.submit(self.ask, *_accounts_of_user(config.cluster_name)) if asks else None
            qos = pool.submit(self.ask, "sacctmgr", "-nP", "show", "qos", "format=name,flags") if asks else None
        known = SlurmFacts(config, parse_partitions(partitions.result()), parse_nodes(nodes.result()))
        if accounts is None or qos is None:
            return known, ""
        try:
            told, flags = parse_associations(accounts.result()), parse_qos(qos.result())
        except SubmissionError as error:
            return known, reason(error)
        return SlurmFacts(config, known.partitions, known.nodes, associations=told, qos=flags), ""

    def ask(self, *argv: str) -> str:
        """The output of a program that succeeds."""
        done = self._run(*argv)
        if done.returncode:
            raise SubmissionError(Problem(argv[0], one_line(done.stderr), "try again in a minute"))
        return done.stdout

    def _run(self, *argv: str) -> CompletedProcess[str]:
        left_s = max(0.1, self._deadline - time.monotonic())
        return run_command(argv, timeout_s=round(left_s, 1), env=self._env)


def reason(error: SubmissionError) -> str:
    """One line of why Slurm could not be asked."""
    problem = error.problems[0]
    return f"{problem.where}: {problem.what}"


def _accounts_of_user(cluster_name: str) -> tuple[str, ...]:
    where = (f"user={_user_name()}", f"cluster={cluster_name}")
    return ("sacctmgr", "-nP", "show", "assoc", "where", *where, "format=account,partition,qos")


def _user_name() -> str:
    """Who sbatch says we are: by the user's number, whatever $USER says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
