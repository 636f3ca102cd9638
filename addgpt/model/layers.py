"""Matrices, norms and activations: what modules are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Custom gradients are used only where a gradient is needed: they take five microseconds more, as
# long as the formula itself for a single token.

NARROW = 32  # numbers from which torch's softmax is quicker


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


class L2Normalise(torch.autograd.Function):
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


def l2_normalise(x: Tensor) -> Tensor:
    """x / |x| along the last axis."""
    if torch.is_grad_enabled():
        return L2Normalise.apply(x)
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)


class RMSNormalise(torch.autograd.Function):
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
        unit = RMSNormalise.apply(x, torch.finfo(x.dtype).eps)
        return unit if self.weight is None else unit * self.weight


class NarrowSoftmax(torch.autograd.Function):
    """Softmax along a last axis of few numbers, for which torch's takes five times as long."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        shares = _shares(x)
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (shares,) = ctx.saved_tensors
        product = gradient * shares
        return product.addcmul_(shares, product.sum(-1, keepdim=True), value=-1)


def softmax(x: Tensor) -> Tensor:
    """Softmax along the last axis."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype.itemsize < 4:
        return x.softmax(-1)
    if x.shape[-1] >= NARROW:
        return x.softmax(-1)
    return NarrowSoftmax.apply(x) if torch.is_grad_enabled() else _shares(x)


def _shares(x: Tensor) -> Tensor:
    powers = (x - x.amax(-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(-1, keepdim=True))


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)^2."""
    return SquaredReLU.apply(x) if torch.is_grad_enabled() else F.relu(x).square()


def swiglu(x: Tensor) -> Tensor:
    """(..., 2 N) gate and value halves -> (..., N) (Shazeer 2020, arXiv:2002.05202)."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


class GEGLU(torch.autograd.Function):
    """`geglu`, whose gradient is written to one place instead of joined from two."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        ctx.save_for_backward(gate, up)
        return F.gelu(gate).mul_(up)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gate, up = ctx.saved_tensors
        found = gradient.new_empty(*gate.shape[:-1], 2 * gate.shape[-1])
        to_gate, to_up = found.chunk(2, dim=-1)
        torch.mul(gradient, F.gelu(gate), out=to_up)
        torch.mul(torch.ops.aten.gelu_backward(gradient, gate), up, out=to_gate)
        return found


def geglu(x: Tensor) -> Tensor:
    """As `swiglu`, with GELU."""
    if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return GEGLU.apply(x)
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate) * up


# What each does, and its paper: addgpt/config/catalogue.py.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": relu2,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "swiglu": swiglu,
    "geglu": geglu,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "rms": RMSNorm,
    "layer": nn.LayerNorm,
    "plain": lambda width: RMSNorm(width, elementwise_affine=False),
    "none": lambda width: nn.Identity(),
}


class Part(nn.Module):
    """A module of the GPT that fills its own weights."""

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        """Draw all weights; with `zero`, what adds to the residual stream starts at zero."""
        raise NotImplementedError


class LowRank(nn.Module):
    """A matrix (rows, columns), or a stack (..., rows, columns), as the product of two (Winata et
    al. 2020, arXiv:1910.13923)."""

    def __init__(self, rank: int, *shape: int) -> None:
        super().__init__()
        *stack, rows, columns = shape
        self.left = nn.Parameter(torch.empty(*stack, rows, rank))
        self.right = nn.Parameter(torch.empty(*stack, rank, columns))

    def forward(self) -> Tensor:
        return self.left @ self.right


class TokenRows(nn.Module):
    """A table (tokens, width) with a trained row for some tokens alone, zeros for the others.

    The first `arc` tokens lie on an arc of a circle in the first two channels (numbers on a helix:
    Kantamneni and Tegmark 2025, arXiv:2502.00873), three numbers for all: its radius, the angle of
    the first, and the step from one to the next.
    """

    free: Tensor

    def __init__(self, tokens: int, width: int, arc: int, used: tuple[int, ...]) -> None:
        super().__init__()
        free = [token for token in used or range(tokens) if token >= arc]
        self.tokens, self.points = tokens, arc
        self.rows = nn.Parameter(torch.empty(len(free), width))
        self.arc = nn.Parameter(torch.empty(3)) if arc else None
        self.register_buffer("free", torch.tensor(free, dtype=torch.int64), persistent=False)

    def forward(self) -> Tensor:
        table = self.rows.new_zeros(self.tokens, self.rows.shape[1])
        if self.arc is not None:
            radius, start, step = self.arc
            angle = start + step * torch.arange(self.points, device=table.device)
            points = radius * torch.stack((angle.cos(), angle.sin()), 1)
            table = F.pad(points, (0, table.shape[1] - 2, 0, self.tokens - self.points))
        return table.index_copy(0, self.free, self.rows)

    def init_weights(self, generator: torch.Generator, std: float, zero: bool = False) -> None:
        """Rows as in other tables; an arc at a random place, of 50 to 350 degrees for ten
        tokens."""
        if self.arc is not None:
            radius, start, step, side = torch.rand(4, generator=generator).tolist()
            step = (0.1 + 0.5 * step) * (1 if side < 0.5 else -1)
            self.arc.data = self.arc.new_tensor([0.5 + 0.7 * radius, 2 * math.pi * start, step])
        draw(self.rows, generator, std, zero)


