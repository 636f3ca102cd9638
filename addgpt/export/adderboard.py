"""A small adder as one Python file in the form that the AdderBoard asks for (anadim/AdderBoard).

The file holds the parameters as plain numbers and the forward pass written out, for adders whose
attention is by position alone; it needs torch, and no addgpt.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addgpt.config.errors import UsageError
from addgpt.config.gpt import NO_PLACE, GPTConfig
from addgpt.config.settings import as_text
from addgpt.export.huggingface import rendered, some_rows, sound_model
from addgpt.model.forward import tensors
from addgpt.model.gpt import GPT
from addgpt.model.position_ids import NEAR, RelativeIds
from addgpt.runs.files import RunError, check_writable, write_atomically
from addgpt.runs.provenance import versions
from addgpt.runs.run import Run
from addgpt.task import Batch, Task

# What the file can say, of settings and of options; in all else a run has its defaults.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "architecture": ("gpt",),
    "content": (False,),
    "position": ("none",),
    "attention": ("full", "window"),
    "norm": ("none", "plain"),
    "norm_place": ("before",),
    "activation": ("relu2", "relu"),
    "log_scale": (False,),
    "prefix": (False,),
    "loops": (1,),
    "token_shift": (False,),
    "rank": (0,),
    "embed_rank": (0,),
}
OPTIONS: dict[str, tuple[Any, ...]] = {
    "format": ("reverse",),
    "trace": ("none",),
    "hints": (False,),
    "reverse_operands": (False,),
    "begin": (False,),
    "blanks": (0.0,),
    "ids": ("coupled",),
}
NAMES = {  # in the file, of parameters that stand in no block
    "token.weight": "embedding",
    "token.weight.rows": "embedding",
    "token.weight.arc": "arc",
    "positions.relative.table": "biases",
    "head.weight": "head",
    "head.weight.rows": "head",
}


def export_adderboard(run: Run, out: Path, author: str = "") -> dict[str, Any]:
    """Write a run as a submission, load the file, and compare.

    Returns `params`, `difference`, the largest one between logits of the file's model and of ours,
    and `largest`, the largest logit. Loading carries out the code that was written, which is ours.

    Raises:
        UsageError: the file cannot say what this model is.
        RunError: the run has no sound model, the file exists or cannot be written.
    """
    if out.exists():
        raise RunError(f"{out} exists; choose another --out")
    if out.suffix != ".py":
        raise UsageError(f"--out must be a file whose name ends in .py, not {out}")
    task = run.task()
    _check(task, run.config.model)
    model, _ = sound_model(run)
    assert isinstance(model, GPT)
    check_writable(out.parent)
    write_atomically(out, _source(run, task, model, author))
    try:
        batch = some_rows(task)
        difference, largest = _difference(out, model, batch)
    except BaseException:
        out.unlink()
        raise
    found = {"difference": difference, "largest": largest, "checked": len(batch)}
    return found | {"params": model.parameter_count()}


def _check(task: Task, config: Any) -> None:
    """Raise UsageError for what the file cannot say."""
    if task.name != "add":
        raise UsageError(f"--to adderboard takes sums of task add alone, not {task.name}")
    given = ((task, OPTIONS), (config, SETTINGS))
    for owner, allowed in given:
        for name, valid in allowed.items():
            value = getattr(owner, name, None)
            if value not in valid:
                few = " or ".join(map(as_text, valid))
                raise UsageError(f"--to adderboard needs {name}={few}, not {as_text(value)}")
    if tuple(config.scheme) != ("relative", "none", "none"):
        raise UsageError("--to adderboard needs level_position=relative,none,none")
    if not config.hidden:
        raise UsageError("--to adderboard needs an MLP: mlp_ratio above 0")


def _source(run: Run, task: Task, model: GPT, author: str) -> str:
    c = model.config
    used = c.used or range(c.vocab)
    relative = model.positions["relative"]
    assert isinstance(relative, RelativeIds)
    window, trained, pinned = None, None, None
    if c.local:
        window = sorted(n for n in c.visible[0] if n != NO_PLACE)
    if relative.trained is not None:
        (trained,) = relative.trained
        pinned = relative.pinned[0] if relative.pinned else None
    pad = task.layout.pad  # type: ignore[attr-defined]
    return rendered(
        "adderboard.py.jinja",
        name=json.dumps(run.name)[1:-1],  # between quotes: it may hold some
        version=versions()["addgpt"],
        params=model.parameter_count(),
        name_text=json.dumps(run.name),
        author_text=json.dumps(author),
        architecture=json.dumps(_architecture(c)),
        tricks=[json.dumps(trick) for trick in _tricks(c, pad)],
        pad=pad,
        characters=json.dumps("".join(task.alphabet[token] for token in used)),
        heads=c.heads,
        key_heads=c.key_heads,
        layers=c.layers,
        width=c.width,
        near=NEAR,
        window=window,
        window_words=_columns(window or []),
        placeless=c.local and NO_PLACE in c.visible[0],
        trained=trained,
        pinned=pinned,
        output=c.share != "vo",
        parameters={name: _numbers(x) for name, x in _parameters(model).items()},
        arc=c.arc,
        next_ids=c.next_ids,
        normed=c.norm == "plain",
        x="normed(x)" if c.norm == "plain" else "x",
        squared=c.activation == "relu2",
        tied=c.tied,
    )


def _parameters(model: GPT) -> dict[str, Tensor]:
    """All that is trained, by its name in the file; stacks as one matrix."""
    found = {}
    for name, x in model.named_parameters():
        block = re.fullmatch(r"blocks\.(\d+)\.\w+\.(\w+)\.weight", name)
        known = f"{block[2]}{block[1]}" if block else NAMES[name]
        found[known] = x.flatten(0, -2) if x.ndim > 1 else x
    return found


def _numbers(x: Tensor) -> str:
    """Python's way to write them, a row a line; each reads back as the same float32."""
    if x.ndim == 1:
        return "[" + ", ".join(str(number) for number in x.detach().cpu().numpy()) + "]"
    rows = "".join(f"        {_numbers(row)},\n" for row in x)
    return f"[\n{rows}    ]"


