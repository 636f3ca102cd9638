"""The reference: the adder of karpathy/minGPT (`projects/adder`), re-created in our own words.

gpt-nano: 3 layers, 3 heads, width 48, LayerNorm before attention and MLP, GELU in its tanh form,
learned positions, dropout 0.1 on embeddings, attention and residuals. AdamW 5e-4, betas 0.9 and
0.95, weight decay 0.1 on the matrices of linear layers, gradients clipped to norm 1, batch 64.
A problem is ten digits, operands padded with zeros and the sum reversed: 85 + 5 = 90 is
`0850050900`; only the sum is scored. Problems are drawn with replacement and written one at a time
in `__getitem__`, batched by a DataLoader.

Two things differ from the original. It trains on all problems but those of our test split (instead
of all but 500), so that both models meet the same held-out problems. And data are loaded in the
training process (`num_workers=0`), where its time is counted as ours is.

    python -m benchmarks.mingpt --iterations 1000
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks import timing
from tasks.common import splits

DIGITS = 3
LAYERS, HEADS, WIDTH, DROPOUT = 3, 3, 48, 0.1
BATCH, RATE, BETAS, DECAY, CLIP = 64, 5e-4, (0.9, 0.95), 0.1, 1.0
CONTEXT = 3 * DIGITS  # all digits of a problem but the last, which is only predicted
TEST = 2  # number of the test split in `splits.split_of`


class Problems(Dataset):
    """All pairs of operands below 10^DIGITS that are not in our test split."""

    def __init__(self) -> None:
        numbers = np.arange(10 ** (2 * DIGITS))
        a, b = numbers // 10**DIGITS, numbers % 10**DIGITS
        split = splits.split_of(_digits(a), _digits(b), ord("+"), commutes=True)
        self.pairs = torch.from_numpy(numbers[split != TEST])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        a, b = divmod(self.pairs[index].item(), 10**DIGITS)
        text = render(a, b)
        digits = torch.tensor([int(char) for char in text], dtype=torch.long)
        x, y = digits[:-1], digits[1:].clone()
        y[: 2 * DIGITS - 1] = -1  # the operands are given, not asked
        return x, y


def render(a: int, b: int) -> str:
    """`128, 367` as `1283675940`."""
    total = f"{a + b:0{DIGITS + 1}d}"
    return f"{a:0{DIGITS}d}{b:0{DIGITS}d}{total[::-1]}"


class Attention(nn.Module):
    """Causal self-attention, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.drop_weights, self.drop_out = nn.Dropout(DROPOUT), nn.Dropout(DROPOUT)
        allowed = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril()
        self.register_buffer("allowed", allowed)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        heads = (part.view(rows, length, HEADS, -1) for part in self.qkv(x).split(WIDTH, -1))
        query, key, value = (part.transpose(1, 2) for part in heads)  # (B, H, T, D)
        weights = query @ key.transpose(-2, -1) / math.sqrt(key.shape[-1])  # (B, H, T, T)
        weights = weights.masked_fill(~self.allowed[:length, :length], -torch.inf)
        y = self.drop_weights(weights.softmax(-1)) @ value  # (B, H, T, D)
        return self.drop_out(self.project(y.transpose(1, 2).reshape(rows, length, WIDTH)))


class TanhGELU(nn.Module):
    """Hendrycks and Gimpel 2016 (arXiv:1606.08415), the approximation, in single operations."""

    def forward(self, x: Tensor) -> Tensor:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
        return 0.5 * x * (1 + torch.tanh(inner))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention = Attention()
        self.widen, self.project = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.activation, self.drop = TanhGELU(), nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        hidden = self.activation(self.widen(self.norms[1](x)))
        return x + self.drop(self.project(hidden))


class MinGPT(nn.Module):
    """Digits (B, T) to logits (B, T, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(10, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.drop = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                residual = name.endswith("project.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS if residual else 1))

    def forward(self, digits: Tensor) -> Tensor:
        places = torch.arange(digits.shape[1], device=digits.device)
        x = self.drop(self.token(digits) + self.place(places))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def optimizer(self) -> torch.optim.Optimizer:
        linear = {m.weight for m in self.modules() if isinstance(m, nn.Linear)}
        groups = [
            {"params": [p for p in self.parameters() if p in linear], "weight_decay": DECAY},
            {"params": [p for p in self.parameters() if p not in linear], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=RATE, betas=BETAS)


class Training:
    """A run of the reference. `seconds` counts drawing, writing and optimizer steps."""

    def __init__(self, seed: int, problems: Problems | None = None) -> None:
        torch.manual_seed(seed)
        problems = Problems() if problems is None else problems
        sampler = RandomSampler(problems, replacement=True, num_samples=10**10)
        self.loader: Iterator = iter(DataLoader(problems, BATCH, sampler=sampler, num_workers=0))
        self.model = MinGPT()
        self.optimizer = self.model.optimizer()
        self.iterations, self.seconds, self.loss = 0, 0.0, math.nan

    def advance(self) -> None:
        """One iteration."""
        began = time.perf_counter()
        self.model.train()
        x, y = next(self.loader)
        logits = self.model(x)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1), ignore_index=-1)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.loss = loss.item()
        self.iterations += 1
        self.seconds += time.perf_counter() - began


@torch.inference_mode()
def right(model: MinGPT, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B,) whether greedy decoding adds (B,) integers correctly, to the last digit."""
    model.eval()
    text = [render(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    whole = torch.tensor([[int(char) for char in line] for line in text])
    digits = whole[:, : 2 * DIGITS]
    for _ in range(DIGITS + 1):
        digits = torch.cat([digits, model(digits)[:, -1:].argmax(-1)], 1)
    return (digits == whole).all(1).numpy()


def train(seed: int, iterations: int, watch: Callable[[Training], bool]) -> Training:
    """Train for some iterations, or until `watch`, called after each, says that it is enough."""
    training = Training(seed)
    while training.iterations < iterations:
        training.advance()
        if watch(training):
            break
    return training


def _digits(numbers: np.ndarray) -> np.ndarray:
    """(B, DIGITS) digits of integers, least significant first."""
    return (numbers[:, None] // 10 ** np.arange(DIGITS) % 10).astype(np.int8)


def main() -> None:
    parser = timing.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-at", type=float, default=2.0, help="a share right, such as 0.99")
    options = parser.parse_args()
    timing.start(options)
    problems = Problems()
    a, b = np.random.default_rng(options.seed).integers(0, 10**DIGITS, (2, 20_000))
    split = splits.split_of(_digits(a), _digits(b), ord("+"), commutes=True)
    a, b = a[split == TEST], b[split == TEST]

    def watch(training: Training) -> bool:
        if training.iterations % 250 == 0:
            share = right(training.model, a, b).mean()
            timing.say(
                f"iteration {training.iterations:5d}  loss {training.loss:.4f}  "
                f"exact match {100 * share:6.2f} % of {len(a)}  {training.seconds:6.1f} s"
            )
            return bool(share >= options.stop_at)
        return False

    count = sum(p.numel() for p in MinGPT().parameters())
    timing.say(f"{count:,} parameters, {len(problems):,} problems to train on")
    end = train(options.seed, 60 if options.quick else options.iterations, watch)
    share = 100 * right(end.model, a, b).mean()
    pace = 1000 * end.seconds / end.iterations
    print(
        f"exact match {share:.2f} % of {len(a)} held-out sums after {end.iterations:,} iterations, "
        f"{end.seconds:.1f} s ({pace:.1f} ms each)"
    )


if __name__ == "__main__":
    main()
