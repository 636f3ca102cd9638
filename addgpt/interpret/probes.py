"""Linear probes: what can be read off the residual stream (Alain and Bengio 2016,
arXiv:1610.01644), with a control on shuffled labels (Hewitt and Liang 2019, arXiv:1909.03368); and
the spectrum of embeddings over the digits (Nanda et al. 2023, arXiv:2301.05217)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from addgpt.config.errors import UsageError
from addgpt.interpret.sample import Sample, collected
from addgpt.interpret.subject import Subject
from addgpt.model.gpt import GPT
from addgpt.model.hooks import point_names

PROBES = ("carry", "borrow", "sum")
WEIGHT_DECAY = 1e-3  # of a probe whose inputs have variance 1
STEPS = 60
LEAST = 40  # slots of a row, and two classes, that are worth a probe
SEED = 0


def probe(of: Subject, some: Sample, name: str) -> list[dict[str, Any]]:
    """Held-out accuracy of linear probes for a fact of a slot's column, at each layer and row.

    Half of the distinct problems train a probe, the other half score it. `control` is the same with
    the labels of training shuffled, `majority` the share of the most frequent class. Rows have
    `place`, `row`, `probe`, `classes`, `n` (held-out slots), `accuracy`, `control`, `majority`.
    Raises UsageError for a fact that the task's columns do not have.
    """
    fact = getattr(of.task, "column_fact", None)
    if name not in PROBES:
        raise UsageError(f"unknown probe {name!r}; valid: {', '.join(PROBES)}")
    if fact is None:
        raise UsageError(f"{of.task.name} does not say what its columns carry; try add, sub, calc")
    problem, slot = np.nonzero(some.scored)
    labels, error = np.full(len(problem), -1), None
    for at, (which, slot_at) in enumerate(zip(problem.tolist(), slot.tolist(), strict=True)):
        column = int(some.columns[which, slot_at])
        if column and int(some.targets[which, slot_at]) < 10:  # digits have a column
            try:
                labels[at] = fact(name, some.batch.problems[which], column)
            except UsageError as wrong:
                error = wrong
    if (labels < 0).all():
        raise error or UsageError("no digit of this sample has a column")
    streams = [n for n in point_names(of.config) if n.partition(".")[0] in ("mid", "after")]
    values = collected(of, some, ["before.0", *streams])
    number = {asked: n for n, asked in enumerate(dict.fromkeys(some.batch.problems))}
    held = np.array([number[asked] % 2 == 1 for asked in some.batch.problems])[problem]
    kinds = some.kinds[problem, slot]
    found = []
    for kind, row_name in some.rows().items():
        use = (kinds == kind) & (labels >= 0)
        train, test = use & ~held, use & held
        if min(train.sum(), test.sum()) < LEAST or len(np.unique(labels[train])) < 2:
            continue
        for place, x in values.items():
            scores = _scores((x[train], labels[train]), (x[test], labels[test]))
            line = {"place": place, "row": row_name, "probe": name, "n": int(test.sum())}
            found.append(line | scores)
    if not found:
        raise UsageError("too few problems for a probe; raise --examples")
    return found


def _scores(train: tuple, test: tuple) -> dict[str, Any]:
    mean, std = train[0].mean(0), train[0].std(0) + 1e-6
    (x, labels), (other, wanted) = (((part[0] - mean) / std, part[1]) for part in (train, test))
    classes, index = np.unique(labels, return_inverse=True)
    shuffled = np.random.default_rng(SEED).permutation(index)
    right = [
        float((classes[fitted(x, y, len(classes))(other)] == wanted).mean())
        for y in (index, shuffled)
    ]
    majority = float((wanted == classes[np.bincount(index).argmax()]).mean())
    return {
        "classes": len(classes), "accuracy": right[0], "control": right[1], "majority": majority,
    }  # fmt: skip


def fitted(x: np.ndarray, labels: np.ndarray, classes: int) -> Any:
    """A function from (N, C) to (N,) classes: multinomial logistic regression of labels (N,)."""
    inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(labels).long()
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optim = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optim.zero_grad()
        value = F.cross_entropy(F.linear(inputs, weight, bias), targets)
        value = value + WEIGHT_DECAY * weight.square().sum()
        value.backward()
        return value

    optim.step(loss)  # type: ignore[arg-type]

    def classify(new: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return F.linear(torch.from_numpy(new).float(), weight, bias).argmax(-1).numpy()

    return classify


def spectrum(model: GPT, numbers: int = 10) -> list[dict[str, Any]]:
    """The power of each frequency over the first `numbers` tokens, which are numbers in order.

    Rows have `table` (`embedding`, and `output` unless tied), `frequency` (waves over all numbers)
    and `share` of the power of all but the mean; shares sum to 1.
    """
    tables = {"embedding": model.token} | ({} if model.head is None else {"output": model.head})
    found = []
    for name, table in tables.items():
        rows = table.matrix().detach().float().cpu().numpy()[:numbers]
        waves = np.abs(np.fft.rfft(rows - rows.mean(0), axis=0)) ** 2
        twice = np.where(2 * np.arange(len(waves)) % numbers == 0, 1, 2)  # +k and -k are one
        power = waves.sum(1) * twice
        share = power / max(power.sum(), np.finfo(np.float32).tiny)
        found += [
            {"table": name, "frequency": k, "share": float(share[k])} for k in range(1, len(share))
        ]
    return found
