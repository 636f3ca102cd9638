"""Self-improvement: rounds of training on one's own answers to slightly longer problems (Lee et al.
2025, arXiv:2502.01612).

Round 0 trains a few models on right answers, with a curriculum if one is asked for. Then, round by
round, they answer problems one digit longer; an answer on which enough of them agree, and that is
not much shorter than others, joins what they are trained on, right or wrong. Models see plain text
(task `file`): no position ids tell them what belongs together. All of it is files, so that rounds
go on where they were stopped:

    plan.json                 what was asked for
    round-01/problems.jsonl   what the models of a round are trained on
    round-01/model-0/         a run
    round-01/scores.json      how it went
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.config.gpt import GPTConfig
from addgpt.config.schema import RunConfig
from addgpt.config.settings import to_dict
from addgpt.evaluation.exact_match import answer_of, answers
from addgpt.generation.decode import EXTRA_TOKENS, write
from addgpt.runs.curriculum import curriculum
from addgpt.runs.files import (
    Damaged,
    check_writable,
    read_checked,
    read_text,
    write_atomically,
    write_checked,
)
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run, initial_weights, is_empty
from addgpt.task import Cell, Graded, Problem
from addgpt.task_lookup import load_task
from addgpt.training.loop import TrainState, train
from addgpt.training.preflight import check_trainable

TASK = "file"  # that learns what stands in a file
AT_ONCE = 512  # problems that are answered together
SAMPLE = 1000  # problems of a stage of a curriculum, to see how long they are
OnStep = Callable[[TrainState], None]


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    task, options  where problems are from; its `digits` are those of round 0
    settings       of the models and of their training
    rounds         how many follow round 0
    steps          of training in each of these; 0: a quarter of those of round 0
    models         how many vote
    agree          share of the models that must give the same answer
    shorter        digits by which an answer may be shorter than the longest to problems as long
    count          problems that are answered in a round
    first          problems of round 0; 0: twenty times `count`
    tests          held-out problems of each length that is scored
    """

    task: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int = 0
    rounds: int = 3
    steps: int = 0
    models: int = 3
    agree: float = 0.6
    shorter: int = 1
    count: int = 5000
    first: int = 0
    tests: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.agree <= 1:  # nor NaN
            raise UsageError(f"agree must be above 0, and at most 1, not {self.agree}")


def improve(
    plan: Plan, out: Path, on_step: OnStep = lambda state: None
) -> Iterator[list[dict[str, Any]]]:
    """Go through the rounds, from where they were stopped, and yield the scores of each.

    A row for each model and each length that is scored: the longest it was trained on, and one
    digit more. `added` of the round's own answers were kept, `added_right` of them are right.

    Raises UsageError for a folder with another plan, but for its number of rounds, for a task whose
    problems are not one operation on two numbers, and for models that cannot read longer ones;
    Damaged for a file that is not what was written.
    """
    task = load_task(plan.task, dict(plan.options))
    if not isinstance(task, Graded) or not _can_grow(task):
        what = "problems of one operation on two numbers to make longer; try add, sub, mul, div"
        raise UsageError(f"task {plan.task} has no {what}")
    _keep_plan(plan, task, out)
    before: list[Run] = []
    for number in range(plan.rounds + 1):
        folder = out / f"round-{number:02}"
        folder.mkdir(exist_ok=True)
        file = folder / "problems.jsonl"
        if not file.exists():
            rows = _first(task, plan) if not number else _with_own(task, plan, number, before)
            write_checked(folder, {file.name: _lines(rows)})
        runs = [
            _trained(plan, task, folder, index, before, on_step) for index in range(plan.models)
        ]
        if not (folder / "scores.json").exists():
            scores = _scores(task, plan, number, runs, _read(file))
            text = json.dumps(scores, indent=1) + "\n"
            write_checked(folder, {"scores.json": text})
        yield _rows(folder / "scores.json", read_checked(folder / "scores.json"))
        before = runs


