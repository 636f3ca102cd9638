"""A model as ONNX: tokens and position ids in, logits out.

    tokens  (B, T) int64         ids of characters
    ids     (B, T + 1, L) int64  position ids of the tokens and of the slot after the last
    seen    (B, T, R) int64      of local attention: which tokens each slot sees, itself first, -1
                                 where there are fewer
    logits  (B, T, V) float32    of the token after each

What a task says of a prompt's ids, and what local attention sees by them, is computed by addgpt
(`inputs`), not in the file. B, T and R are free.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from addgpt.config.errors import UsageError
from addgpt.config.gpt import GPTConfig
from addgpt.export.huggingface import new_folder, some_rows, sound_model
from addgpt.generation.decode import batch_within_tables
from addgpt.model.build import Model
from addgpt.model.forward import tensors
from addgpt.model.local import LocalAttention
from addgpt.runs.files import write_atomically
from addgpt.runs.run import Run
from addgpt.task import Batch

MODEL, ABOUT = "model.onnx", "model.json"


class Given:
    """Stands in for `LocalAttention`: what each slot sees is an input."""

    def __init__(self, seen: Tensor) -> None:
        self.seen = seen

    def seen_keys(self, ids: Tensor) -> Tensor:
        return self.seen


class Exported(nn.Module):
    """A model called with tensors alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        if seen is not None:
            self.model.positions.local = Given(seen)  # type: ignore[union-attr]
        return self.model(tokens, ids)


def export_onnx(run: Run, out: Path) -> dict[str, Any]:
    """Write model.onnx into a folder, run it with onnxruntime, and compare.

    Returns `inputs`, their names, `difference`, the largest one between its logits and ours, and
    `largest`, the largest of our logits: float32 keeps seven digits of it.

    Raises:
        UsageError: onnx or onnxruntime is not installed, or the model cannot be exported.
        RunError: the run has no sound model, the folder is not empty or cannot be written to.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError("--to onnx needs onnx: pip install 'addgpt[onnx]'") from None
    task, model = run.task(), sound_model(run)[0]
    if model.config.prefix:
        raise UsageError("prefix=true needs the lengths of prompts: no --to onnx")
    with new_folder(out):
        batch = some_rows(task)
        given = inputs(model, batch)
        with torch.inference_mode():
            ours = model(given["tokens"], given["ids"])
        _write(model, given, out / MODEL)
        about: dict[str, Any] = {
            "run": run.name,
            "task": task.name,
            "alphabet": task.alphabet,
            "end": task.end,
        }
        shapes: dict[str, list] = {name: ["B", "T", "R"][: x.ndim] for name, x in given.items()}
        shapes["ids"] = ["B", "T + 1", given["ids"].shape[2]]
        about |= {"inputs": shapes}
        write_atomically(out / ABOUT, json.dumps(about, indent=2) + "\n")
        names, theirs = _of_onnxruntime(out / MODEL, [given, _less(given)])
        real = np.arange(ours.shape[1]) < (batch.lengths - 1)[:, None]
        apart = [np.abs(ours.numpy()[: len(x), : x.shape[1]] - x) for x in theirs]
        difference = max(float(x[real[: len(x), : x.shape[1]]].max()) for x in apart)
        largest = float(ours.numpy()[real].max())
    found = {"inputs": names, "difference": difference, "largest": largest}
    return found | {"checked": len(batch)}


def inputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    """What the exported model is given for a batch: `tokens`, `ids`, and `seen` where needed."""
    tokens, ids, _ = tensors(batch_within_tables(batch, model.config), torch.device("cpu"))
    found = {"tokens": tokens, "ids": ids}
    if isinstance(model.config, GPTConfig) and model.config.local:
        found["seen"] = LocalAttention(model.config).seen_keys(ids)
    return found


def _less(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """One row, a token shorter: a model may have been traced for one size alone."""
    return {name: x[:1, :-1] for name, x in given.items()}


def _of_onnxruntime(
    path: Path, asked: list[dict[str, Tensor]]
) -> tuple[list[str], list[np.ndarray]]:
    """The names of the file's inputs, and its logits. Raises UsageError if it cannot be run."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path)
        names = [one.name for one in session.get_inputs()]
        feeds = [{name: given[name].numpy() for name in names} for given in asked]
        return names, [session.run(None, feed)[0] for feed in feeds]
    except Exception as error:  # its kinds of errors have no common one
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"onnxruntime cannot run what torch exported: {reason}") from None


def any_size(given: dict[str, Tensor]) -> tuple[dict[int, Any], ...]:
    """Which sizes of the inputs are free, as `torch.export` is told."""
    dim = torch.export.Dim
    rows, length, few = dim("B", min=2), dim("T", min=2), dim("R", min=2)
    axes = {"tokens": {0: rows, 1: length}, "ids": {0: rows, 1: length + 1}}
    axes["seen"] = {0: rows, 1: length, 2: few}
    return tuple(axes[name] for name in given)


def _write(model: Model, given: dict[str, Tensor], path: Path) -> None:
    # The fused kernel lays its output out otherwise than what takes its place: a view would fail.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                Exported(model).eval(),
                tuple(given.values()),
                str(path),
                input_names=list(given),
                output_names=["logits"],
                dynamic_shapes=any_size(given),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = " ".join(str(cause).split())[:200]
            raise UsageError(
                f"torch {torch.__version__} has no ONNX of this model: {reason}"
            ) from None
    _with_long_indices(path)


def _with_long_indices(path: Path) -> None:
    """Make all indices int64: torch also takes int32, ONNX's GatherND does not."""
    import onnx

    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "GatherND":
            index = f"{node.input[1]}_{node.name}_long"
            nodes.append(
                onnx.helper.make_node("Cast", [node.input[1]], [index], to=onnx.TensorProto.INT64)
            )
            node.input[1] = index
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    write_atomically(path, model.SerializeToString())
