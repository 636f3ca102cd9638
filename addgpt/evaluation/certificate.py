"""Certificates: a proof that a model with local attention writes every trace right, at any length.

With one block of local attention, relative ids and no index, the logits of a slot are a function of
the few tokens that it sees. All that can be seen in a right trace is listed (contexts.py), the
model is run once in each, and the right token must win by more than rounding can change. Then, by
induction over slots, greedy decoding is right for every problem of the format: docs/certificate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from addgpt.config.architectures import GPTConfig
from addgpt.config.errors import UsageError
from addgpt.evaluation.contexts import Example, Layout, Lister, Look
from addgpt.locality import LocalTrace
from addgpt.model.gpt import GPT
from addgpt.task import Batch

SETTLED = 2  # successive sizes that must bring no new layout
LARGEST = 12  # the size by which they must have been met
FAR = 20_000  # an id so far away that nothing sees it
AT_ONCE = 4096
DRAWN, AT_A_TIME = 20_000, 2000  # problems of one layout among which a context is searched for
KNOWN: dict[str, tuple] = {  # parts of a model that rounding.py and check_certificate.py know
    "next_ids": (True,), "share": ("none", "vo"),
    "norm_place": ("before",), "norm": ("rms", "plain", "none"), "activation": ("geglu", "relu2"),
    "kv_heads": (0,), "rank": (0,), "embed_rank": (0,),
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """All contexts that are alike to the model but for their tokens.

    look      the layout, as far as the model can tell; its slots are in rows of a kind
    examples  where slots like these were met
    tokens    (N, R) what is seen; right  (N,) the right next tokens
    """

    look: Look
    examples: list[Example]
    tokens: np.ndarray
    right: np.ndarray

    @property
    def kind(self) -> int:
        return self.look[0]


@dataclass(frozen=True)
class Listed:
    """All contexts of a trace.

    `size` is the longest operand whose layouts were all listed; the last sizes brought no new one.
    """

    groups: list[Group]
    layouts: int
    size: int


@dataclass(frozen=True)
class Judged(Group):
    """How a model did in a group: (N,) by how much the right token's logit is above the next."""

    margin: np.ndarray


@dataclass(frozen=True)
class Proof:
    """How a model did in all contexts."""

    judged: list[Judged]
    layouts: int
    size: int

    @property
    def contexts(self) -> int:
        return sum(len(some.tokens) for some in self.judged)

    def below(self, margin: float) -> int:
        """How many contexts are won by no more than this."""
        return sum(int((~(some.margin > margin)).sum()) for some in self.judged)

    @property
    def smallest(self) -> float:
        """The smallest margin; NaN if a logit is."""
        return float(np.min([some.margin.min() for some in self.judged]))


def check_certifiable(task: Any, config: Any) -> None:
    """Raise UsageError, saying why, where nothing can be proved: a slot may see more than a bounded
    context, or the model has parts that the bounds on rounding do not know."""
    if not isinstance(config, GPTConfig):
        raise UsageError(
            f"architecture={config.architecture} has no attention; a certificate needs one"
        )
    if config.attention == "full":
        raise UsageError("attention=full sees all of a text; a certificate needs window or reads")
    if config.depth > 1:
        raise UsageError(f"{config.depth} blocks see further than one; a certificate needs one")
    if config.position != "none":
        raise UsageError(
            f"position={config.position} depends on the index in the text, which has no bound"
        )
    for level, scheme in enumerate(config.scheme, start=1):
        last = level == len(config.levels)  # the kinds of rows: they are few
        if scheme not in (("relative", "none", "learned") if last else ("relative", "none")):
            valid = "learned, relative or none" if last else "relative or none"
            told = f"level_position={scheme} on level {level}"
            raise UsageError(f"{told} distinguishes ids without bound; valid: {valid}")
    for name, known in KNOWN.items():
        if (own := getattr(config, name)) not in known:
            ways = " or ".join(map(str, known)).lower()
            raise UsageError(f"a certificate needs {name}={ways}, not {str(own).lower()}")
    if not isinstance(task, LocalTrace) or not task.rules():
        raise UsageError(f"task {task.name} with these options writes no local trace")


