"""Writes a certificate of a run: the proof, what rounding can do, and a test on long problems."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from addgpt.evaluation.certificate import (
    Proof,
    check_certifiable,
    logits_in,
    problems_with,
    prove,
)
from addgpt.evaluation.check_certificate import check
from addgpt.evaluation.contexts import Example, Look, met
from addgpt.evaluation.rounding import rounding_bound
from addgpt.locality import LocalTrace
from addgpt.model.forward import tensors
from addgpt.model.gpt import GPT
from addgpt.model.local import LocalAttention
from addgpt.runs.files import write_checked
from addgpt.runs.provenance import versions
from addgpt.runs.run import CERTIFICATE, MODEL, Run, RunError

CONTEXTS = "certificate.npz"
TRIED = 400  # slots of each long problem on which the proof is tested
SHORT = 300  # problems of the lengths of training on which it is tested
SHOWN = 10  # failing contexts for which a problem is searched for
SEED = 11


@dataclass(frozen=True)
class Trial:
    """What was met in problems drawn at random, among them long ones.

    slots      how many were checked
    unlisted   how many had a context that is not listed, or another token after it than is listed
    deviation  the largest difference of a logit there and in the context alone
    """

    slots: int
    unlisted: int
    deviation: float


def certify(run: Run, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The certificate of a run, written into its folder; it says whether it holds (`proved`).

    Raises UsageError for a model or task that nothing can be proved of.
    """
    weights = hashlib.sha256((run.path / MODEL).read_bytes()).hexdigest()  # before they are read
    model, task = run.model(), run.task()
    check_certifiable(task, model.config)
    assert isinstance(model, GPT) and isinstance(task, LocalTrace)
    say("listing contexts")
    proof = prove(model, task)
    say(f"{proof.below(0):,} of {proof.contexts:,} contexts wrong; testing on long problems")
    trial = try_out(model, task, proof)
    found: dict[str, Any] = {
        "run": run.name,
        "task": run.config.task,
        "options": run.config.options,
        "operations": list(dict.fromkeys(cell.op for cell in task.cells())),
        "end": task.alphabet.index(task.end),
        "begins": _begins(task),
        "seed": run.config.seed,
        "parameters": model.parameter_count(),
        "weights": weights,
        "model": run.model_digest(),
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
        say("bounding the rounding errors")
        found["float32"] = float32_room(model, proof)
    found["failures"], found["proved"] = list(_failures(task, proof)), False
    _write(run, found, proof)
    if holds(found):
        say("checking with numpy alone")
        try:
            found["float64"] = check(run.path)
        except Exception as error:  # whatever the reason, it has not agreed
            told = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise RunError(f"the independent checker does not agree: {told}") from None
        found["proved"] = True
        _write(run, found, proof)
    return found


def _begins(task: LocalTrace) -> list[tuple[int, int]]:
    """The kind and the token that a prompt ends with, of each sort of prompt."""
    last = {(ids[len(prompt) - 1, -1], prompt[-1]) for prompt, _, ids in task.sheets(1)}
    return sorted((int(kind), int(token)) for kind, token in last)


def holds(found: dict[str, Any]) -> bool:
    """Whether all is right and no rounding can change it; the checker has yet to agree."""
    if found["wrong"] or found["tried"]["unlisted"]:
        return False
    return found["tried"]["deviation"] <= found["float32"]["bound"] and found["float32"]["room"] > 0


def float32_room(model: GPT, proof: Proof) -> dict[str, float]:
    """The largest bound on rounding in a context, and the least that one leaves of its margin."""
    off = [rounding_bound(model, x.examples[0], x.tokens, x.right) for x in proof.judged]
    room = min((x.margin - some).min() for x, some in zip(proof.judged, off, strict=True))
    return {"bound": float(max(some.max() for some in off)), "room": float(room)}


@torch.inference_mode()
def try_out(model: GPT, task: LocalTrace, proof: Proof) -> Trial:
    """Contexts of problems drawn at random: whether they are listed, with the token that is right
    there, and whether their logits are the same as in the context alone."""
    listed = {
        some.look: dict(zip(map(bytes, some.tokens), some.right.tolist(), strict=True))
        for some in proof.judged
    }
    local, rng = LocalAttention(model.config), np.random.default_rng(SEED)
    slots = unlisted = 0
    found: dict[Look, list[tuple[Example, np.ndarray, torch.Tensor]]] = defaultdict(list)
    long = (task.batch(rng, 1, "test", cell) for cell in task.long_cells())
    for batch in (task.batch(rng, SHORT, "val"), *long):
        tokens, ids, _ = tensors(batch, next(model.parameters()).device)
        logits, seen = model(tokens, ids).float(), local.seen_keys(ids).cpu().numpy()
        for row in range(len(batch)):
            written = np.flatnonzero(batch.scored[row, 1:])
            for place in rng.permutation(written)[:TRIED].tolist():
                look, example, context = met(batch, row, seen[row, place])
                right = listed.get(look, {}).get(bytes(context))
                slots, unlisted = slots + 1, unlisted + (right != batch.tokens[row, place + 1])
                found[look].append((example, context, logits[row, place]))
    deviation = 0.0
    for some in found.values():
        examples, contexts, there = zip(*some, strict=True)
        alone = logits_in(model, examples[0], np.stack(contexts))
        deviation = max(deviation, float((alone - torch.stack(there)).abs().max()))
    return Trial(slots, int(unlisted), deviation)


def _by_row(task: LocalTrace, proof: Proof) -> Iterator[tuple[str, dict[str, float]]]:
    """Contexts, wrong ones and the smallest margin of each kind of row."""
    names = task.row_names()
    for kind in sorted({some.kind for some in proof.judged}):
        margins = np.concatenate([some.margin for some in proof.judged if some.kind == kind])
        wrong, least = int((~(margins > 0)).sum()), round(float(margins.min()), 4)
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
    arrays: dict[str, np.ndarray] = {}
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
    listed = packed.getvalue()
    found["listed"] = hashlib.sha256(listed).hexdigest()
    text = json.dumps(found, indent=1) + "\n"
    write_checked(run.path, {CERTIFICATE: text, CONTEXTS: listed})