class Matrix(nn.Module):
    """A trained matrix (rows, columns), or a stack (N, rows, columns)."""

    per = ""  # what has a row of its own: `token` or `id`

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight: LowRank | TokenRows | nn.Parameter = nn.Parameter(torch.empty(shape))

    def matrix(self) -> Tensor:
        """The numbers: (rows, columns) or (N, rows, columns)."""
        weight = self.weight  # looked up once: that takes as long as the rest
        return weight if isinstance(weight, nn.Parameter) else weight()

    def rows(self) -> nn.Parameter:
        """The parameter whose rows are those of the matrix; of `TokenRows`, of some of it."""
        if isinstance(self.weight, TokenRows):
            return self.weight.rows
        return self.weight.left if isinstance(self.weight, LowRank) else self.weight

    def init_weights(
        self, generator: torch.Generator, std: float | None = None, zero: bool = False
    ) -> None:
        """Zeros, or normal numbers: of 1/sqrt(fan-in) unless `std` is given."""
        last = self.weight
        if isinstance(last, TokenRows):
            return last.init_weights(generator, std or last.rows.shape[1] ** -0.5, zero)
        if isinstance(last, LowRank):
            draw(last.left, generator, last.left.shape[-1] ** -0.5, zero)
            last, zero = last.right, False  # with zeros in both there is no gradient
        draw(last, generator, std or last.shape[-1] ** -0.5, zero)


class Linear(Matrix):
    """(..., columns) -> (..., rows); of a stack, (..., N rows), in one product. No bias."""

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix()
        return F.linear(x, matrix if matrix.ndim == 2 else matrix.flatten(0, -2))

    __call__ = forward  # without torch's hooks, which cost a microsecond each time

    def part(self, first: int, last: int, x: Tensor) -> Tensor:
        """(..., columns) -> (..., (last - first) rows), of some matrices of a stack."""
        return F.linear(x, self.matrix()[first:last].flatten(0, 1))

    def muon_matrices(self) -> list[nn.Parameter]:
        """What Muon trains: see `addgpt.training.optim`."""
        return list(self.parameters())


class Unchanged(nn.Module):
    """(..., width) -> (..., width): in place of a matrix, the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x

    def matrix(self) -> Tensor:
        """(width, width)."""
        return torch.eye(self.width)

    def init_weights(self, generator: torch.Generator, zero: bool = False) -> None:
        """There are none."""


class Head(Matrix):
    """(..., width) -> (..., vocab) logits: a row for each token."""

    per = "token"

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix())


class Embedding(Matrix):
    """(...) int64 -> (..., width): a row for each token, or for each position id.

    Of low rank, a few numbers stand for each, and one matrix makes channels of them (Lan et al.
    2019, arXiv:1909.11942).
    """

    def __init__(self, rows: int, width: int, per: str = "") -> None:
        super().__init__(rows, width)
        self.per = per

    def forward(self, index: Tensor) -> Tensor:
        return torch.embedding(self.matrix(), index)

    __call__ = forward  # as of Linear


def gather(x: Tensor, places: Tensor) -> Tensor:
    """(B, S, C) the places (B, S) of x (B, T, C)."""
    if x.requires_grad and x.shape[0] == 1:  # whose gradient is quicker
        return rows_at(x[0], places[0])[None]
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """(B, ...) the rows of x (U, ...) at (B,). The gradient is that of an embedding, which takes a
    tenth of the time of that of `index_select`."""
    if not x.is_floating_point():
        return x.index_select(0, index)
    return torch.embedding(x.flatten(1), index).view(len(index), *x.shape[1:])


def factorise(module: nn.Module, rank: int) -> None:
    """Make each matrix in a module a product of two of that rank, unless it is 0: before weights
    are drawn."""
    for matrix in [part for part in module.modules() if isinstance(part, Matrix) and rank]:
        shape = matrix.matrix().shape
        del matrix.weight
        matrix.weight = LowRank(rank, *shape)


def with_few_rows(matrix: Matrix, arc: int, used: tuple[int, ...]) -> None:
    """Leave a table rows for `used` tokens alone (empty: for all), `arc` of them on an arc: before
    weights are drawn."""
    if arc or used:
        tokens, width = matrix.matrix().shape
        del matrix.weight
        matrix.weight = TokenRows(tokens, width, arc, used)


def draw(
    parameter: Tensor, generator: torch.Generator, std: float = 1.0, zero: bool = False
) -> None:
    """Fill a parameter with zeros or with normal numbers."""
    if zero:
        nn.init.zeros_(parameter)
    else:
        nn.init.normal_(parameter, std=std, generator=generator)


def muon_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all modules that say that Muon may train them."""
    found: list[nn.Parameter] = []
    for module in model.modules():
        found += getattr(module, "muon_matrices", list)()
    return found


def parameters_with_rows(model: nn.Module) -> dict[str, str]:
    """Names of parameters with a row for each `token` or position `id`, and which of the two."""
    tables = [module for module in model.modules() if isinstance(module, Matrix) and module.per]
    per = {id(t.rows()): t.per for t in tables if not isinstance(t.weight, TokenRows)}
    return {name: per[id(p)] for name, p in model.named_parameters() if id(p) in per}
