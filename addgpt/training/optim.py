"""Optimizers, parameter groups and schedules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from addgpt.config.schema import TrainConfig
from addgpt.model.layers import muon_matrices

# Share of the peak rate after warm-up. `done` runs from 0 to 1; `age` is the step in units of the
# warm-up, from 1. What each is, and its paper: addgpt/config/catalogue.py.
SCHEDULES = {
    "constant": lambda done, age: 1.0,
    "linear": lambda done, age: 1.0 - done,
    "cosine": lambda done, age: 0.5 * (1 + math.cos(math.pi * done)),
    "wsd": lambda done, age: min(1.0, (1.0 - done) / DECAY_SHARE),
    "inverse_sqrt": lambda done, age: age**-0.5,
}
DECAY_SHARE = 0.2  # share of the steps after warm-up in which the rate of `wsd` falls
AT_ONCE = 1 << 20  # numbers that Muon works on together
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class _Plain(torch.optim.Optimizer):
    """An optimizer that does not load torch's compiler, which takes a second and is not used here.

    torch wraps these methods to keep the compiler away from them; the first call loads it.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class AdamW(_Plain, torch.optim.AdamW):
    """torch's (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Muon(_Plain):
    """Momentum whose update is orthogonalised (Jordan et al. 2024, "Muon").

    Every parameter is a matrix or a stack of matrices (..., rows, columns). The Newton-Schulz
    iteration runs in `dtype` (None: that of the parameter): bfloat16 is precise enough for it, but
    slow on many CPUs.
    """

    def __init__(
        self,
        params,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, share = group["lr"], group["momentum"]
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                rows, columns = parameter.shape[-2:]
                alike.setdefault((min(rows, columns), max(rows, columns)), []).append(parameter)
            for parameters in _stacks(alike.values()):
                updates = []
                for parameter in parameters:
                    gradient = parameter.grad
                    assert gradient is not None
                    momentum = self.state[parameter]["momentum"].mul_(share).add_(gradient)
                    updates.append(gradient.add(momentum, alpha=share))
                updates = orthogonalised(updates, self.dtype)
                for parameter, update in zip(parameters, updates, strict=True):
                    rows, columns = parameter.shape[-2:]
                    if group["weight_decay"]:
                        parameter.mul_(1 - rate * group["weight_decay"])
                    parameter.add_(update, alpha=-rate * max(1, rows / columns) ** 0.5)


def _stacks(groups: Iterable[list[Tensor]]) -> Iterator[list[Tensor]]:
    """The groups, cut where a stack would hold more than `AT_ONCE` numbers: that bounds memory."""
    for group in groups:
        few = max(1, AT_ONCE // max(x.numel() for x in group))
        yield from (group[start : start + few] for start in range(0, len(group), few))


def orthogonalised(matrices: list[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """`orthogonalise` of matrices, and stacks of them, that have one shape or its transpose, as one
    stack: small products cost what it takes to ask for them."""
    wide = [x.mT if x.shape[-2] > x.shape[-1] else x for x in matrices]
    stacks = [x.reshape(-1, *x.shape[-2:]) for x in wide]
    found = orthogonalise(torch.cat(stacks).to(dtype)).split([len(x) for x in stacks])
    parts = [part.view(x.shape) for part, x in zip(found, wide, strict=True)]
    return [
        part.mT if x.shape[-2] > x.shape[-1] else part
        for part, x in zip(parts, matrices, strict=True)
    ]


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly, of each (..., rows, columns): singular values
    come out near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).reshape(-1, *sorted(matrix.shape[-2:]))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.view(*matrix.shape[:-2], *x.shape[-2:])
    return x.mT if tall else x


def build(
    model: nn.Module, config: TrainConfig, dtype: torch.dtype | None = None
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model: Muon for the matrices that its modules name if there are any,
    AdamW for the rest, none for what has no gradient.

    `dtype` is what Muon multiplies matrices in.
    """
    betas = (0.9, config.beta2)
    matrices = muon_matrices(model)
    known = set(map(id, matrices))
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    if config.optimizer == "adamw" and matrices:
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return [AdamW(groups, lr=config.lr, betas=betas, fused=True)]
    built: list[torch.optim.Optimizer] = []
    if matrices:
        built += [Muon(matrices, config.muon_lr, weight_decay=config.weight_decay, dtype=dtype)]
    if rest:
        built += [AdamW(rest, config.lr, betas=betas, weight_decay=0, fused=True)]
    return built


def rate(step: int, config: TrainConfig) -> float:
    """Learning rate at a step (0, 1, ...) as a share of the peak rate."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    done = min(1.0, max(0, step - config.warmup) / max(1, config.steps - config.warmup))
    age = max(1.0, step / max(1, config.warmup))
    return warm * max(config.final_lr, SCHEDULES[config.schedule](done, age))


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move averaged weights towards those of a model after `step` steps (1, 2, ...).

    An exponential average (Tarvainen and Valpola 2017, arXiv:1703.01780). Early on the decay is
    lower, (1 + step) / (10 + step), so that the random start is soon forgotten.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), share)


def clip(optimizers: list[torch.optim.Optimizer], limit: float) -> None:
    """Scale AdamW's gradients to a joint norm of at most `limit`; Muon's step has its own norm."""
    if limit:
        for optimizer in optimizers:
            if not isinstance(optimizer, Muon):
                params = [p for group in optimizer.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(params, limit)
