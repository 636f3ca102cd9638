"""Problems judged a second: `addgpt.evaluation.exact_match.score` against plain greedy decoding.

The reference decodes in batches of 100 without a cache: for each token of the answer, all that has
been written is read again. Both judge the same held-out problems and must count the same number
right. Ours reads each problem once, so the advantage grows with what a model writes: a few tokens
for a sum (an adder is trained first, by the default recipe), a long trace for a product (of the
shipped calculator, or of another run).

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --run results/calc
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from addgpt.evaluation.exact_match import answers, score
from addgpt.generation.decode import EXTRA_TOKENS
from addgpt.model.gpt import GPT
from addgpt.runs.resolve import configure
from addgpt.runs.run import SHIPPED, Run
from addgpt.task import Batch, Cell, Graded
from addgpt.training.loop import train
from benchmarks import timing

DIGITS = 3
PROBLEMS, AT_ONCE, ROUNDS = 10_000, 100, 3
PRODUCT, PRODUCTS = Cell("*", 4, 4), 200
TARGET = "at least 20 x"


def trained(steps: int) -> tuple[Graded, GPT]:
    """An adder trained by the default recipe, or for fewer steps if given."""
    settings = {"digits": str(DIGITS)} | ({"steps": str(steps)} if steps else {})
    settings["eval_every"] = settings["save_every"] = "1000000"
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", configure("add", settings))
        moment = train(run)
        timing.say(f"trained for {moment.step} steps, {moment.seconds:.1f} s")
        return run.task(), run.model().eval()


@torch.inference_mode()
def decoded(model: GPT, task: Graded, batch: Batch) -> int:
    """How many answers are right by batch-100 greedy decoding, everything read again each time.

    All prompts are equally long. A group is done when all its rows have ended.
    """
    right = 0
    end = task.alphabet.index(task.end)
    start = int(batch.scored[0].argmax())
    last = min(batch.tokens.shape[1] + EXTRA_TOKENS, model.config.context)
    for first in range(0, len(batch), AT_ONCE):
        truth = batch.tokens[first : first + AT_ONCE]
        tokens = torch.from_numpy(truth[:, :start].astype(np.int64))
        ids = task.positions(truth[:, :start], last - start)
        ended = torch.zeros(len(tokens), dtype=torch.bool)
        for now in range(start, last):
            seen = torch.from_numpy(ids[:, : now + 1].astype(np.int64))
            chosen = model(tokens, seen)[:, -1].argmax(-1)
            tokens = torch.cat([tokens, chosen[:, None]], 1)
            ended |= chosen == end
            if ended.all():
                break
        asked = batch.problems[first : first + AT_ONCE]
        for written, problem in zip(tokens.numpy(), asked, strict=True):
            text, ending, _ = task.decode(written[start:]).partition(task.end)
            right += answers(task, problem, text + ending)
    return right


def judged(
    name: str, task: Graded, model: GPT, cell: Cell, count: int, rounds: int, target: str = ""
) -> timing.Row:
    """Both ways on `count` problems of a cell. Exits if they disagree."""
    batch = task.evaluation_set(np.random.default_rng(7), count, "test", cell)
    right: dict[str, int] = {}

    def fast() -> None:
        right["ours"] = int(score(model, task, batch).answer_correct.sum())

    def plain() -> None:
        right["reference"] = decoded(model, task, batch)

    times = timing.interleave({"ours": fast, "reference": plain}, rounds)
    if right["ours"] != right["reference"]:
        raise SystemExit(f"the two disagree on how many are right: {right}")
    written = int(batch.scored.sum(1).max())
    note = f"both count {right['ours']:,} of {len(batch):,} right; {written} tokens written each"
    ours, reference = ([len(batch) / t for t in times[who]] for who in ("ours", "reference"))
    return timing.Row(name, "a second", ours, reference, target, note)


def measure(options: argparse.Namespace) -> list[timing.Row]:
    steps, share, rounds = (200, 10, 1) if options.quick else (0, 1, ROUNDS)
    task, model = trained(steps)
    cell = Cell(task.op, DIGITS, DIGITS)
    sums = judged("3-digit sums judged", task, model, cell, PROBLEMS // share, rounds, TARGET)
    path = options.run or SHIPPED
    if not (path / "model.safetensors").exists():
        timing.say(f"no calculator in {path}: products left out")
        return [sums]
    run = Run(path)
    name = f"{PRODUCT.len_a}x{PRODUCT.len_b} products judged"
    return [
        sums,
        judged(name, run.task(), run.model(), PRODUCT, PRODUCTS // share, rounds, TARGET),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, help="a run that multiplies [the shipped calculator]")


if __name__ == "__main__":
    timing.main(__doc__, measure, add_options)
