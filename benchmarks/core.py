"""Tokens a second of training: our core and a plain GPT of the same shape, in turns.

The same tokens, AdamW. Ours multiplies in what `precision=auto` takes for the width (bfloat16 on a
CPU that has it, from 128 channels on), the reference in float32, as nanoGPT does on a CPU. On
*text* all random characters are scored and ours has the defaults of `GPTConfig` (RMSNorm, squared
ReLU, normalised queries and keys, no index). On *sums* the model and the batch are those of
`addgpt train --task add --digits 3`, and only the answer is scored: ours works out the last block
for the scored tokens alone. The reference is described in `benchmarks/nanogpt.py`. Rows with Muon
show what our default optimizer costs.

How much of the machine training uses is measured against its own matrix products at width 256
(2,048 x 256 by 256 x 1,024), in the type that each of the two uses. Only products with
weights count as work, 6 flops a weight and token; attention, norms, the loss and the optimizer are
overhead.

    python -m benchmarks.core
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from addgpt.config.architectures import GPTConfig
from addgpt.config.schema import TrainConfig
from addgpt.device import autocast, compute_dtype
from addgpt.model.build import build
from addgpt.model.forward import forward, next_token_loss, tensors
from addgpt.task import Batch
from addgpt.task_lookup import load_task
from addgpt.training import optim
from benchmarks import nanogpt, timing

TEXT = {"layers": 4, "heads": 4, "width": 256, "tied": True}
VOCAB, ROWS, LENGTH = 65, 16, 128
PRODUCTS = 10  # matrix products in one turn
ROUNDS, STEPS = 8, 20  # of sums: steps of one turn
TARGETS = "at least 1.3 x", "at least 50 %"

Step = Callable[[], object]


def text() -> tuple[GPTConfig, Batch]:
    """A model of characters, and random ones to train it on."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, (ROWS, LENGTH + 1)).astype(np.uint8)
    scored = np.ones(tokens.shape, bool)
    batch = Batch(tokens, scored, np.zeros((*tokens.shape, 0), np.int16), np.zeros(ROWS, np.int32))
    return GPTConfig(vocab=VOCAB, context=LENGTH + 1, **TEXT), batch


def sums() -> tuple[GPTConfig, Batch]:
    """The model of the 3-digit adder, and a batch of its size."""
    task = load_task("add", {"digits": 3})
    recipe = task.recipe()
    sizes = {"vocab": len(task.alphabet), "context": task.longest(), "levels": task.levels}
    rng = np.random.default_rng(0)
    batch = task.batch(rng, recipe.train["batch_size"], "train")
    visible = task.visible(recipe.model["attention"])
    return GPTConfig(**sizes, **recipe.model, visible=visible), batch


def ours(config: GPTConfig, batch: Batch, optimizer: str) -> Step:
    """A training step of our model."""
    model, settings = build(config), TrainConfig(optimizer=optimizer)
    device = torch.device("cpu")
    dtype = compute_dtype(device, settings.precision, config)
    optimizers = optim.build(model, settings, dtype)
    count = int(batch.scored[:, 1:].sum())

    def step() -> None:
        with autocast(device, dtype):
            logits, targets = forward(model, batch)
        (next_token_loss(logits, targets) / count).backward()
        optim.clip(optimizers, settings.clip)
        for each in optimizers:
            each.step()
            each.zero_grad(set_to_none=True)

    return step


def reference(config: GPTConfig, batch: Batch) -> Step:
    """A training step of the reference."""
    c = config
    model = nanogpt.NanoGPT(c.vocab, c.context, c.layers, c.heads, c.width)
    optimizer = model.optimizer()

    def step() -> None:
        tokens, _, targets = tensors(batch, torch.device("cpu"))
        logits = model(tokens)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), nanogpt.CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def products(dtype: torch.dtype) -> Step:
    """Matrix products like those of the widest layer of the model of text."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(ROWS * LENGTH, TEXT["width"], generator=generator)
    right = torch.randn(TEXT["width"], 4 * TEXT["width"], generator=generator)
    left, right = left.to(dtype), right.to(dtype)
    out: Tensor = torch.empty(len(left), right.shape[1], dtype=dtype)

    def work() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)

    return work


def repeated(step: Step, times: int) -> Step:
    def work() -> None:
        for _ in range(times):
            step()

    return work


def measure(options: argparse.Namespace) -> list[timing.Row]:
    rounds, steps = (2, 3) if options.quick else (ROUNDS, STEPS)
    rows = []
    for name, (config, batch), times in (("text", text(), 1), ("sums", sums(), steps)):
        work = {
            "adamw": repeated(ours(config, batch, "adamw"), times),
            "reference": repeated(reference(config, batch), times),
            "muon": repeated(ours(config, batch, "muon"), times),
            "products": products(torch.float32),
            "our products": products(compute_dtype(torch.device("cpu"), "auto", config)),
        }
        took = timing.interleave(work, rounds)
        tokens = times * int(batch.lengths.sum() - len(batch))  # the last of a row is not read
        rates = {who: [tokens / t for t in found] for who, found in took.items()}
        shape = f"{config.layers} x {config.width}, {len(batch)} rows"
        label, unit = f"training on {name}", "tokens/s"
        target = TARGETS[0] if name == "text" else ""
        rows += [
            timing.Row(label, unit, rates["adamw"], rates["reference"], target, f"{shape}, AdamW"),
            timing.Row(label, unit, rates["muon"], rates["reference"], "", f"{shape}, ours Muon"),
        ]
        if name == "text":
            own, plain = took["our products"], took["products"]
            both = (rates["adamw"], own), (rates["reference"], plain)
            shares = [_shares(config, rate, some) for rate, some in both]
            most = [_peak(statistics.median(some)) / 1e9 for some in (own, plain)]
            note = f"{most[0]:.0f} GFLOP/s in our products, {most[1]:.0f} in the reference's"
            rows.append(
                timing.Row("share of the matrix-product rate", "%", *shares, TARGETS[1], note)
            )
    return rows


def _peak(seconds: float) -> float:
    """Flops a second of `products`."""
    return 2 * PRODUCTS * ROWS * LENGTH * 4 * TEXT["width"] ** 2 / seconds


def _shares(config: GPTConfig, rates: list[float], products: list[float]) -> list[float]:
    """Percentages of the rate of products that each round of training reached."""
    weights = config.layers * 12 * config.width**2 + config.vocab * config.width
    pairs = zip(rates, products, strict=True)
    return [100 * 6 * weights * rate / _peak(seconds) for rate, seconds in pairs]


if __name__ == "__main__":
    timing.main(__doc__, measure)
