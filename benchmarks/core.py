"""Tokens a second of training: our core and a plain GPT of the same shape, in turns.

Both train on the same random characters with AdamW, in float32, all tokens scored; ours has the
shape's defaults (RMSNorm, squared ReLU, normalised queries and keys, no index), the reference is
described in `benchmarks/nanogpt.py`. A row more shows ours with Muon, its default optimizer. What
share of the machine's speed training reaches is measured against its own matrix products at that
width (2,048 x 256 by 256 x 1,024, in float32): only products with weights count as work, 6 flops a
weight and token, so attention and everything else is overhead.

    python -m benchmarks.core
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

from addgpt import optim
from addgpt.config import ModelConfig, TrainConfig
from addgpt.model import GPT, next_token_loss
from benchmarks import nanogpt, timing

LAYERS, HEADS, WIDTH, VOCAB = 4, 4, 256, 65
ROWS, LENGTH = 16, 128
PRODUCTS = 20  # matrix products in one turn
ROUNDS = 12
TARGETS = "at least 1.3 x", "at least 50 %"


def ours(x: torch.Tensor, y: torch.Tensor, optimizer: str) -> tuple[GPT, Callable[[], object]]:
    """Our model, and a function that makes one training step."""
    shape = {"layers": LAYERS, "heads": HEADS, "width": WIDTH, "tied": True}
    model = GPT(ModelConfig(vocab=VOCAB, context=LENGTH, **shape))
    settings = TrainConfig(optimizer=optimizer)
    optimizers = optim.build(model, settings)
    ids = torch.zeros(len(x), LENGTH + 1, 0, dtype=torch.int64)

    def step() -> None:
        (next_token_loss(model(x, ids), y) / y.numel()).backward()
        optim.clip(optimizers, settings.clip)
        for each in optimizers:
            each.step()
            each.zero_grad(set_to_none=True)

    return model, step


def reference(x: torch.Tensor, y: torch.Tensor) -> tuple[nanogpt.NanoGPT, Callable[[], object]]:
    """The reference, and a function that makes one training step."""
    model = nanogpt.NanoGPT(VOCAB, LENGTH, LAYERS, HEADS, WIDTH)
    optimizer = model.optimizer()

    def step() -> None:
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), nanogpt.CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model, step


def products() -> Callable[[], object]:
    """A function that multiplies matrices as the widest layer does."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(ROWS * LENGTH, WIDTH, generator=generator)
    right = torch.randn(WIDTH, 4 * WIDTH, generator=generator)
    out = torch.empty(ROWS * LENGTH, 4 * WIDTH)

    def work() -> None:
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)

    return work


def measure(options: argparse.Namespace) -> list[timing.Row]:
    rounds = 2 if options.quick else ROUNDS
    text = torch.randint(VOCAB, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    x, y = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    (mine, step), (_, muon), (other, plain) = (
        ours(x, y, "adamw"),
        ours(x, y, "muon"),
        reference(x, y),
    )
    work = {"ours": step, "reference": plain, "muon": muon, "products": products()}
    times = timing.interleave(work, rounds)
    tokens = ROWS * LENGTH
    rates = {
        name: [tokens / took for took in times[name]] for name in ("ours", "reference", "muon")
    }
    peak = [2 * PRODUCTS * tokens * WIDTH * 4 * WIDTH / took for took in times["products"]]
    flops = 6 * (LAYERS * 12 * WIDTH**2 + VOCAB * WIDTH)  # of a token: forward once, backward twice
    shares = {
        name: [100 * flops * rate / top for rate, top in zip(rates[name], peak, strict=True)]
        for name in ("ours", "reference")
    }
    sizes = [sum(p.numel() for p in model.parameters()) for model in (mine, other)]
    timing.say(
        f"{sizes[0]:,} and {sizes[1]:,} parameters; matrix products "
        f"{sorted(peak)[len(peak) // 2] / 1e9:.0f} GFLOP/s, {len(peak)} rounds"
    )
    shape = f"{LAYERS} layers, width {WIDTH}, {ROWS} x {LENGTH} tokens"
    unit, share = "tokens/s", "share of the matrix-product rate"
    return [
        timing.Row("training, AdamW", unit, rates["ours"], rates["reference"], TARGETS[0], shape),
        timing.Row("training, ours Muon", unit, rates["muon"], rates["reference"], note=shape),
        timing.Row(share, "%", shares["ours"], shares["reference"], TARGETS[1], "AdamW"),
    ]


def main() -> None:
    timing.main(timing.parser(__doc__).parse_args(), measure)


if __name__ == "__main__":
    main()
