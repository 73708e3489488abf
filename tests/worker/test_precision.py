"""The arithmetic of a run, as a process is set up for it."""

from __future__ import annotations

import torch

from orchestrator.worker.precision import Precision

CPU = torch.device("cpu")


def smallest() -> float:
    """A hundredth of the smallest normal number of fp32, computed as training computes."""
    return (torch.full((64,), torch.finfo(torch.float32).tiny) * 0.01).max().item()


def test_what_is_too_small_for_a_normal_number_is_zero_on_a_cpu_but_for_fp64() -> None:
    try:
        Precision("fp32", CPU).begin()
        assert smallest() == 0
        Precision("fp64", CPU).begin()
        assert smallest() > 0
    finally:
        torch.set_flush_denormal(False)


def test_a_batch_for_a_cpu_is_what_it_was_and_in_fp64_its_floating_tensors_are_too() -> None:
    batch = (torch.zeros(2), {"ids": torch.zeros(2, dtype=torch.int64)})
    assert Precision("fp32", CPU).place(batch) is batch
    placed = Precision("fp64", CPU).place(batch)
    assert (placed[0].dtype, placed[1]["ids"].dtype) == (torch.float64, torch.int64)


def test_tuning_changes_what_the_forward_pass_runs_in_and_the_way_back_leaves_nothing() -> None:
    precision = Precision("fp32", CPU)
    scaler, one = precision.scaler, torch.ones(2, 2)
    expected = {None: torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for lower in (*expected, None):
        precision.use(lower)
        with precision.forward_context():
            assert (one @ one).dtype == expected[lower], lower
        assert scaler.is_enabled() == (lower == "fp16") and precision.scaler is scaler
        assert (torch.backends.cuda.matmul.fp32_precision == "tf32") == (lower == "tf32")


def test_what_the_model_has_set_for_fp32_is_what_it_is_after_tf32() -> None:
    products, precision = torch.backends.cuda.matmul, Precision("fp32", CPU)
    try:
        for before in ("none", "ieee", "tf32"):
            products.fp32_precision = before
            with precision.trying("tf32"), precision.trying(None), precision.trying("tf32"):
                assert products.fp32_precision == "tf32"
            assert products.fp32_precision == before
    finally:
        products.fp32_precision = "none"
