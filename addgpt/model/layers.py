"""What a block is made of besides attention: norms, activations, matrices of full or low rank."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SquaredReLU(torch.autograd.Function):
    """max(x, 0)^2 (So et al. 2021, arXiv:2109.08668), with one pass over memory less backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


class UnitLength(torch.autograd.Function):
    """x / |x| along the last axis, as F.normalize, whose gradient takes three times as long."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        unit = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        along = (gradient * unit).sum(-1, keepdim=True)
        return torch.addcmul(gradient, unit, along, value=-1).div_(length)


class UnitSquare(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) along the last axis, as F.rms_norm, quicker backward on CPUs."""

    @staticmethod
    def forward(ctx, x: Tensor, eps: float) -> Tensor:
        rate = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        unit = x * rate
        ctx.save_for_backward(unit, rate)
        return unit

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        unit, rate = ctx.saved_tensors
        along = (gradient * unit).mean(-1, keepdim=True)
        return torch.addcmul(gradient, unit, along, value=-1).mul_(rate), None


class RMSNorm(nn.RMSNorm):
    """Zhang and Sennrich 2019 (arXiv:1910.07467); other devices have a kernel of their own."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype.itemsize < 4:
            return super().forward(x)
        unit = UnitSquare.apply(x, torch.finfo(x.dtype).eps)
        return unit if self.weight is None else unit * self.weight


def swiglu(x: Tensor) -> Tensor:
    """(..., 2 N) gates and what they let through -> (..., N) (Shazeer 2020, arXiv:2002.05202)."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def geglu(x: Tensor) -> Tensor:
    """As `swiglu`, with GELU."""
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate) * up


# What each does, and its paper: addgpt/config/catalogue.py.
ACTIVATIONS = {
    "relu2": SquaredReLU.apply,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "swiglu": swiglu,
    "geglu": geglu,
}
NORMS = {
    "rms": RMSNorm,
    "layer": nn.LayerNorm,
    "plain": lambda width: RMSNorm(width, elementwise_affine=False),
    "none": lambda width: nn.Identity(),
}


class Product(nn.Module):
    """A matrix, or a stack (..., rows, columns), of low rank (Winata et al. 2020,
    arXiv:1910.13923)."""

    def __init__(self, rank: int, *shape: int) -> None:
        super().__init__()
        *stack, rows, columns = shape
        self.left = nn.Parameter(torch.empty(*stack, rows, rank))
        self.right = nn.Parameter(torch.empty(*stack, rank, columns))


def matrix(rank: int, *shape: int) -> nn.Parameter | Product:
    """A trained matrix (or stack) of some rank; 0: of full rank."""
    return Product(rank, *shape) if rank else nn.Parameter(torch.empty(shape))


class Table(nn.Module):
    """A trained vector for each token, as `nn.Embedding`, or the product of two matrices: a few
    numbers for each token, and what they stand for (Lan et al. 2019, arXiv:1909.11942)."""

    def __init__(self, rank: int, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = matrix(rank, rows, columns)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., columns)."""
        return F.embedding(tokens, full(self.weight))


def full(matrix: nn.Parameter | Product) -> Tensor:
    """The numbers of a `matrix`."""
    return matrix.left @ matrix.right if isinstance(matrix, Product) else matrix
