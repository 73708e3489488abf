"""The four verbs."""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.down import remove_all
from lab.errors import LabError
from lab.layout import Lab, read_labs
from lab.network import owner
from lab.status import read_record, read_status, render
from lab.up import up

_DEFAULT_STATE = Path(__file__).resolve().parents[1] / "state"


def main(argv: Sequence[str]) -> int:
    """Run one verb; exit status 0 done, 1 not up (status, env) or failed, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(argv)
    try:
        loopback = getattr(options, "loopback", False) or (options.verb == "up" and _is_not_root())
        return _run(options, read_labs(os.environ, default_state=_DEFAULT_STATE, loopback=loopback))
    except LabError as error:
        _say(str(error))
        return 1
    except OSError as error:
        _say(f"{error.filename or 'system'}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slurm",
        description="A real four-node Slurm cluster on this machine, for tests and for trying things out.",
        epilog="Environment: ORCHESTRATE_LAB_DIR, its directory; ORCHESTRATE_LAB_NUMBER (0-9), its number.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    bring_up = verbs.add_parser("up", help="bring it up, unless it is")
    bring_up.add_argument("--loopback", action="store_true", help="four slurmd on loopback, without namespaces")
    verbs.add_parser("down", help="end its jobs and daemons and remove all of it")
    status = verbs.add_parser("status", help="show its nodes and daemons; exit status 1 unless it is up")
    status.add_argument("--json", action="store_true", help="as JSON")
    verbs.add_parser("env", help='print what a shell needs: eval "$(cluster/dev/slurm env)"')
    return parser


def _run(options: argparse.Namespace, candidates: Sequence[Lab]) -> int:
    lab = candidates[0]
    if options.verb == "status":
        return _status(lab, as_json=options.json)
    if options.verb == "env":
        return _env(lab)
    with _locked(lab):
        if options.verb == "up":
            up(candidates, _say)
        else:
            remove_all(read_record(lab) or _owned(candidates) or lab)
            _say("down")
    return 0


def _is_not_root() -> bool:
    if os.geteuid() == 0:
        return False
    _say("not root: loopback variant")
    return True


def _owned(candidates: Sequence[Lab]) -> Lab | None:
    """The lab whose network is still there although its directory is gone."""
    return next((lab for lab in candidates if owner(lab) == str(lab.state)), None)


def _status(lab: Lab, *, as_json: bool) -> int:
    status = read_status(lab)
    print(json.dumps(dataclasses.asdict(status), indent=2) if as_json else render(status))
    return 0 if status.lab == "up" else 1


def _env(lab: Lab) -> int:
    if read_record(lab) is None:
        raise LabError("the lab is down; bring it up first: cluster/dev/slurm up")
    print(f"export SLURM_CONF={shlex.quote(str(lab.slurm_conf))}")
    return 0


@contextmanager
def _locked(lab: Lab) -> Iterator[None]:
    """Only one ``up`` or ``down`` at a time: the lock lies on the folder above, since the state comes and goes."""
    lab.state.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(lab.state.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _say(line: str) -> None:
    print(f"slurm: {line}", file=sys.stderr, flush=True)
