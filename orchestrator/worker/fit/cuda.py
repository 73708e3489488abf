"""Operations whose memory differs between a GPU and the CPU that simulates it, as the GPU would do them.

A simulation on fake CPU tensors takes the CPU's own choices: autocast leaves a layer norm, a softmax and a loss in
bf16, dropout remembers its mask in the data's type, and attention with dropout builds the whole score matrix.
CUDA widens the former to fp32, remembers a mask in bytes, and draws attention's mask again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from orchestrator.worker.precision import map_tensors

_NARROW = (torch.bfloat16, torch.float16)
_WIDENED = frozenset({
    "__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "acos", "asin", "binary_cross_entropy_with_logits", "cosh",
    "cosine_embedding_loss", "cdist", "cosine_similarity", "cross_entropy", "cumprod", "cumsum", "dist", "erfinv",
    "exp", "expm1", "group_norm", "hinge_embedding_loss", "kl_div", "l1_loss", "layer_norm", "log", "log10",
    "log_softmax", "log1p", "log2", "margin_ranking_loss", "mse_loss", "multilabel_margin_loss", "multi_margin_loss",
    "nll_loss", "norm", "normalize", "pow", "reciprocal", "renorm", "rsqrt", "sinh", "smooth_l1_loss",
    "soft_margin_loss", "softmax", "softmin", "softplus", "tan", "triplet_margin_loss",
})  # fmt: skip
"""What CUDA autocasts to fp32, by the name Python calls it. Source: PyTorch's automatic mixed precision manual."""
_ATTENTION_DROPOUT = 10
"""The position of dropout_p in multi_head_attention_forward."""


class AsOnCuda(TorchFunctionMode):
    """Within it, torch functions take the memory they would take on a GPU; values mean nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _WIDENED and torch.is_autocast_enabled("cpu"):
            args, kwargs = map_tensors((args, kwargs), _wide)
        elif name == "dropout":
            return _dropout(*args, **kwargs)
        elif name == "scaled_dot_product_attention":
            args, kwargs = args[:4], {**kwargs, **dict(zip(("dropout_p", "is_causal"), args[4:6], strict=False))}
            kwargs["dropout_p"] = 0.0
        elif name == "multi_head_attention_forward" and len(args) > _ATTENTION_DROPOUT:
            args = (*args[:_ATTENTION_DROPOUT], 0.0, *args[_ATTENTION_DROPOUT + 1 :])
        return func(*args, **kwargs)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in _NARROW else tensor


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Dropout as CUDA's fused kernel keeps it: the output and a mask of one byte an element."""
    if not training or p == 0:
        return input
    output: torch.Tensor = torch.native_dropout(input, p, True)[0]
    return output