def _keep_plan(plan: Plan, task: Graded, out: Path) -> None:
    """Write the plan into a new folder; in one that holds rounds, see that theirs is the same."""
    path = out / "plan.json"
    asked = json.loads(json.dumps(dataclasses.asdict(plan), default=list))
    if is_empty(out):
        _check(plan, task)
        check_writable(out)
    elif not path.is_file():
        raise UsageError(f"{out} holds something else; choose another --out")
    else:
        (had,) = _rows(path, f"[{read_text(path)}]")
        names = [name for name in asked | had if asked.get(name) != had.get(name)]
        if other := [name for name in names if name != "rounds"]:
            raise UsageError(
                f"{out} holds rounds with other settings ({', '.join(other)}); "
                f"give those of {path}, or another --out"
            )
        if not names:
            return
    write_atomically(path, json.dumps(asked, indent=1) + "\n")


def _check(plan: Plan, task: Graded) -> None:
    """Raise UsageError for models that cannot be trained, or cannot read longer problems, before
    there is a folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "problems.jsonl")
        file.write_text(_lines(_first(task, plan)), "utf-8")
        config = _config(plan, task, file, 0)
        check_trainable(config)
    model = config.model
    if model.longest is not None:
        what = f"position={model.position}" if isinstance(model, GPTConfig) else model.architecture
        raise UsageError(f"{what} cannot read longer problems; try position=none or rotary")


def majority(answers: Sequence[str], agree: float) -> str | None:
    """The commonest of the answers, if at least that share of all gives it."""
    found, votes = Counter(answers).most_common(1)[0]
    return found if votes >= math.ceil(agree * len(answers) - 1e-9) else None


def long_enough(found: Mapping[str, str], shorter: int) -> dict[str, str]:
    """Of answers to problems, those at most so much shorter than the longest to ones as long."""
    longest: dict[int, int] = {}
    for problem, answer in found.items():
        longest[len(problem)] = max(longest.get(len(problem), 0), len(answer))
    return {p: a for p, a in found.items() if len(a) >= longest[len(p)] - shorter}


def _can_grow(task: Graded) -> bool:
    """Whether cells are one operation on two numbers, by their lengths: a digit more is another."""
    if not hasattr(task, "digits") or len({cell.op for cell in task.cells()}) != 1:
        return False
    drawn = task.batch(np.random.default_rng(0), 100, "train").problems
    return all(
        task.cell_of(problem)[1:3] == tuple(len(str(number)) for number in problem.operands)
        for problem in drawn
    )


def _first(task: Graded, plan: Plan) -> list[dict[str, Any]]:
    """Right answers to problems as the task draws them."""
    batch = task.batch(
        np.random.default_rng((plan.seed, 0)), plan.first or 20 * plan.count, "train"
    )
    right = {prompt: work.removesuffix(task.end) for prompt, work in task.texts(batch)}
    return [{"problem": p, "answer": a, "round": 0} for p, a in right.items()]


def _with_own(task: Graded, plan: Plan, number: int, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the round before was trained on, and its models' answers to longer problems."""
    rows = _read(runs[0].path.parent / "problems.jsonl")
    rng = np.random.default_rng((plan.seed, number))
    asked, limit = _longer(task, rng, int(getattr(task, "digits", 0)) + number, plan.count)
    voted: dict[str, str] = {}
    given = [_answered(run, list(asked), limit) for run in runs]
    for prompt, *some in zip(asked, *given, strict=True):
        answer = majority(some, plan.agree)
        if answer is not None and answer_of(task, asked[prompt], answer + task.end) is not None:
            voted[prompt] = answer
    kept = long_enough(voted, plan.shorter)
    had = {row["problem"] for row in rows}
    return rows + [
        {"problem": p, "answer": a, "round": number, "right": answers(task, asked[p], a + task.end)}
        for p, a in kept.items()
        if p not in had
    ]


def _longer(
    task: Graded, rng: np.random.Generator, length: int, count: int, split: str = "train"
) -> tuple[dict[str, Problem], int]:
    """Prompts of problems of a split with an operand of a length, the other at most as long; and
    how many tokens may be written: the longest right work, and a few more."""
    op, other, first = task.cells()[0].op, rng.integers(1, length + 1, count), rng.random(count)
    found: dict[str, Problem] = {}
    longest = 0
    for size in range(1, length + 1):
        for longer_first in (True, False):
            n = int(((other == size) & ((first < 0.5) == longer_first)).sum())
            lengths = (length, size) if longer_first else (size, length)
            if n:
                batch = task.batch(rng, n, split, Cell(op, *lengths))
                found |= {task.prompt(problem): problem for problem in batch.problems}
                longest = max([longest, *(len(work) for _, work in task.texts(batch))])
    return found, longest + EXTRA_TOKENS


