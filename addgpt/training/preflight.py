"""Preflight checks: refuse what cannot be trained, with the reason, before anything is written."""

from __future__ import annotations

import numpy as np
import torch

from addgpt.config.architectures import CustomConfig, GPTConfig
from addgpt.config.errors import UsageError
from addgpt.config.schema import RunConfig
from addgpt.device import memory, pick_device
from addgpt.evaluation.certificate import check_certifiable
from addgpt.evaluation.exact_match import check_reference
from addgpt.model.build import build
from addgpt.model.forward import tensors
from addgpt.runs.checkpoint import weight_count
from addgpt.task import Graded, Task
from addgpt.task_lookup import load_task
from addgpt.training.auxiliary import check_auxiliary
from addgpt.training.distributed import ALONE, World
from addgpt.training.proving import listed
from addgpt.training.supervision import check_stages, supervised_blocks

CHECKED = 500  # problems, of which what the task writes must be the right answer
FLOAT = 4  # bytes
PER_WEIGHT = 4  # floats of a weight in training: itself, its gradient and up to two averages
PER_TOKEN = 4  # numbers at the least that a block keeps of each channel of a token for its gradient
PER_PAIR = 2  # floats at the least of two tokens and a head: the bias of their ids, its gradient


def check_trainable(config: RunConfig, world: World = ALONE) -> None:
    """Raise ValueError if a config cannot be trained on this machine."""
    pick_device(config.train.device)
    check_shares(config, world)
    check_memory(config, world)
    check_reach(config)
    task = load_task(config.task, config.options)
    if isinstance(config.model, CustomConfig):
        check_custom(config, task)
    if config.train.aux:
        check_auxiliary(task, isinstance(config.model, GPTConfig))
    if config.train.supervise:
        supervised_blocks(config.train.supervise, task, config.model)
    check_stages(task, config.train)
    if config.train.until_certified:
        check_certifiable(task, config.model)
        listed(task, config.model)  # type: ignore[arg-type]
    if isinstance(task, Graded):
        check_reference(task, task.batch(np.random.default_rng(0), CHECKED, "val"))
    if config.model.prefix:
        if config.train.score_prompt:
            raise UsageError(
                "prefix=true lets the prompt see all of itself: set score_prompt=false"
            )
        check_prompt(task)


def check_memory(config: RunConfig, world: World = ALONE) -> None:
    """Raise ValueError if training takes more memory than there is, by a low estimate."""
    model, train = config.model, config.train
    weights = weight_count(model)
    rows = min(train.micro_batch or train.batch_size, -(-train.batch_size // world.size))
    tokens = model.context // 4  # of a row, at the least
    kept = rows * tokens * model.depth * model.width * PER_TOKEN
    if isinstance(model, GPTConfig) and "relative" in model.scheme and not model.local:
        # The longest pass decides, and a batch has problems that are at least half as long.
        kept += rows * (model.context // 2) ** 2 * model.heads * PER_PAIR
    drawn = (train.batch_size + train.eval_size) * tokens * (2 + 2 * len(model.levels))
    need, have = FLOAT * (weights * PER_WEIGHT + kept) + drawn, memory()
    if need > have:
        raise UsageError(
            f"{weights:,} weights and passes of {rows:,} rows take {need / 2**30:,.0f} GiB or more "
            f"to train, this machine has {have / 2**30:,.0f}; "
            "try a smaller --set width, batch_size or micro_batch, or shorter problems"
        )


def check_reach(config: RunConfig) -> None:
    """Raise ValueError if problems that are to be scored are longer than the model can read."""
    model = config.model
    most = model.longest
    if not isinstance(model, GPTConfig) or most is None:
        return
    task, rng = load_task(config.task, config.options), np.random.default_rng(0)
    if not isinstance(task, Graded):
        return
    cells = task.cells()
    sets = (task.evaluation_set(rng, 8, "test", cell) for cell in cells)
    sizes = [int(batch.lengths.max(initial=1)) - 1 for batch in sets]
    read, cell = max(zip(sizes, cells, strict=True), default=(0, None))
    if cell is not None and read > most:
        raise UsageError(
            f"problems of {cell.len_a}{cell.op}{cell.len_b} digits take {read} tokens, a model "
            f"with position={model.position} reads at most {most}; set another "
            "position, or a larger random_index"
        )


def check_custom(config: RunConfig, task: Task) -> None:
    """Raise ValueError unless somebody else's model gives logits that never look ahead."""
    model = build(config.model).eval()
    batch = task.batch(np.random.default_rng(0), 4, task.splits[0])
    tokens, ids, _ = tensors(batch, torch.device("cpu"))
    half = tokens.shape[1] // 2
    other = torch.cat((tokens[:, :half], (tokens[:, half:] + 1) % config.model.vocab), 1)
    with torch.no_grad():
        one, two = (model(some, ids)[:, :half] for some in (tokens, other))
    if not torch.allclose(one, two, rtol=1e-3, atol=1e-4):
        name = config.model.architecture
        raise UsageError(f"architecture {name} looks ahead: its logits depend on later tokens")


def check_prompt(task: Task) -> None:
    """Raise ValueError if a task scores its prompt: a prefix LM would see its own answers."""
    batch = task.batch(np.random.default_rng(0), 8, "train")
    if (batch.scored.argmax(1) < 2).any():  # a prompt of one token has no next slot
        raise UsageError(
            f"prefix=true lets the prompt see all of itself, and task {task.name} scores its "
            "prompt; set prefix=false"
        )


def check_shares(config: RunConfig, world: World) -> None:
    """Raise ValueError if there are more workers than problems in a batch."""
    if config.train.batch_size < world.size:
        size = config.train.batch_size
        raise UsageError(f"batch_size={size} is too small for {world.size} workers")
