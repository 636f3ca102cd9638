"""Run folders as tidy tables: one row per run, per logged step or per evaluated cell.

This is the way to read results with pandas:

    from analysis import load

    runs = load.runs("results")         # a row per run: settings, and how far it got
    metrics = load.metrics("results")   # a row per logged step: loss, exact match on val
    evals = load.evals("results")       # a row per cell of eval.csv, with its Wilson interval
    evals.groupby("run")["accuracy"].min()

`losses`, `errors` and `error_counts` are the loss on held-out texts and the wrong answers; `pool`
adds counts up.

Every function takes a results folder, searched at any depth for config.json, or one run folder. The
column `run` is the run folder's path below the given folder, so that it tells runs apart and the
tables can be joined on it. Anything unreadable raises ValueError with one line naming the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from addgpt.config.errors import UsageError
from addgpt.config.schema import ADDED
from addgpt.evaluation import schema
from addgpt.evaluation.intervals import wilson
from addgpt.evaluation.schema import (
    COUNTS,
    EVAL_COLUMNS,
    NUMBERS,
    is_counted,
    is_longer,
    read_eval,
    trained_length,
)
from addgpt.runs.files import RunError, holds_run, no_folder, read_checked, read_log
from addgpt.runs.recipe import flat
from addgpt.task_lookup import short

T = TypeVar("T")

LOSS_COLUMNS = ("run", "task", *NUMBERS, "split", "context", "n", "nats")
MISTAKE_COLUMNS = ("op", "len_a", "len_b", "stratum", "kind", "digit", "line")
ERROR_COLUMNS = (*MISTAKE_COLUMNS, "problem", "truth", "answer", "place", "target", "written")
PARTS = {"": "", "q": "quotient", "r": "remainder"}
IN_LOSS = ("label_smoothing", *ADDED)
METRIC_COLUMNS = ("step", "examples", "tokens", "seconds", "loss", "val_loss", "val_exact")


def find(folder: str | Path) -> dict[str, Path]:
    """The run folders in `folder` (itself included), by name, in order of name.

    Hidden folders are passed over, and models of transformers, such as exports. Raises ValueError
    if there is no such folder or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(no_folder(folder))
    found, others, own = {}, 0, folder.resolve().name
    for config in sorted(folder.rglob("config.json")):
        below = config.parent.relative_to(folder)
        if any(part.startswith(".") for part in below.parts):
            continue
        if holds_run(config.parent):
            name = below.as_posix() if below.parts else own
            found[f"{own}/{own}" if below.parts and name == own else name] = config.parent
        else:
            others += 1
    if not found and others:
        raise UsageError(f"{folder} holds no run, but a model of transformers: addgpt eval hf:PATH")
    if not found:
        raise UsageError(f"{folder} holds no run: no config.json at any depth")
    return found


def runs(folder: str | Path) -> pd.DataFrame:
    """One row per run: `run`, `path`, its settings, and the last logged step.

    Settings keep the nesting of config.json in their names: `task`, `seed`, `options.digits`,
    `model.layers`, `train.lr`, `versions.commit`. The last logged step adds `step`, `examples`,
    `tokens`, `seconds` (of training), `loss` and `val_loss` (nats per token) and `val_exact`
    (share in 0..1); they are missing where nothing has been logged.
    """
    rows = []
    for run, path in find(folder).items():
        last = dict.fromkeys(METRIC_COLUMNS) | (_logged(path) or [{}])[-1]
        rows.append({"run": run, "path": str(path)} | flat(read_config(path)) | last)
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(METRIC_COLUMNS, float))


def metrics(folder: str | Path) -> pd.DataFrame:
    """One row per logged step: `run`, `task`, `seed`, then the columns of metrics.jsonl.

    `seconds` are of training alone, losses are in nats per token, `val_exact` is a share in 0..1
    of `val_n` problems, missing for a task that has no right answers. The training loss `loss`
    includes that which label smoothing adds, where `label_smoothing` is not 0, and those of
    `z_loss`, `aux` and `supervise`, where these are set; `val_loss` does not.
    """
    rows = []
    for run, path in find(folder).items():
        config = read_config(path)
        train = config.get("train") or {}
        named = {
            "run": run,
            "task": short(config["task"]),
            "seed": config["seed"],
            "val_n": train.get("eval_size"),
        }
        named |= {name: train.get(name) or 0.0 for name in IN_LOSS}
        rows += [named | logged for logged in _logged(path)]
    columns = ("run", "task", "seed", "val_n", *IN_LOSS, *METRIC_COLUMNS)
    return _frame(rows, columns).astype(dict.fromkeys(METRIC_COLUMNS, float))


