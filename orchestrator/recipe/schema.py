"""What a recipe may say: frozen models that forbid unknown keys and never guess a type.

Everything a recipe can hold is here, with its unit and default; `docs/recipe.md` is generated from this file.
Counts are samples unless the name says otherwise. Checks that need two fields stand in `check.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.field_types import LARGEST, Count, Memory, Name, Walltime
from orchestrator.patterns import SLURM_CONSTRAINT, SLURM_WORD, VARIABLE
from orchestrator.recipe.amounts import Cadence, Duration, EvaluationCadence, Fraction, Positive, Warmup
from orchestrator.recipe.assets import Asset
from orchestrator.recipe.data import Dataset, Loader, Loss, Metric, Target, TargetName, Tuning, TuningMode
from orchestrator.recipe.mixture import Mixture
from orchestrator.recipe.section import Section

SlurmConstraint = Annotated[str, Field(pattern=SLURM_CONSTRAINT)]
SlurmWord = Annotated[str, Field(pattern=SLURM_WORD)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]


class Batch(Section):
    """The batch the optimizer sees. Exactly one of `effective` and `per_gpu`."""

    effective: Count | None = Field(
        default=None, description="Samples (or tokens, by `unit`) per optimizer step, on any allocation."
    )
    per_gpu: Count | None = Field(
        default=None,
        description="Samples per GPU per optimizer step; the effective batch becomes an output, and the lr follows it "
        "from `optimizer.base_batch`, where there is one.",
    )
    unit: Literal["samples", "tokens"] = Field(
        default="samples",
        description="What `effective`, `critical` and `optimizer.base_batch` count; tokens need `sequence_length`.",
    )
    sequence_length: Count | None = Field(default=None, description="Tokens in every sample, where `unit` is tokens.")
    micro: Count | Literal["auto"] | None = Field(
        default=None,
        description="Largest micro-batch that fits one GPU, in samples (default: no limit); `auto` lets "
        "`orchestrate fit` predict it.",
    )
    equal_micro: bool = Field(
        default=False, description="Give every micro-batch one size, however many accumulation steps that takes."
    )
    micro_multiple: Count = Field(
        default=1, description="Prefer micro-batches that are a multiple of it, such as 8 for tensor cores."
    )
    critical: Count | None = Field(
        default=None, description="Batch beyond which a larger one stops helping, if it is known; a warning."
    )
    on_indivisible: Literal["refuse", "nearest", "uneven"] = Field(
        default="refuse",
        description="When the ranks cannot share the batch evenly: refuse, take the nearest batch that they can "
        "(the lr follows from `optimizer.base_batch`, or else from the batch that was asked for), or let some ranks "
        "take one sample more (the batch stays exact).",
    )
    tolerance: Fraction = Field(
        default=0.05, description="How far `nearest` may go from the effective batch, as a fraction."
    )


class Optimizer(Section):
    """The optimizer and its learning rate at a reference batch."""

    name: Literal["sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adafactor", "lamb", "lars", "other"] = Field(
        examples=["adamw"], description="The optimizer; lamb, lars and other come with a `target`."
    )
    target: TargetName | None = Field(
        default=None, description="Your own optimizer, `f(parameters, lr=..., **args) -> torch.optim.Optimizer`."
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for `target`, which gets nothing else but the lr."
    )
    lr: Positive = Field(examples=["0.001"], description="Learning rate at `base_batch`.")
    base_batch: Count | None = Field(
        default=None, description="Batch, in `batch.unit`, that `lr` belongs to; without it the lr is taken as it is."
    )
    scaling: Literal["auto", "linear", "sqrt", "none"] = Field(
        default="auto",
        description="How the lr follows the batch; auto: linear for sgd and lars, sqrt for lamb and the Adam family.",
    )
    weight_decay: NonNegative = Field(default=0.0, description="Weight decay (decoupled for adamw and adafactor).")
    momentum: BelowOne = Field(default=0.0, description="Momentum of sgd and rmsprop.")
    nesterov: bool = Field(default=False, description="SGD: Nesterov momentum.")
    betas: tuple[BelowOne, BelowOne] = Field(
        default=(0.9, 0.999), strict=False, description="Decay rates of the Adam family."
    )
    eps: Positive = Field(default=1e-8, description="Denominator term of the Adam family and rmsprop.")
    clip_norm: Positive | None = Field(default=None, description="Clip the gradient's global 2-norm, once per step.")


class Schedule(Section):
    """The learning rate as a function of consumed samples."""

    name: Literal["constant", "cosine", "inverse_sqrt"] = Field(default="constant", description="Shape after warm-up.")
    warmup: Warmup | None = Field(default=None, description="Linear warm-up from zero.")
    final_ratio: Fraction = Field(default=0.0, description="Cosine: lr at the end, as a fraction of the peak.")


class Resources(Section):
    """What to ask the scheduler for. Changes where a run happens, never what it computes."""

    num_nodes: Count = Field(default=1, description="Nodes.")
    gpus_per_node: Count = Field(
        default=1, description="GPUs per node, one rank each (CPU ranks where there are none)."
    )
    gpu_type: Name | None = Field(default=None, description="GPU type, as the scheduler calls it (default: any).")
    cpus_per_gpu: Count | None = Field(default=None, description="CPU cores per GPU (default: the node's share).")
    memory: Memory | None = Field(default=None, description='Host memory per node, such as "64G".')
    walltime: Walltime | None = Field(default=None, description='Time limit in quotes, such as "2:00:00".')
    partition: SlurmWord | None = Field(default=None, description="Slurm partition (default: the profile's).")
    account: SlurmWord | None = Field(default=None, description="Slurm account.")
    qos: SlurmWord | None = Field(default=None, description="Slurm quality of service.")
    constraint: SlurmConstraint | None = Field(default=None, description="Slurm node features.")


class KeepBest(Section):
    """Which checkpoints to keep for what validation gave there; one is saved wherever it would be among them."""

    metric: str = Field(
        examples=["accuracy"],
        description="The loss or one of `metrics`, such as accuracy; `<set>/accuracy` where there are several "
        "validation sets.",
    )
    mode: Literal["max", "min"] = Field(examples=["max"], description="Whether a larger or a smaller value is better.")
    num: Count = Field(default=1, description="Checkpoints kept for it, beside the newest.")


class Checkpoint(Section):
    """When to save, and what to keep. The end of a run is always saved."""

    every: Cadence = Field(default_factory=lambda: Cadence(minutes=5.0), description="Time between checkpoints.")
    keep: Count = Field(default=2, description="Checkpoints kept, newest first.")
    keep_best: KeepBest | None = Field(default=None, description="Also keep the best by a validation metric.")


class NonFinite(Section):
    """What to do when the training loss or the gradient norm is NaN or infinite, on all ranks alike."""

    action: Literal["stop", "skip", "roll_back"] = Field(
        examples=["skip"],
        description="Stop; skip that window's update (weights and optimizer stay as they are); or go back to the "
        "newest checkpoint and pass over the window when it comes again.",
    )
    budget: Count = Field(default=10, description="Windows of the whole run that may be passed over; then it stops.")


class Evaluation(Section):
    """When to evaluate on the validation sets. The end of a run is always evaluated."""

    every: EvaluationCadence | None = Field(
        default=None, description="Distance between evaluations (default: each epoch)."
    )
    batch: Count | None = Field(
        default=None, description="Samples per forward pass (default: the training micro-batch)."
    )
    show: Target | None = Field(
        default=None,
        description="`f(model, **args) -> str`: something to look at after each evaluation, such as what the "
        "model generates, in Markdown. Rank 0 calls it; it is kept in the run's `shown/`, and in MLflow.",
    )


class Tracking(Section):
    """Where the MLflow run lives."""

    uri: str | None = Field(default=None, description="MLflow tracking URI (default: `sqlite:///<cwd>/mlflow.db`).")
    experiment: str | None = Field(default=None, description="MLflow experiment (default: the recipe's name).")
    sample_ids: bool = Field(default=False, description="Journal the sample ids of every step (for debugging data).")


class Mirrors(Section):
    """Mirrors for closed networks; environment of this job only, never global configuration."""

    huggingface: str | None = Field(default=None, description="Becomes `HF_ENDPOINT`.")
    git: dict[str, str] = Field(default_factory=dict, description="URL prefix -> mirror prefix, by git's `insteadOf`.")


class Environment(Section):
    """Variables for the job. `${oc.env:NAME}` is allowed here and nowhere else; its value is never logged."""

    variables: dict[Annotated[str, Field(pattern=VARIABLE)], str] = Field(
        default_factory=dict,
        description="Environment variables of the job, as text. For tests, `ORCHESTRATE_MICRO_BATCH_LIMIT` pretends "
        'that larger micro-batches run out of memory: "8" samples, "1:8" on rank 1, "8@100" from step 100, or "9,1:8".',
    )
    mirrors: Mirrors = Field(default_factory=Mirrors, description="Mirrors for closed networks.")


class Recipe(Section):
    """One experiment: what to train, on what, with which effective batch.

    Either `model` with `datasets` and `loss`, which the package trains; or `command` with `datasets`, a loop of one's
    own that opens a session; or `command` alone, a script that keeps everything to itself.
    """

    name: Name = Field(examples=["first"], description="Names the run directory, the job and the MLflow experiment.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Seeds initialisation, order and sampling."
    )
    model: Target | None = Field(default=None, description="`f(**args) -> torch.nn.Module`.")
    datasets: tuple[Dataset, ...] = Field(
        default=(), strict=False, description="Training data (beside `command`: for its session)."
    )
    mixture: Mixture | None = Field(
        default=None, description="How the datasets share the order of samples (default: shuffled together as one)."
    )
    validation: tuple[Dataset, ...] = Field(default=(), strict=False, description="Validation sets.")
    loss: Loss | None = Field(default=None, description="The objective, as (sum, count).")
    metrics: dict[Name, Metric] = Field(
        default_factory=dict, description="Validation metrics, `f(outputs, targets) -> (sum, count)`."
    )
    command: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Instead of a model: any torchrun-able script and its arguments, which may hold `${plan.X}`. "
        "Beside `datasets` it opens a session (`from orchestrator.worker import session`), which gives it their "
        "samples in exact windows, saves, resumes and ends; without datasets it does all of that by itself.",
    )
    batch: Batch = Field(examples=["{effective: 256}"], description="The effective batch.")
    optimizer: Optimizer = Field(examples=["{name: adamw, lr: 0.001}"], description="Optimizer and learning rate.")
    schedule: Schedule = Field(default_factory=Schedule, description="Learning rate over time.")
    duration: Duration = Field(examples=["{epochs: 10}"], description="How long to train.")
    precision: Literal["fp64", "fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Arithmetic of the forward pass."
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Recompute the blocks of the model (children of its ModuleLists) in the backward pass.",
    )
    compile: bool = Field(
        default=False,
        description="Run the model through torch.compile. Losses differ from those without it in rounding, and by what "
        "dropout draws; checkpoints are the same. Memory is predicted, and topologies are verified, without it.",
    )
    assets: dict[Name, Asset] = Field(
        default_factory=dict, description="What `orchestrate stage` fetches: tokenizers, models, files, repositories."
    )
    resources: Resources = Field(default_factory=Resources, description="What to ask the scheduler for.")
    loader: Loader = Field(default_factory=Loader, description="How samples reach the ranks.")
    tuning: Tuning = Field(default_factory=Tuning, description="What may be changed while the run trains.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="When to save.")
    on_non_finite_loss: NonFinite | None = Field(
        default=None, description="When the loss is not a finite number (default: stop)."
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="When to evaluate.")
    hang_timeout: Walltime = Field(
        default="0:01:00",
        description="Ranks that give no sign of life for this long, and ten times longer than they ever did, hang: "
        "they are ended, and their stacks kept. Start, first evaluation and first checkpoint have 15 minutes, or this "
        "if it is longer. A command without datasets gives no signs.",
    )
    preflight: bool = Field(
        default=False,
        description="Before the first step of each attempt, compare the nodes with each other: matrix products, links, "
        "an all-reduce, clocks, a write. It takes some seconds. A node that falls behind is named, and the job goes on "
        "without it where the others suffice. A command without datasets measures nothing.",
    )
    tracking: Tracking = Field(default_factory=Tracking, description="Where the MLflow run lives.")
    env: Environment = Field(default_factory=Environment, description="Variables and mirrors for the job.")

    @property
    def workers_tuning(self) -> TuningMode:
        """What may be done about the number of loader processes. With none of them, items may not bear to be forked."""
        if self.tuning.workers is not None:
            return self.tuning.workers
        has_own = bool(self.command) or any(dataset.iterable for dataset in self.datasets)
        return "off" if has_own or self.loader.workers == 0 else "auto"

    @property
    def amp_tuning(self) -> TuningMode:
        """What may be done about the precision: nothing where it is another than fp32, or the loop the user's own."""
        return "off" if self.command or self.precision != "fp32" else self.tuning.amp

    @property
    def opens_session(self) -> bool:
        """Whether it is a loop of one's own with a session: a command, and datasets for it."""
        return bool(self.command) and bool(self.datasets)

    @property
    def is_plain_command(self) -> bool:
        """Whether it is a command that keeps its data, its checkpoints and its end to itself."""
        return bool(self.command) and not self.datasets
