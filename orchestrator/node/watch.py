"""Watching over this node's ranks: silence for too long, of everybody on every node, is a hang.

A supervisor whose ranks are all silent says so in its node's file, and looks into the others'. Once all say so, each
keeps the stacks of its ranks, the one with the rank that hung first at last: then it ends its node, and by that the
attempt. The others would do the same a while later.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.hang import Hang, first_to_hang
from orchestrator.heartbeat import SILENT_S, Heartbeat
from orchestrator.machine import process_state
from orchestrator.node.launch import NodeLaunch
from orchestrator.node.neighbours import Neighbours
from orchestrator.node.patience import silences
from orchestrator.node.stacks import Stuck, dump_stacks, find_tool
from orchestrator.pulse import Sign, make_pulse, read_sign, stack_file
from orchestrator.run_dir import AttemptDir
from orchestrator.talk import tell

_SHARED_MEMORY = Path("/dev/shm")
_WAS_STOPPED_S = 10.0
"""A supervisor that has not looked for so long was itself stopped: by `scontrol suspend`, say."""
_OTHERS_TELL_S = 10.0
"""What the node with the rank that hung first gives the others to keep their stacks, before it keeps its own: a rank
that is stopped may have to go on for that."""
_OTHERS_FIRST_S = 30.0
"""What the others give that node for both, and for the end of the attempt."""
_HELD = frozenset("TtD")
"""States of a process that the kernel does not let run: stopped, traced, waiting for a disk."""


@contextlib.contextmanager
def pulses(launch: NodeLaunch) -> Iterator[Path | None]:
    """A private folder in this machine's memory with a pulse for each of the node's ranks, gone after the block.

    None where there is no room for it: nobody watches then.
    """
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="orchestrate-", dir=parent))
        for rank in launch.ranks:
            make_pulse(folder, rank)
    except OSError as error:
        tell(f"supervisor: no watch over hangs: {error}")
    try:
        yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class Watch:
    """Over the ranks of one node. `finds_hang` is to be asked about once a second."""

    def __init__(self, launch: NodeLaunch, attempt: AttemptDir, folder: Path | None, file: Heartbeat) -> None:
        self._launch, self._attempt, self._folder, self._file = launch, attempt, folder, file
        self._neighbours = Neighbours([attempt.node(name) for name in launch.other_nodes])
        self._signs: dict[int, Sign] = {}
        self._looked_at_s = self._awake_since_s = time.monotonic()
        self._seen_twice: dict[int, Sign] = {}
        self.stand_still = False
        """Whether all ranks of this node are silent for longer than they should be, and for a while at least."""
        self._told: Hang | None = None
        """The first of this node's ranks to hang, as its file says it."""
        self._all_silent_since_s: float | None = None
        self._stacks: dict[int, str] | None = None
        """Those kept, by rank. Kept once: by a second look, a node that has ended may have let the others go on."""

    def finds_hang(self) -> bool:
        """Whether this node's ranks are to be ended because of a hang; the node's file says it by then.

        It says too whether they stand still, which is a hang or none: the driver asks Slurm why.
        """
        self._look()
        own = self._own_hangs()
        if bool(own) != bool(self._told):
            self._tell(first_to_hang(own) if own else None)
        others = self._neighbours.hangs() if self._told else None
        if others is None or self._told is None:
            self._all_silent_since_s = self._stacks = None
            return False
        now = time.monotonic()
        since_s = self._all_silent_since_s = self._all_silent_since_s or now
        if first_to_hang((self._told, *others)) is self._told:
            if now - since_s < _OTHERS_TELL_S and not all(other.stack for other in others):
                return False
        elif now - since_s < _OTHERS_FIRST_S:
            if self._stacks is None:
                stacks = {hang.rank: hang.stack for hang in self._keep_stacks(own)}
                self._tell(replace(self._told, stack=stacks.get(self._told.rank)))
            return False
        hang = first_to_hang(own if self._stacks is not None else self._keep_stacks(own))
        self._file.try_write(hang=hang.as_json())
        tell(f"supervisor: {_in_words(hang)}")
        return True

    def _tell(self, hang: Hang | None) -> None:
        """What all nodes compare. It stays as it is while the silence lasts, or two would each take themselves for the
        first: what is measured anew is a moment off."""
        self._told = hang
        self._file.try_write(silent=hang.as_json() if hang else None)

    def _look(self) -> None:
        """Read the ranks' signs. None of them counts that is not there twice."""
        now = time.monotonic()
        if now - self._looked_at_s > _WAS_STOPPED_S:
            self._awake_since_s = now
        self._looked_at_s = now
        before, self._signs = self._signs, self._read_signs()
        self._seen_twice = self._signs if self._signs == before else {}
        stand_still = bool(self._silences(min(SILENT_S, self._launch.hang_timeout_s)))
        if stand_still != self.stand_still:
            self.stand_still = stand_still
            self._file.try_write(stand_still=stand_still)

    def _silences(self, floor_s: float) -> dict[int, float]:
        """By rank, if each is silent for too long; else nothing."""
        awake_since_s = self._awake_since_s
        return silences(self._seen_twice, now_s=self._looked_at_s, awake_since_s=awake_since_s, floor_s=floor_s)

    def _own_hangs(self) -> tuple[Hang, ...]:
        silent_s = self._silences(self._launch.hang_timeout_s)
        return tuple(self._hang_of(rank, seconds) for rank, seconds in silent_s.items())

    def _read_signs(self) -> dict[int, Sign]:
        """By rank, without those that have ended; nothing as long as one has not begun."""
        if self._folder is None:
            return {}
        signs = {rank: sign for rank in self._launch.ranks if (sign := read_sign(self._folder, rank))}
        if len(signs) < len(self._launch.ranks):
            return {}
        return {rank: sign for rank, sign in signs.items() if process_state(sign.pid)}

    def _hang_of(self, rank: int, silent_s: float) -> Hang:
        sign = self._signs[rank]
        return Hang(
            rank=rank,
            phase=sign.phase.word,
            silent_s=silent_s,
            stack=(self._stacks or {}).get(rank),
            step=sign.step,
            num_backward=sign.num_backward,
            is_held=process_state(sign.pid) in _HELD,
            since=time.time() - silent_s,
        )

    def _keep_stacks(self, hangs: Sequence[Hang]) -> tuple[Hang, ...]:
        """The same, with the files that show where they stand."""
        assert self._folder is not None
        self._file.try_write()
        stuck = {
            hang.rank: Stuck(
                pid=self._signs[hang.rank].pid,
                told=_in_words(hang),
                own=stack_file(self._folder, hang.rank),
                file=self._attempt.stack(hang.rank),
            )
            for hang in hangs
        }
        kept, root = dump_stacks(tuple(stuck.values()), tool=find_tool()), self._attempt.path
        found = {rank: str(one.file.relative_to(root)) for rank, one in stuck.items() if one.pid in kept}
        self._stacks, self._looked_at_s = found, time.monotonic()
        return tuple(replace(hang, stack=found.get(hang.rank)) for hang in hangs)


def _in_words(hang: Hang) -> str:
    what = (
        f"rank {hang.rank} gave no sign of life for {hang.silent_s:.0f} s in its {hang.phase}, after step {hang.step}"
    )
    return f"{what}; it is stopped, or waits for a disk" if hang.is_held else what
