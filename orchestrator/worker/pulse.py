"""A rank's signs of life: two stores into shared memory, about a microsecond each.

They say what the rank is at, its step and the time, and how long it was silent at most in each phase: the supervisor
of its node knows from that how long is too long. A rank that nobody supervises gives its signs to nobody.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic

from orchestrator.files import PRIVATE_FILE
from orchestrator.pulse import (
    LONGEST_AT,
    PLACE,
    PLACE_AT,
    PULSE_BYTES,
    SECONDS,
    STACK_SIGNAL,
    Phase,
    pulse_file,
    stack_file,
)
from orchestrator.run_dir import PULSE_VARIABLE

_PACK_PLACE = PLACE.pack_into
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Pulse:
    """The pulse of this process, in START from now on. For its main thread, but for `took`."""

    def __init__(self, buffer: bytearray | mmap.mmap | None = None) -> None:
        self._buffer = bytearray(PULSE_BYTES) if buffer is None else buffer
        self._phase, self._step, self._num_backward, self._at = Phase.START, 0, 0, monotonic()
        self._silence = 0.0
        """The longest one in this stretch of the phase."""
        self._longest = dict.fromkeys(Phase, 0.0)
        _PACK_PLACE(self._buffer, PLACE_AT, self._phase, self._step, self._num_backward, self._at)
        struct.pack_into("@q", self._buffer, 0, os.getpid())

    @classmethod
    def of_rank(cls, env: Mapping[str, str]) -> Pulse:
        """The pulse that this rank's supervisor feels, and stacks at STACK_SIGNAL. Without a supervisor, or where it
        cannot be had, one that nobody feels. Call it in the main thread, before anything slow."""
        if not env.get(PULSE_VARIABLE):
            return cls()
        folder = Path(env[PULSE_VARIABLE])
        try:
            rank = int(env.get("RANK", "0"))
            with pulse_file(folder, rank).open("r+b") as file:
                buffer = mmap.mmap(file.fileno(), PULSE_BYTES)
            stacks = os.open(stack_file(folder, rank), _APPEND, PRIVATE_FILE)
        except (OSError, ValueError):
            return cls()
        faulthandler.register(STACK_SIGNAL, stacks)
        return cls(buffer)

    def beat(self) -> None:
        """A sign of life in the midst of something."""
        now = monotonic()
        silence = now - self._at
        if silence > self._silence:
            self._silence = silence
        self._at = now
        _PACK_PLACE(self._buffer, PLACE_AT, self._phase, self._step, self._num_backward, now)

    def backward(self) -> None:
        """A backward pass is about to begin, in which this rank may wait for others that have not come so far."""
        self._num_backward += 1
        self.beat()

    def stepped(self, step: int) -> None:
        """`step` was made. What the first one took says how long another may take that is compiled anew."""
        phase, self._step, self._phase, self._num_backward = self._phase, step, Phase.STEP, 0
        self.beat()
        if phase is Phase.START or self._silence > self._longest[phase]:
            self._learn(phase, self._silence)
        self._silence = 0.0

    def enter(self, phase: Phase, step: int | None = None) -> None:
        """From now on this rank is at `phase`, with `step` completed steps."""
        self._phase, self._step = phase, self._step if step is None else step
        self.beat()
        self._silence = 0.0

    @contextlib.contextmanager
    def during(self, phase: Phase, *, learns: bool = True) -> Iterator[None]:
        """At `phase` in this block, and then again at what it was. `learns`: how long the block is silent is usual."""
        self.beat()
        outer, silence = self._phase, self._silence
        self.enter(phase)
        try:
            yield
        finally:
            self.beat()
            if learns:
                self.took(phase, self._silence)
            self.enter(outer)
            self._silence = silence

    def took(self, phase: Phase, seconds: float) -> None:
        """So long a silence in `phase` is usual. Any thread may say so."""
        if seconds > self._longest[phase]:
            self._learn(phase, seconds)

    def longest_s(self, phase: Phase) -> float:
        """The longest silence in `phase` so far; 0 where none is known."""
        return self._longest[phase]

    def _learn(self, phase: Phase, seconds: float) -> None:
        self._longest[phase] = seconds
        SECONDS.pack_into(self._buffer, LONGEST_AT + SECONDS.size * phase, seconds)
