"""A training loop of your own, with a run's plan, order of samples, checkpoints and journal.

The recipe has a `command` (your script) and `datasets`; model, loss and loop stay in the script:

    from orchestrator.worker import session

    with session.start() as run:
        net = network()
        optimizer = torch.optim.AdamW(net.parameters())
        model = run.prepare(net, optimizer)
        for window in run.windows():                    # one optimizer step each, from the checkpoint to the end
            for batch in window:                        # this rank's micro-batches
                with run.autocast():
                    loss_sum = loss(model(batch.inputs), batch.targets)
                batch.scale(loss_sum).backward()
            optimizer.step()
            optimizer.zero_grad()

Between two windows the session does what is due: it tells the step to the journal, saves as the recipe's `checkpoint`
says, and heeds a request to stop. docs/own-loops.md says the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import LaunchError, Problem, TrainingError
from orchestrator.plan.plan import Plan
from orchestrator.pulse import Phase
from orchestrator.run_dir import ATTEMPT_VARIABLE, AttemptDir, RunDir
from orchestrator.tracking.journal import Journal
from orchestrator.worker.checkpoints.saver import Saver, Stateful
from orchestrator.worker.course import Course
from orchestrator.worker.data.bad_samples import BadSamples
from orchestrator.worker.data.content import check_contents
from orchestrator.worker.data.datasets import open_datasets
from orchestrator.worker.data.loader import MicroBatches, data_loader
from orchestrator.worker.ending import end_children, memory_peaks, write_outcome
from orchestrator.worker.exchange import Exchange
from orchestrator.worker.failure import end_failed
from orchestrator.worker.inputs import Inputs, read_inputs
from orchestrator.worker.intake import Intake
from orchestrator.worker.memory_watch import MemoryWatch
from orchestrator.worker.optimizer import set_lr
from orchestrator.worker.own_log import OwnLog
from orchestrator.worker.own_time import own_time_of
from orchestrator.worker.own_window import OwnBatch, OwnWindow, Surroundings
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.precision import Precision
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.preflight import compare_nodes
from orchestrator.worker.prepared import Prepared
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.seeds import StepSeeds, seed_torch
from orchestrator.worker.settled import Settled
from orchestrator.worker.targets import UserCode
from orchestrator.worker.windows import windows_of
from orchestrator.worker.world import Peers, World

__all__ = ["OwnBatch", "OwnWindow", "Session", "start"]


@contextlib.contextmanager
def start() -> Iterator[Session]:
    """The session of this rank. When the block begins, all ranks have met and torch's generators are seeded alike.

    From here on a scheduler's signals are heard and not died of. At the end of the block the outcome is written. An
    error in it ends the process with status 1, after it was told: nothing may wait for ranks that no longer answer.
    Raises LaunchError where no run has started this process.
    """
    if ATTEMPT_VARIABLE not in os.environ:
        what = "no run has started this process"
        raise LaunchError(Problem("session.start()", what, "orchestrate submit a recipe whose command is this script"))
    stop, attempt = StopRequest(), AttemptDir(Path(os.environ[ATTEMPT_VARIABLE]))
    stop.install()
    pulse = Pulse.of_rank(os.environ)
    run = RunDir(attempt.path.parent.parent)
    try:
        world = World.from_env(os.environ)
        inputs = read_inputs(run, attempt, world)
        if not inputs.recipe.datasets:
            what, fix = "the recipe declares no datasets", "declare beside its command what the session shall read"
            raise LaunchError(Problem("session.start()", what, fix))
        precision = Precision(inputs.recipe.precision, world.device(inputs.accelerator))
        precision.begin()
        with (
            Journal(run.path, attempt=attempt.number, node=inputs.node, rank=world.rank) as journal,
            world.connected(precision.device) as peers,
        ):
            compare_nodes(inputs, peers, journal, pulse)
            session = Session(inputs, precision, peers, journal, stop, pulse)
            try:
                yield session
                session._end(attempt)
            except BaseException as error:
                told = session._explained(error)
                if told is error:
                    raise
                raise told from error
        end_children()
    except BaseException as error:
        rank = int(os.environ.get("RANK", 0))
        end_failed(attempt.error(rank), error, rank=rank, user_folder=run.snapshot_recipe)


class Session:
    """One rank's part in an attempt. What is called a collective, all ranks call alike."""

    def __init__(
        self, inputs: Inputs, precision: Precision, peers: Peers, journal: Journal, stop: StopRequest, pulse: Pulse
    ) -> None:
        self._inputs, self._precision, self._peers = inputs, precision, peers
        self._journal, self._stop, self._pulse = journal, stop, pulse
        recipe, code = inputs.recipe, UserCode(inputs.run.snapshot_recipe)
        skips_bad, grouped = recipe.loader.bad_samples > 0, recipe.loader.group_by_length
        self._data = open_datasets(
            code, recipe.datasets, seed=recipe.seed, where="datasets", skips_bad=skips_bad, grouped=grouped
        )
        self._contents = check_contents(self._data, {}, peers, journal)
        self._prepared: Prepared | None = None
        self._window: OwnWindow | None = None
        self._log = OwnLog(journal)
        self._memory = PeakMemory.from_now(precision.device)
        seed_torch(recipe.seed, precision.device)

    @property
    def plan(self) -> Plan:
        """What the run was planned to be on these machines: frozen, the same on every rank."""
        return self._inputs.plan

    @property
    def rank(self) -> int:
        return self._peers.world.rank

    @property
    def world_size(self) -> int:
        return self._peers.world.world_size

    @property
    def device(self) -> torch.device:
        return self._peers.device

    @property
    def step(self) -> int:
        """Completed optimizer steps, those before a resume among them."""
        return self._ready.course.progress.step

    @property
    def consumed_samples(self) -> int:
        """Samples in them, over all ranks: the run's clock."""
        return self._ready.course.progress.consumed_samples

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """For `precision: fp16`: `run.scaler.step(optimizer); run.scaler.update()`. It passes all through otherwise."""
        return self._ready.scaler

    @property
    def should_stop(self) -> bool:
        """Whether all ranks know that one of them was asked to stop. `windows` ends then by itself, after a save."""
        return self._ready.course.stopped_by is not None

    def prepare(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **more: Stateful) -> torch.nn.Module:
        """The model to call in the loop: on the rank's device, in the recipe's precision, its gradients averaged.

        Checkpoints hold `model`, `optimizer` and what `more` names (anything with state_dict and load_state_dict); the
        newest one is loaded here, and its place in the order of samples with it. The optimizer's lr is set before every
        window, times `lr_scale` of a parameter group that has one. A collective.
        """
        if self._prepared is not None:
            raise TrainingError(Problem("run.prepare()", "it was called before", "call it once, for one model"))
        inputs, precision, peers = self._inputs, self._precision, self._peers
        precision.place_model(model)
        saver = Saver(inputs, peers, model, optimizer, precision, self._journal, self._contents, more, self._pulse)
        progress = saver.restore() or Progress()
        lengths = self._data.lengths_of if inputs.recipe.loader.group_by_length else None
        windows = windows_of(inputs, world_size=self.world_size, rank=self.rank, lengths=lengths)
        own_time, distributed = own_time_of(peers, model), peers.distribute(model)
        course = Course(
            plan=inputs.plan,
            cadences=Cadences.of(inputs.recipe, inputs.plan),
            progress=progress,
            windows=windows,
            journal=self._journal,
            peers=peers,
            stop=self._stop,
            saver=saver,
            journal_ids=inputs.recipe.tracking.sample_ids,
            pulse=self._pulse,
            deadline=inputs.deadline(),
            own_time=own_time,
            exposed_s=Exchange(distributed).exposed_s,
            nodes=inputs.node_of_each_rank(),
        )
        settled = Settled(model)
        optimizer.register_step_pre_hook(lambda *_: settled.unsettle())
        draws = windows.draws_from(progress.consumed_samples)
        stream = MicroBatches(data_loader(self._data, draws, inputs.recipe.loader, device=self.device))
        self._prepared = Prepared(distributed, optimizer, saver.scaler, saver, course, settled, stream)
        return self._prepared.model

    def windows(self, count: Callable[[Any], int] | None = None) -> Iterator[OwnWindow]:
        """The run's windows from where it stands, each a step of the optimizer; it ends with the run, or asked to stop.

        `count(targets)` says what counts in a micro-batch, such as tokens (None: samples): the loss of a window is the
        sum of its losses over the sum of its counts, on all ranks. A window in which nothing counts is not given out.
        """
        ready = self._ready
        recipe, course, stream = self._inputs.recipe, ready.course, ready.stream
        bad_samples = BadSamples(recipe.loader.bad_samples, course.progress, self._journal, self._peers)
        intake = Intake(course.windows, count, bad_samples, self._peers, course.own_time)
        memory = MemoryWatch.of(recipe, rank=self.rank, device=self.device)
        shared = (ready.model, ready.scaler, self._precision, self._peers, memory, self._pulse, course.own_time)
        surroundings = Surroundings(*shared)
        seeds = StepSeeds(recipe.seed, self.rank, self.device)
        course.begin()
        while course.goes_on():
            step, lr, waited_before_s = self.step + 1, course.lr(), stream.waited_s
            taken = intake.take(stream, step=step, consumed_samples=self.consumed_samples)
            window = self._window = OwnWindow(taken, surroundings, step=step, lr=lr)
            if taken.count:
                set_lr(ready.optimizer, lr)
                seeds.begin(step)
                yield window
                window.check_whole()
            ready.settled.settle(step)
            self._log.write(course.progress, before=step)
            course.made(window.result, lr=lr, waited_s=stream.waited_s - waited_before_s)
        ready.is_over = True
        self._pulse.enter(Phase.REST)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """What model and loss run in: autocast for bf16 and fp16, nothing for fp32 and fp64."""
        self._pulse.beat()
        return self._precision.forward_context()

    def place(self, value: Any) -> Any:
        """The tensors in tuples, lists and dicts of `value` on the rank's device; floating ones in fp64 for fp64."""
        self._pulse.beat()
        return self._precision.place(value)

    def log(self, values: Mapping[str, float | torch.Tensor]) -> None:
        """Journal rank 0's `values` for the step of the present window, on their way to MLflow; elsewhere nothing is
        done. Tensors of one number are read a step late, so that nothing waits for a GPU. Names that begin with `val/`
        are the run's results, too."""
        if self.rank == 0:
            self._log.add(self.step if self._window is None else self._window.step, values)

    def sum(self, values: Sequence[float] | torch.Tensor) -> list[float]:
        """`values`, each summed over all ranks in fp64. A collective that waits for every rank."""
        self._pulse.beat()
        return self._peers.sum(values)

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """What validation of your own, or whatever else is no step, runs in: how long that is silent is another thing
        than how long a step is, so nobody takes it for a hang. See `hang_timeout`."""
        return self._pulse.during(Phase.EVALUATION)

    def save(self) -> None:
        """Save after the present window, beside what the recipe's `checkpoint` asks for. On all ranks."""
        self._ready.course.save_due = True

    def finish(self) -> None:
        """End the run well after the present window, before its planned end. On all ranks."""
        self._ready.course.ends_early = True

    @property
    def _ready(self) -> Prepared:
        if self._prepared is None:
            what = "there is no model yet"
            raise TrainingError(Problem("session", what, "call run.prepare(model, optimizer) first"))
        return self._prepared

    def _end(self, attempt: AttemptDir) -> None:
        """Write the outcome. Raises TrainingError where the loop has not come to it."""
        ready, progress = self._ready, self._ready.course.progress
        if not ready.is_over:
            fix = "go through run.windows() to its end, or call run.finish() on all ranks to end a run early"
            raise TrainingError(Problem(f"step {progress.step}", "the loop was left before the run's end", fix))
        self._log.write(progress, before=progress.step + 2)
        self._pulse.enter(Phase.END)
        peaks = memory_peaks(self._inputs, self._peers, self._memory)
        if self.rank == 0:
            self._journal.metrics(progress.step, peaks)
            write_outcome(attempt, progress, ready.course.stopped_by)
        ready.stream.close()

    def _explained(self, error: BaseException) -> BaseException:
        """`error`, with the micro-batch where memory ran out; what has been learnt is saved as far as that can be."""
        told = error if self._window is None else self._window.explained(error)
        if self._prepared is not None:
            self._prepared.rescue(told)
        return told