def evals(folder: str | Path) -> pd.DataFrame:
    """One row per row of eval.csv, of all runs that have one, with what counts imply.

    Added: `accuracy` (share of right answers in 0..1) with its Wilson 95 % interval `low`, `high`;
    `trained`, the longest operand in digits that the run was trained on for the row's operation,
    missing where that is not known, as for an external model; `longer`, whether the cell is beyond
    training; `counted`, whether `len_a` is how many operands there are, all as long as `len_b`.
    """
    rows = []
    for run, path in find(folder).items():
        if not (path / "eval.csv").is_file():
            continue
        config = read_config(path)
        others = (config.get("model") or {}).get("architecture") == "external"
        options = {} if others else config.get("options") or {}
        for row in _checked(lambda path=path: read_eval(path / "eval.csv")):
            told = {"trained": trained_length(options, row["op"])}
            told |= {"longer": is_longer(row, options), "counted": is_counted(options)}
            rows.append(row | {"run": run} | told)
    return with_accuracy(_frame(rows, (*EVAL_COLUMNS, "trained", "longer", "counted")))


def losses(folder: str | Path) -> pd.DataFrame:
    """One row per row of loss.json, the loss on a whole held-out text, of all runs that have one.

    `nats` is the mean cross-entropy of `n` characters, each predicted once from at least `context`
    before it (but the first ones).
    """
    rows = []
    for run, path in find(folder).items():
        file = path / "loss.json"
        if file.is_file():
            rows += [_loss_row(file, row) | {"run": run} for row in read_json(file, list)]
    return _frame(rows, LOSS_COLUMNS)


def errors(folder: str | Path) -> pd.DataFrame:
    """One row per wrong answer of errors.csv, a sample (see `evaluation.mistakes`), of all runs.

    Added: `run`; `part`, whether the quotient or the remainder is wrong, empty where there is no
    remainder to be wrong. `digit` (0 is the ones) and `line` (from 1) are missing where there is
    none; problems, answers and what was written are text.
    """
    return _mistakes(folder, "errors.csv", ERROR_COLUMNS, ("len_a", "len_b", "place"))


def error_counts(folder: str | Path) -> pd.DataFrame:
    """One row per row of error_counts.csv, where all wrong answers are counted (`n`), of all runs.

    `run`, `part`, `digit` and `line` are as in `errors`.
    """
    columns = (*MISTAKE_COLUMNS, "n")
    return _mistakes(folder, "error_counts.csv", columns, ("len_a", "len_b", "n"))