def list_contexts(task: LocalTrace, config: GPTConfig) -> Listed:
    """All contexts of the slots of right traces. Raises UsageError if there are infinitely many, or
    too many."""
    lister = Lister(task, config)
    found, size = _all_layouts(lister)
    alike: dict[Look, list[Layout]] = {}
    for layout in found:
        alike.setdefault(layout.look, []).append(layout)
    groups = []
    for look, some in alike.items():
        tokens, right = (np.concatenate(x) for x in zip(*map(lister.contexts, some), strict=True))
        _, first, back = np.unique(_as_one(tokens), return_index=True, return_inverse=True)
        if (right[first][back] != right).any():
            what = lister.names[look[0]]
            raise UsageError(f"{what}: two slots see the same, but different tokens are right")
        examples = [found[layout] for layout in some]
        groups.append(Group(look, examples, tokens[first], right[first]))
    return Listed(groups, len(found), size)


def _all_layouts(lister: Lister) -> tuple[dict[Layout, Example], int]:
    """Each layout with an example, over growing sizes until none is new, and the largest size."""
    found: dict[Layout, Example] = {}
    quiet = 0
    for size in range(1, LARGEST + 1):
        before = len(found)
        for layout, example in lister.layouts(size):
            found.setdefault(layout, example)
        quiet = quiet + 1 if len(found) == before else 0
        if quiet == SETTLED:
            return found, size
    raise UsageError(
        f"operands of {LARGEST} digits still bring new layouts: the trace is not local"
    )


def _as_one(tokens: np.ndarray) -> np.ndarray:
    """(N,) the rows (N, R) of tokens, each as one item that can be sorted."""
    rows = np.ascontiguousarray(tokens)
    return rows.view(f"V{rows.shape[1]}")[:, 0]


def prove(model: GPT, task: LocalTrace, listed: Listed | None = None) -> Proof:
    """All contexts of a model, judged. Raises UsageError if there are infinitely many.

    Args:
        listed: what `list_contexts` gave for this task and model, if that is known.
    """
    check_certifiable(task, model.config)
    listed = listed or list_contexts(task, model.config)
    judged = [
        Judged(**vars(group), margin=margin(model, group.examples[0], group.tokens, group.right))
        for group in listed.groups
    ]
    return Proof(judged, listed.layouts, listed.size)


def margin(model: GPT, example: Example, tokens: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N,) by how much the right token wins in each context."""
    out = []
    for start in range(0, len(tokens), AT_ONCE):
        logits = logits_in(model, example, tokens[start : start + AT_ONCE])
        wanted = torch.from_numpy(right[start : start + AT_ONCE].astype(np.int64))[:, None]
        wanted = wanted.to(logits.device)
        rest = logits.scatter(1, wanted, -torch.inf).amax(1)
        out.append((logits.gather(1, wanted)[:, 0] - rest).cpu().numpy())
    return np.concatenate(out)


@torch.inference_mode()
def logits_in(model: GPT, example: Example, tokens: np.ndarray) -> torch.Tensor:
    """(N, V) logits in contexts (N, R), by the model itself."""
    text = np.zeros((len(tokens), 2 * tokens.shape[1] - 1), np.int64)
    text[:, ::2] = tokens
    device = next(model.parameters()).device
    ids = torch.from_numpy(spaced(example)).expand(len(tokens), -1, -1).to(device)
    last = torch.full((len(tokens), 1), text.shape[1] - 1, device=device)
    return model(torch.from_numpy(text).to(device), ids, at=last)[:, 0].float()


def spaced(example: Example) -> np.ndarray:
    """(1, 2 R, L) ids of a text that shows its last slot just this context: between the tokens seen
    stand others that are seen by none, with the kinds that the slots after them have."""
    ids, after = example.ids, example.after
    out = np.zeros((2 * len(ids), ids.shape[1]), np.int64)
    out[::2], out[1::2] = ids, after
    out[1:-1:2, :-1] = FAR
    return out[None]


def problems_with(
    task: LocalTrace, judged: Judged, rows: np.ndarray, rng: np.random.Generator, most: int
) -> list[list[Batch]]:
    """For each context (row of `judged.tokens`), up to `most` problems of train that contain it."""
    wanted = {judged.tokens[row].tobytes(): row for row in rows.tolist()}
    found: dict[int, list[Batch]] = {row: [] for row in wanted.values()}
    for example in judged.examples * (DRAWN // AT_A_TIME):
        if all(len(some) == most for some in found.values()):
            break
        batch = task.batch(rng, AT_A_TIME, "train", task.cell_like(example.prompt))
        if not len(batch) or batch.tokens.shape[1] <= example.places[-1]:
            continue
        seen = np.ascontiguousarray(batch.tokens[:, example.places].astype(np.uint8))
        for index, text in enumerate(map(bytes, seen)):
            row = wanted.get(text)
            if row is not None and len(found[row]) < most:
                found[row].append(batch.rows([index]))
    return [found[row] for row in rows.tolist()]