def _answered(run: Run, prompts: Sequence[str], limit: int) -> list[str]:
    """What the model of a run writes after each prompt; nothing where it comes to no end within
    `limit` tokens."""
    task, model = run.task(), run.model()
    found = [""] * len(prompts)
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for same in by_length.values():
        for start in range(0, len(same), AT_ONCE):
            some = same[start : start + AT_ONCE]
            tokens = np.stack([task.encode(f"{prompts[i]}{task.between}") for i in some])  # type: ignore[attr-defined]
            out = write(model, task, tokens, limit)
            for place, index in enumerate(some):
                if out.terminated[place]:
                    text = task.decode(out.tokens[place, : out.length[place]])
                    found[index] = text.removesuffix(task.end)
    return found


def _config(plan: Plan, task: Graded, file: Path, index: int, further: bool = False) -> RunConfig:
    """The config of a model that learns a file of problems, in round 0 or in a further one."""
    settings = {**plan.settings, "path": str(file)}
    text = settings.pop("curriculum", "")
    if not further:
        return configure(TASK, settings | _by_length(task, text), plan.seed + index)
    config = configure(TASK, settings, plan.seed + index)
    steps = plan.steps or max(1, config.train.steps // 4)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))


def _by_length(task: Graded, text: str) -> dict[str, str]:
    """A curriculum of the task as one of the file of its problems: as long ones as a stage has."""
    parts, stages = [], curriculum(task, text)
    for step, stage in zip(stages.steps, stages.tasks, strict=True):
        if to_dict(stage) | {"digits": 0} != to_dict(task) | {"digits": 0}:
            raise UsageError(
                "the curriculum of rounds changes digits alone: 0:digits=2;500:digits=3"
            )
        some = stage.batch(np.random.default_rng(0), SAMPLE, "train")
        longest = 0 if stage == task else max(len(prompt) for prompt, _ in stage.texts(some))
        parts.append(f"{step}:train_up_to={longest}")
    return {"curriculum": ";".join(parts)} if text else {}


def _trained(
    plan: Plan, task: Graded, folder: Path, index: int, before: Sequence[Run], on_step: OnStep
) -> Run:
    """A model of a round, trained on its file from that of the round before."""
    path = folder / f"model-{index}"
    if is_empty(path):
        Run.create(path, _config(plan, task, folder / "problems.jsonl", index, bool(before)))
    run = Run(path)
    if run.started and run.progress()["step"] >= run.config.train.steps:
        return run
    weights = initial_weights(before[index].path, run.config) if before else None
    train(run, on_step, weights)
    return run


def _scores(
    task: Graded, plan: Plan, number: int, runs: Sequence[Run], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """How the models of a round do at the longest problems they know, and at longer ones."""
    added = [row for row in rows if row["round"] == number and number]
    right = sum(row["right"] for row in added)
    most, found = int(getattr(task, "digits", 0)) + number, []
    for length in (most, most + 1):
        rng = np.random.default_rng((plan.seed, number, length))
        asked, limit = _longer(task, rng, length, plan.tests, "test")
        for index, run in enumerate(runs):
            given = _answered(run, list(asked), limit)
            hits = sum(
                answers(task, problem, answer + task.end)
                for problem, answer in zip(asked.values(), given, strict=True)
            )
            found.append({
                "round": number, "model": index, "examples": len(rows), "added": len(added),
                "added_right": right, "digits": length, "n": len(asked), "right": hits,
            })  # fmt: skip
    return found


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _read(file: Path) -> list[dict[str, Any]]:
    """The problems of a round."""
    return _rows(file, f"[{','.join(read_checked(file).splitlines())}]")


def _rows(file: Path, text: str) -> list[dict[str, Any]]:
    """The objects in a file, from its JSON. Raises Damaged."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Damaged(file, "damaged: it does not hold the JSON that was written")
    return rows
