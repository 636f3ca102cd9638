"""Everything that passes through a model while it reads one problem, as named arrays."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from addgpt.config.errors import UsageError
from addgpt.config.gpt import GPTConfig
from addgpt.interpret.edits import Edit, check_name
from addgpt.interpret.subject import Subject, Token, Written, described, subject, written
from addgpt.model.gpt import GPT
from addgpt.model.hooks import point_names, watched
from addgpt.runs.files import write_atomically
from addgpt.task import Problem, Task

AXES = {
    "before": ("token", "channel"),
    "query": ("head", "token", "size"),
    "key": ("head", "token", "size"),
    "value": ("head", "token", "size"),
    "weights": ("head", "query", "key"),
    "found": ("head", "token", "size"),
    "head": ("head", "token", "channel"),
    "attention": ("token", "channel"),
    "mid": ("token", "channel"),
    "mlp_in": ("token", "channel"),
    "hidden": ("token", "neuron"),
    "mlp": ("token", "channel"),
    "after": ("token", "channel"),
    "normed": ("token", "channel"),
    "logits": ("token", "vocab"),
}


class Activations(Mapping[str, np.ndarray]):
    """Arrays by name. Their axes: `axes(name)`; what stands at the tokens: `tokens`.

    Besides the points of `addgpt.model.hooks` there is `head.D`, what each head by itself adds to
    what attention writes. Row t of an array is the token t that is read, and the logits there are
    those of the token t + 1.

    tokens    T + 1 of them: those that are read, and the last one written
    alphabet  of the logits
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], tokens: Sequence[Token], alphabet: str
    ) -> None:
        self.arrays, self.tokens, self.alphabet = dict(arrays), tuple(tokens), alphabet

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UsageError(f"unknown activation {name!r}; valid: {', '.join(self.arrays)}")
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.items())
        return f"Activations of {self.text!r}: {shapes}"

    def axes(self, name: str) -> tuple[str, ...]:
        """What the axes of an array are."""
        self[name]
        return AXES[name.partition(".")[0]]

    @property
    def text(self) -> str:
        return "".join(token.char for token in self.tokens)

    @property
    def predicted(self) -> str:
        """What the model would write in each slot that it wrote, given the tokens before it."""
        best = self["logits"].argmax(-1)
        slots = zip(best, self.tokens[1:], strict=True)
        return "".join(self.alphabet[token] for token, slot in slots if slot.written)

    def save(self, path: str | Path) -> None:
        """Write all to an npz file: the arrays, and `about`, their axes and tokens as JSON."""
        about = {
            "axes": {name: self.axes(name) for name in self},
            "tokens": [token._asdict() for token in self.tokens],
            "alphabet": self.alphabet,
        }
        out = io.BytesIO()
        np.savez_compressed(out, about=np.array(json.dumps(about)), **self.arrays)  # type: ignore
        write_atomically(Path(path), out.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Activations:
        """What `save` wrote. Raises UsageError for any other file; nothing is unpickled."""
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files if name != "about"}
                about = json.loads(str(file["about"]))
                tokens = [Token(**token) for token in about["tokens"]]
                found = cls(arrays, tokens, str(about["alphabet"]))
                for name in found:
                    found.axes(name)
                return found
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            raise UsageError(f"{path} does not hold activations") from None


def activations(
    model: Any,
    problem: Problem | str,
    task: Task | None = None,
    completion: str | None = None,
    names: Sequence[str] | None = None,
) -> Activations:
    """What passes through a model that reads a problem and its own work, token by token.

    Args:
        model: a run, its folder or `calculator`; or a model, with its task.
        problem: as a person types it, `128+367`; of a text, the text.
        task: of a model; a run has its own.
        completion: what is read after the prompt; None: what the model itself writes, greedily.
        names: which activations to keep; None: all.

    Raises:
        UsageError: a problem of another task, an unknown name, a model without attention.

    Examples:
        >>> found = activations("calculator", "128+367")
        >>> found.text, found["weights.0"].shape, found.axes("weights.0")
        ('128+367=519040#', (4, 14, 14), ('head', 'query', 'key'))
    """
    return run_with(model, problem, (), task, completion, names)