def pool(evals: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Evaluation rows added up: one row per value of `by`, with the counts of all its rows.

    Of the rows that were added up, `worst` is the lowest accuracy, `seen` says whether any was seen
    in training, `trained` is the longest operand trained on, `longer` says whether all are beyond
    training, and `counted` whether `len_a` of any is a number of operands.
    """
    groups = evals.groupby(list(by), sort=False)
    frame = (
        groups[list(COUNTS)]
        .sum()
        .assign(
            worst=groups["accuracy"].min(),
            seen=groups["seen"].any(),
            trained=groups["trained"].max(),
            longer=groups["longer"].all(),
            counted=groups["counted"].any(),
        )
    )
    return with_accuracy(frame.reset_index())


def with_accuracy(counts: pd.DataFrame) -> pd.DataFrame:
    """The table with `accuracy`, `low` and `high` (shares) from `answer_correct` of `n`."""
    right, n = (counts[name].to_numpy(float) for name in ("answer_correct", "n"))
    low, high = wilson(right, n)
    accuracy = np.divide(right, n, out=np.full(len(n), np.nan), where=n > 0)
    return counts.assign(accuracy=accuracy, low=low, high=high)


def read_config(path: Path) -> dict[str, Any]:
    """The settings of the run in a folder, as config.json has them. Raises ValueError."""
    file = path / "config.json"
    config = read_json(file, dict)
    if not {"task", "seed"} <= config.keys():
        raise UsageError(f"{file} is not the config of a run: it names no task and seed")
    if not isinstance(config["task"], str):
        raise UsageError(f"{file} is damaged: task is not a name")
    for part in ("options", "model", "train", "versions"):
        if not isinstance(config.get(part) or {}, dict):
            raise UsageError(f"{file} is damaged: {part} is not a set of settings")
    return config


def read_json(file: Path, kind: type[T]) -> T:
    """The content of a JSON file, an object (dict) or an array (list). Raises ValueError."""
    try:
        content = json.loads(_checked(lambda: read_checked(file)))
    except (RecursionError, json.JSONDecodeError) as error:
        raise UsageError(f"{file} is damaged: {error}") from None
    if not isinstance(content, kind):
        wanted = {dict: "object", list: "array"}[kind]
        raise UsageError(f"{file} is damaged: not a JSON {wanted}")
    return content


def csv_rows(
    file: Path, columns: Sequence[str], typed: Callable[[dict[str, str]], dict[str, Any]] = dict
) -> list[dict[str, Any]]:
    """As `evaluation.schema.csv_rows`, whose RunError is a ValueError here."""
    return _checked(lambda: list(schema.csv_rows(file, columns, typed)))


def read_table(file: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table in results/reference; where it counts answers, with `accuracy` and its interval.

    Raises ValueError if it cannot be read or lacks one of the columns.
    """
    try:
        table = pd.read_csv(file)
    except FileNotFoundError:
        what = "a clone of the repository has its tables, an installed package has not"
        raise UsageError(f"{file} cannot be read: no such file; {what}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"{file} cannot be read: {why}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise UsageError(f"{file} is damaged: no column {', '.join(missing)}")
    return with_accuracy(table) if {"n", "answer_correct"} <= {*table} else table


def _logged(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line still being written is left out."""
    file = path / "metrics.jsonl"
    return _checked(lambda: read_log(file)) if file.is_file() else []


def _mistakes(
    folder: str | Path, name: str, columns: Sequence[str], whole: Sequence[str]
) -> pd.DataFrame:
    def typed(row: dict[str, str]) -> dict[str, Any]:
        place = re.fullmatch("([qr]?)([0-9]*)", row["digit"])
        if place is None:
            raise UsageError(f"digit must be a number, not {row['digit']!r}")
        numbers = {field: int(row[field]) for field in whole}
        numbers |= {"digit": float(place[2] or "nan"), "line": float(row["line"] or "nan")}
        return row | numbers | {"part": PARTS[place[1]]}

    rows = []
    for run, path in find(folder).items():
        if (path / name).is_file():
            rows += [{"run": run} | row for row in csv_rows(path / name, columns, typed)]
    return _frame(rows, ("run", *columns, "part"))


def _loss_row(file: Path, row: Any) -> dict[str, Any]:
    try:
        whole = {name: int(row[name]) for name in ("context", "n")}
        numbers = {name: float(row[name]) for name in (*NUMBERS, "nats")}
        texts = {name: str(row[name]) for name in ("task", "split")}
        if not 0 <= numbers["nats"] < np.inf or whole["n"] < 1 or whole["context"] < 0:
            raise UsageError("nats and context must not be negative, and n above 0")
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UsageError(f"{file} is damaged: {error!r} in a row") from None
    return whole | numbers | texts


def _frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """The rows, those columns first, in order, whether or not there are rows."""
    frame = pd.DataFrame(rows, columns=None if rows else list(columns))
    return frame.reindex(columns=list(dict.fromkeys([*columns, *frame.columns])))


def _checked(read: Callable[[], T]) -> T:
    """What `read` returns; its RunError is a ValueError here."""
    try:
        return read()
    except RunError as error:
        raise UsageError(error) from None
