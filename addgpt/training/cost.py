"""What training costs: tokens and floating-point operations an example, and time on known machines.

Operations are those of the matrix products, counted on the model itself without running it (torch's
`FlopCounterMode` on tensors that have shapes but no memory); a product of (m, k) and (k, n) is
2 m k n. A common estimate is 6 a weight and token for training and 2 for a forward pass (Kaplan
et al. 2020, arXiv:2001.08361); ours also count attention and padding, and leave out what the last
block saves where few tokens are scored. With local attention a token sees a few keys, however long
the text is; those are counted from the ids. One block of it does less in training on a CPU, where
tokens that are alike are worked on once: its FLOP/s are those of the work that is counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from addgpt.config.architectures import GPTConfig, ModelConfig, TableConfig
from addgpt.config.errors import UsageError
from addgpt.config.schema import RunConfig, TrainConfig
from addgpt.device import autocast, compute_dtype, pick_device, prepare
from addgpt.evaluation.exact_match import evaluation_problems
from addgpt.model.build import Model, build
from addgpt.model.forward import forward, next_token_loss, scored_logits
from addgpt.model.local import LocalAttention
from addgpt.runs.checkpoint import outline
from addgpt.task import Batch, Graded, Task
from addgpt.task_lookup import load_task
from addgpt.training import optim
from addgpt.training.learners import batches_of_like_length

SAMPLE = 128  # problems that lengths and padding are estimated from
ROWS, LENGTHS = 16, 10  # problems of a cell; lengths that are shown
STEP = 5e-3  # seconds that a step on a GPU takes at least, however small it is: a guess

# Peak rates of dense bfloat16 products (float16 where there is no bfloat16) in FLOP/s.
HARDWARE = {
    "NVIDIA T4": (65e12, "NVIDIA T4 datasheet, 2019"),
    "NVIDIA V100 SXM2": (125e12, "NVIDIA V100 datasheet, 2020"),
    "NVIDIA RTX 3090": (71e12, "NVIDIA Ampere GA102 whitepaper, 2020"),
    "NVIDIA A100": (312e12, "NVIDIA A100 datasheet, 2020"),
    "NVIDIA RTX 4090": (165e12, "NVIDIA Ada whitepaper, 2022"),
    "NVIDIA H100 SXM": (989e12, "NVIDIA H100 datasheet, 2022"),
}


@dataclass(frozen=True)
class Cost:
    """The cost of one example: tokens, and FLOPs of a forward pass and of training on it."""

    what: str
    tokens: float
    forward: float
    training: float


@dataclass(frozen=True)
class Plan:
    """The cost of a whole training: what its steps draw and compute, padding included."""

    example: Cost
    examples: int
    steps: int
    validation: float  # FLOPs of all validation passes over those of the training steps
    parameters: int

    @property
    def tokens(self) -> float:
        return self.example.tokens * self.examples

    @property
    def flops(self) -> float:
        """FLOPs of the training steps."""
        return self.example.training * self.examples

    def seconds(self, rate: float, gpu: bool) -> float:
        """Time of the training steps at `rate` FLOP/s."""
        return max(self.flops / rate, self.steps * STEP if gpu else 0.0)


def flops(model: Model, batch: Batch) -> tuple[int, int]:
    """FLOPs of a batch: of the forward pass, and of forward and backward pass together."""
    with FlopCounterMode(display=False) as counter:
        logits, targets = forward(model, batch)
        first = counter.get_total_flops()
        next_token_loss(logits, targets).backward()
    few = _local_attention(model, batch, logits.shape[1]) if model.config.local else 0
    # Backward: the gradients of both factors of each product.
    return first + few, counter.get_total_flops() + 3 * few


def _local_attention(model: Model, batch: Batch, places: int) -> int:
    """FLOPs of the products of queries with the keys they see, and of weights with values, where
    the last block has that many queries a row."""
    config = model.config
    assert isinstance(config, GPTConfig)
    rows, length, seen = (
        LocalAttention(config).seen_keys(torch.from_numpy(batch.positions).long()).shape
    )
    queries = rows * (length * (config.depth - 1) + places)
    return 2 * (1 + config.content) * queries * seen * config.width


def by_length(config: RunConfig) -> list[Cost]:
    """The cost of an example of each operation with operands of equal length, length by length."""
    task, rows = load_task(config.task, config.options), []
    if not isinstance(task, Graded):
        return []
    cells = [c for c in task.cells() if c.stratum == "all" and c.len_a == c.len_b]
    longest = max((cell.len_a for cell in cells), default=0)
    shown = {round(n) for n in np.linspace(1, longest, LENGTHS)}
    for cell in cells:
        if cell.len_a in shown:
            batch, _ = evaluation_problems(task, cell, ROWS)
            if len(batch):
                rows.append(_cost(f"{cell.len_a}{cell.op}{cell.len_b}", config.model, [batch]))
    return rows


def plan(config: RunConfig, examples: int | None = None) -> Plan:
    """The cost of training, on all steps or on a given number of examples."""
    if isinstance(config.model, TableConfig):
        name = config.model.architecture
        raise UsageError(
            f"architecture={name} looks rows up in a table: there are no matrix products to count"
        )
    task, train = load_task(config.task, config.options), config.train
    drawn = [_drawn(task, train, i) for i in range(-(-SAMPLE // train.batch_size))]
    size = len(drawn[0])  # of a batch: a small table has fewer than are asked for
    example = _cost(
        "training",
        config.model,
        [p for batch in drawn for p in batches_of_like_length(batch, train.micro_batch)],
    )
    some = task.batch(np.random.default_rng(0), min(train.eval_size, SAMPLE), "val")
    scored = len(task.batch(np.random.default_rng(0), train.eval_size, "val"))
    validation = flops(outline(config.model), some)[0] / len(some) * scored
    step = example.training * size
    steps = -(-examples // size) if examples else train.steps
    share = validation / (step * min(train.eval_every, steps))
    total = examples or steps * size
    return Plan(example, total, steps, share, outline(config.model).parameter_count())


def _drawn(task: Task, train: TrainConfig, seed: int) -> Batch:
    """A batch of training, what is scored of it too."""
    batch = task.batch(np.random.default_rng(seed), train.batch_size, "train")
    return batch.with_prompt_scored() if train.score_prompt else batch


def speed(config: RunConfig, seconds: float = 2.0) -> float:
    """FLOP/s that training steps reach on this machine, measured for about `seconds`."""
    task, train = load_task(config.task, config.options), config.train
    device = pick_device(train.device)
    model = build(config.model, config.seed).to(device).train()
    rows = train.micro_batch or train.batch_size
    weights = sum(parameter.numel() for parameter in model.parameters())
    prepare(train.threads, weights, rows * task.longest())
    dtype = compute_dtype(device, train.precision, config.model)
    optimizers = optim.build(model, train, dtype)
    batch = _drawn(task, train, 0)
    parts = list(batches_of_like_length(batch, train.micro_batch))
    work = sum(flops(outline(config.model), part)[1] for part in parts)

    def step() -> None:
        for part in parts:
            with autocast(device, dtype):
                logits, targets = scored_logits(model, part)
            (next_token_loss(logits, targets) / len(batch)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        next(model.parameters()).detach().flatten()[0].item()  # waits for the device

    step()
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        step()
        steps += 1
    return work * steps / (time.perf_counter() - began)


def _cost(what: str, config: ModelConfig, batches: list[Batch]) -> Cost:
    """The mean over the rows of some batches."""
    model, rows = outline(config), sum(map(len, batches))
    tokens, both = sum(int(batch.lengths.sum()) for batch in batches), []
    known: dict[tuple, tuple[int, int]] = {}  # by all that it depends on
    for batch in batches:
        shape = (*batch.tokens.shape, int(batch.scored[:, 1:].sum(1).max()))
        known[shape] = known.get(shape) or flops(model, batch)
        both.append(known[shape])
    return Cost(what, tokens / rows, sum(f for f, _ in both) / rows, sum(t for _, t in both) / rows)