def _architecture(c: GPTConfig) -> str:
    layers = "1 layer" if c.layers == 1 else f"{c.layers} layers"
    heads = "1 head" if c.heads == 1 else f"{c.heads} heads"
    return f"{layers}, width {c.width}, {heads}, MLP of {c.hidden}"


def _tricks(c: GPTConfig, pad: int | None) -> list[str]:
    """What a reader of the board wants to know of a run besides its sizes."""
    tried = {
        "attention by relative column ids alone": True,
        "least significant digit first": True,
        "attention within a window of columns": c.local,
        "zero padding to equal length": pad is not None,
        "tied embeddings": c.tied,
        "no norm": c.norm == "none",
        "heads share values": c.key_heads < c.heads,
        "embeddings of the characters that occur alone": bool(c.used),
        "digits on an arc": bool(c.arc),
        "biases of visible columns alone": c.biases != "all",
        "one bias fixed at 0": c.biases == "pinned",
        "no output matrix": c.share == "vo",
    }
    return [trick for trick, done in tried.items() if done]


def _columns(window: list[int]) -> str:
    """The columns that a window shows, in words."""
    names = {0: "its own column", 1: "the one before"}
    return " and ".join(names.get(n, f"the one {n} before") for n in window)


def load(file: Path) -> Any:
    """A submission as a module: its code is carried out."""
    spec = importlib.util.spec_from_file_location("adderboard_submission", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.inference_mode()
def _difference(file: Path, model: GPT, batch: Batch) -> tuple[float, float]:
    """The largest difference between logits of the file's model and of ours, and the largest of
    ours in size."""
    other, _ = load(file).build_model()
    rows = list(model.config.used or range(model.config.vocab))
    place = torch.zeros(model.config.vocab, dtype=torch.int64)
    place[rows] = torch.arange(len(rows))
    tokens, ids, _ = tensors(batch, torch.device("cpu"))
    ours, apart, largest = model(tokens, ids)[..., rows], 0.0, 0.0
    for row, length in enumerate((batch.lengths - 1).tolist()):
        theirs = other(place[tokens[row, :length]], ids[row, : length + 1, 0])
        apart = max(apart, float((theirs - ours[row, :length]).abs().max()))
        largest = max(largest, float(ours[row, :length].abs().max()))
    return apart, largest
