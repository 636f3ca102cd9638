"""Writes a certificate of a run: the proof, what rounding can do, and a trial on long problems."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from addgpt.config.errors import UsageError
from addgpt.evaluation.certificate import (
    Proof,
    check_certifiable,
    logits_in,
    problems_with,
    prove,
)
from addgpt.evaluation.check_certificate import check
from addgpt.evaluation.contexts import met
from addgpt.evaluation.rounding import rounding_bound
from addgpt.locality import LocalTrace
from addgpt.model.forward import tensors
from addgpt.model.gpt import GPT
from addgpt.model.local import LocalAttention
from addgpt.runs.files import checksums, write_checked
from addgpt.runs.provenance import versions
from addgpt.runs.run import MODEL, Run, RunError

CERTIFICATE, CONTEXTS = "certificate.json", "certificate.npz"
TRIED = 400  # slots of each long problem on which the proof is tried out
SHOWN = 10  # failing contexts for which a problem is searched for
BOUNDED = 20_000  # contexts, those won by least, for which float32 is bounded
SEED = 11


@dataclass(frozen=True)
class Trial:
    """What was met in long problems.

    slots      how many were looked at
    unlisted   how many had a context that is not among those listed
    deviation  the largest difference of a logit there and in the context alone
    """

    slots: int
    unlisted: int
    deviation: float


def certify(run: Run, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The certificate of a run, written into its folder; it says whether it holds (`proved`).

    Raises UsageError for a model or task that nothing can be proved of.
    """
    model, task = run.model(), run.task()
    check_certifiable(model.config)
    assert isinstance(model, GPT)
    if not isinstance(task, LocalTrace) or not task.rules():
        raise UsageError(f"task {task.name} with these options writes no local trace")
    model.eval()
    say("listing contexts")
    proof = prove(model, task)
    say(f"{proof.below(0):,} of {proof.contexts:,} contexts wrong; trying long problems")
    trial = try_out(model, task, proof)
    found: dict[str, Any] = {
        "run": run.name,
        "task": run.config.task,
        "options": run.config.options,
        "seed": run.config.seed,
        "parameters": model.parameter_count(),
        "weights": checksums(run.path).get(MODEL, ""),
        "attention": model.config.attention,
        "layouts": proof.layouts,
        "largest": proof.size,
        "contexts": proof.contexts,
        "groups": len(proof.judged),
        "wrong": proof.below(0),
        "margin": round(proof.smallest, 4),
        "rows": dict(_by_row(task, proof)),
        "tried": {"slots": trial.slots, "unlisted": trial.unlisted, "deviation": trial.deviation},
        "versions": versions(),
    }
    if not found["wrong"]:
        say("bounding what rounding can do")
        found["float32"] = float32_room(model, proof)
    found["failures"] = list(_failures(task, proof))
    found["proved"] = not found["wrong"] and not trial.unlisted and found["float32"]["room"] > 0
    _write(run, found, proof)
    if found["proved"]:
        say("checking with numpy alone")
        try:
            found["float64"] = check(run.path)
        except ValueError as error:
            raise RunError(f"the independent checker does not agree: {error}") from None
        _write(run, found, proof)
    return found


def float32_room(model: GPT, proof: Proof) -> dict[str, float]:
    """Bounds on rounding where margins are smallest, and the least that they leave of a margin."""
    limit = np.sort(np.concatenate([some.margin for some in proof.judged]))[: BOUNDED][-1]
    bound, room = 0.0, np.inf
    for some in proof.judged:
        rows = np.flatnonzero(some.margin <= limit)
        if len(rows):
            off = rounding_bound(model, some.examples[0], some.tokens[rows], some.right[rows])
            bound, room = max(bound, off.max()), min(room, (some.margin[rows] - off).min())
    return {"bound": float(bound), "room": float(room), "margin": float(limit)}


@torch.inference_mode()
def try_out(model: GPT, task: LocalTrace, proof: Proof) -> Trial:
    """Contexts of long problems: whether they are listed, and whether their logits are the same."""
    listed = {some.look: {bytes(row) for row in some.tokens} for some in proof.judged}
    local, rng = LocalAttention(model.config), np.random.default_rng(SEED)
    slots, unlisted, deviation = 0, 0, 0.0
    for cell in task.long_cells():
        batch = task.batch(rng, 1, "test", cell)
        tokens, ids, _ = tensors(batch, next(model.parameters()).device)
        logits, seen = model(tokens, ids)[0].float(), local.places(ids)[0].cpu().numpy()
        written = np.flatnonzero(batch.scored[0, 1:])
        for place in rng.choice(written, min(TRIED, len(written)), replace=False):
            look, example, context = met(batch, 0, seen[place], place)
            alone = logits_in(model, example, context[None])[0]
            slots += 1
            unlisted += bytes(context) not in listed.get(look, ())
            deviation = max(deviation, float((alone - logits[place]).abs().max()))
    return Trial(slots, unlisted, deviation)


def _by_row(task: LocalTrace, proof: Proof) -> Iterator[tuple[str, dict[str, float]]]:
    """Contexts, wrong ones and the smallest margin of each kind of row."""
    names = task.row_names()
    for kind in sorted({some.kind for some in proof.judged}):
        margins = np.concatenate([some.margin for some in proof.judged if some.kind == kind])
        wrong, least = int((margins <= 0).sum()), round(float(margins.min()), 4)
        yield names[kind], {"contexts": len(margins), "wrong": wrong, "margin": least}


def _failures(task: LocalTrace, proof: Proof) -> Iterator[dict[str, Any]]:
    """Some contexts that are wrong: the row, what is seen, the right token, and a problem."""
    rng, names, shown = np.random.default_rng(SEED), task.row_names(), 0
    for some in sorted(proof.judged, key=lambda some: some.margin.min()):
        rows = np.argsort(some.margin)[: SHOWN - shown]
        rows = rows[some.margin[rows] <= 0]
        if not len(rows):
            continue
        for row, problems in zip(rows, problems_with(task, some, rows, rng, 1), strict=True):
            kinds = some.examples[0].ids[:, -1]
            seen = [
                f"{names[int(kind)]} {task.alphabet[token]}"
                for kind, token in zip(kinds, some.tokens[row], strict=True)
            ]
            prompt = task.texts(problems[0])[0][0] if problems else ""
            yield {
                "row": names[some.kind],
                "seen": seen,
                "right": task.alphabet[some.right[row]],
                "margin": round(float(some.margin[row]), 4),
                "problem": prompt.rstrip("="),
            }
        shown += len(rows)


def _write(run: Run, found: dict[str, Any], proof: Proof) -> None:
    """The certificate, and the contexts that it is about."""
    arrays = {}
    for group, some in enumerate(proof.judged):
        example = some.examples[0]
        arrays |= {
            f"{group}.ids": example.ids.astype(np.int16),
            f"{group}.after": example.after.astype(np.int16),
            f"{group}.tokens": some.tokens,
            f"{group}.right": some.right,
        }
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    text = json.dumps(found, indent=1) + "\n"
    write_checked(run.path, {CERTIFICATE: text, CONTEXTS: packed.getvalue()})