def run_with(
    model: Any,
    problem: Problem | str,
    edits: Sequence[Edit] = (),
    task: Task | None = None,
    completion: str | None = None,
    names: Sequence[str] | None = None,
) -> Activations:
    """`activations`, with interventions. The text that is read stays that of the unedited model.

    `.predicted` says what the model would write in each slot. Edits at one point are made in their
    order. Without any, the logits are the model's own, to the bit.

    Examples:
        >>> from addgpt.interpret import zero
        >>> run_with("calculator", "128+367").predicted
        '519040#'
        >>> run_with("calculator", "128+367", [zero("attention.0")]).predicted == '519040#'
        False
    """
    of = subject(model, task)
    return read(of, written(of, problem, completion), edits, names)


def read(
    of: Subject, work: Written, edits: Sequence[Edit] = (), names: Sequence[str] | None = None
) -> Activations:
    """`run_with` of a problem that is written out."""
    config = of.config
    heads = [f"head.{depth}" for depth in range(config.depth)]
    for name in names or ():
        if name not in heads:
            check_name(name, config)
    kept: dict[str, np.ndarray] = {}
    tokens, ids, prompt = work.inputs(of.model)

    def keep(name: str, x: Tensor) -> None:
        kept[name] = x[0].float().cpu().numpy().copy()

    run(of.model, tokens, ids, prompt, edits, keep)
    for depth, name in enumerate(heads):
        kept[name] = by_head(of.model, depth, kept[f"found.{depth}"])
    order = [name for name in _order(config) if names is None or name in names]
    return Activations(
        {name: kept[name] for name in order}, described(of.task, work), of.task.alphabet
    )


@torch.inference_mode()
def run(
    model: GPT,
    tokens: Tensor,
    ids: Tensor,
    prompt: Tensor | None = None,
    edits: Sequence[Edit] = (),
    keep: Any = None,
) -> Tensor:
    """(B, T, V) logits of a whole pass with edits; `keep(name, tensor)` is shown all that passes.

    Shapes are those of `GPT.forward`. Raises UsageError for an edit that does not fit.
    """
    config = model.config
    assert isinstance(config, GPTConfig)
    if isinstance(edits, Edit) or not all(isinstance(edit, Edit) for edit in edits):
        raise UsageError("edits must be a list of zero(…), mean(…), patch(…), knock_out(…)")
    for edit in edits:
        edit.check(config)

    def see(name: str, x: Tensor) -> Tensor:
        for edit in edits:
            if edit.name == name:
                x = _made(edit, x)
        if keep is not None:
            keep(name, x)
        return x

    with watched(model, see):
        return model(tokens, ids, prompt=prompt)


def by_head(model: GPT, depth: int, found: np.ndarray) -> np.ndarray:
    """(..., H, T, C) what each head writes, from what it has found (..., H, T, N)."""
    block: Any = model.blocks[depth % len(model.blocks)]
    matrix = block.attention.out.matrix().detach().float().cpu().numpy()  # (C, H N)
    parts = matrix.reshape(len(matrix), found.shape[-3], found.shape[-1])  # (C, H, N)
    return np.einsum("...htn,chn->...htc", found, parts)


def _made(edit: Edit, x: Tensor) -> Tensor:
    try:
        changed = edit(x)
        if changed.shape != x.shape:
            raise RuntimeError
        return changed
    except RuntimeError:
        given = tuple(np.shape(edit.value))
        raise UsageError(
            f"the value for {edit.name} has shape {given}, the activation "
            f"{tuple(x.shape[1:])}: patch from a problem with as many tokens"
        ) from None


def _order(config: GPTConfig) -> list[str]:
    out = []
    for name in point_names(config):
        if name.startswith("attention."):
            out.append(name.replace("attention", "head"))
        out.append(name)
    return out
