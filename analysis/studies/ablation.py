"""What each feature buys: the cases of sweeps against their case `default`, seed by seed.

    addgpt sweep ablation-add
    addgpt study ablation results/ablation-add --csv FILE --png FILE

Several folders are several columns of the table and panels of the figure; a table that --csv wrote
can take the place of the folders it was made from. A difference to `default` is that of runs of the
same seed, which are asked the same problems; its 95 % interval is Student's t over these pairs, so
it allows for the luck of seeds. A time is known only to the interval between validations: the
variance of its differences includes that of such rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from addgpt.config.errors import UsageError
from addgpt.evaluation.compare.statistics import LEVEL, student
from addgpt.evaluation.intervals import percent
from analysis import load, style
from analysis.studies import common

DEFAULT = "default"
GOAL = 0.99  # share of val
NOTE = (
    f"Median (worst seed); then the mean difference to `{DEFAULT}`, seed by seed [95 % interval "
    "over seeds]. Each interval is of its case alone: of many, some leave out 0 by chance. "
    f"`to 99 %`: until the first validation at which {100 * GOAL:g} % or more is right."
)
COLUMNS = (
    "sweep task case seed params step examples seconds seconds_to_99 examples_to_99 seconds_apart "
    "examples_apart n answer_correct far_n far_correct characters nats"
).split()


EFFECTS = ("sweep task measure case runs n seeds reached median worst difference low high").split()


@dataclass(frozen=True)
class Measure:
    """Something that is measured on a run; `of` takes it from `collect`.

    It is NaN where it is missing and inf where a goal was not reached. `resolution` and `counts`
    name columns of `collect`, if any: the step in which it is measured, and on how many problems or
    characters.
    """

    label: str
    more_is_better: bool
    of: Callable[[pd.DataFrame], pd.Series]
    show: Callable[[float], str]
    signed: str  # format of a difference
    resolution: str = ""
    counts: str = ""


MEASURES = {
    "seconds": Measure(
        "seconds of training to 99 % of val", False,
        lambda runs: runs["seconds_to_99"], "{:,.1f}".format, "{:+,.1f}", "seconds_apart",
    ),
    "examples": Measure(
        "examples to 99 % of val", False,
        lambda runs: runs["examples_to_99"], "{:,.0f}".format, "{:+,.0f}", "examples_apart",
    ),
    "exact": Measure(
        "exact match (%)", True,
        lambda runs: 100 * runs["answer_correct"] / runs["n"],
        lambda value: percent(value, 100), "{:+.2f}", counts="n",
    ),
    "far": Measure(
        "exact match, longer than trained on (%)", True,
        lambda runs: 100 * runs["far_correct"] / runs["far_n"],
        lambda value: percent(value, 100), "{:+.2f}", counts="far_n",
    ),
    "loss": Measure(
        "held-out loss (nats a character)", False,
        lambda runs: runs["nats"], "{:.4f}".format, "{:+.4f}", counts="characters",
    ),
}  # fmt: skip
DRAWN = ("loss", "far", "examples", "exact")  # the first that tells cases apart
PANELS = 4  # in a row
LOOKS = {
    "better": {"marker": "o", "color": style.COLOURS[0], "mfc": style.COLOURS[0]},
    "worse": {"marker": "s", "color": style.MARK, "mfc": style.MARK},
    "not told apart": {"marker": "o", "color": "0.45", "mfc": "white"},
}
SAID = {"ha": "right", "va": "center", "fontsize": 8, "color": "0.35",
        "bbox": {"fc": "white", "ec": "none", "pad": 1}}  # fmt: skip


def collect(*places: str | Path) -> pd.DataFrame:
    """One row per run of the sweeps in some folders, in `COLUMNS`; what is missing is NaN.

    In place of folders there may be csv files of such rows.

    `seconds_to_99` and `examples_to_99` are inf where val never was so right; `seconds_apart` and
    `examples_apart` say how far that validation is from the one before it. `n` and `answer_correct`
    are of held-out problems of lengths trained on, `far_n` and `far_correct` of longer ones, both
    without strata; `nats` is the loss on `characters` of held-out text. A run that did not finish
    has none of it.

    Raises ValueError if a folder is not that of a sweep with a case `default`, a file not such a
    table, or a sweep there twice.
    """
    paths = [Path(place) for place in places]
    table = pd.concat([_read(p) if p.is_file() else _sweep(p) for p in paths], ignore_index=True)
    if table.duplicated(["sweep", "case", "seed"]).any():
        names = ", ".join(dict.fromkeys(table["sweep"]))
        raise UsageError(f"a sweep, or a seed of a case, is there twice: {names}")
    for name, part in table.groupby("sweep", sort=False):
        if DEFAULT not in set(part["case"]):
            cases = ", ".join(dict.fromkeys(part["case"]))
            raise UsageError(f"{name} has no case {DEFAULT}; its cases: {cases}")
    return table


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """One row per sweep, measure and case: seeds, their median and worst, the difference.

    Of `n` problems or characters each (the fewest of any run), 0 where there are none to count.
    `runs` were planned, `seeds` have the measure and so has `default` of that seed, `reached` of
    them reached the goal. `difference`, `low` and `high` are missing unless all of them did in the
    case and in `default`; `low` and `high` also where there is one seed. Takes `collect`.
    """
    rows = []
    for (sweep, task), part in table.groupby(["sweep", "task"], sort=False):
        for name, measure in MEASURES.items():
            values = part.assign(value=measure.of(part))
            step = part[measure.resolution].max() if measure.resolution else 0.0
            by_case = values.pivot(index="seed", columns="case", values="value")
            if by_case[DEFAULT].isna().all():
                continue
            for case in dict.fromkeys(part["case"]):
                pairs = by_case.loc[by_case[[DEFAULT, case]].notna().all(axis=1)]
                one, base = pairs[case].to_numpy(), pairs[DEFAULT].to_numpy()
                facts = {"sweep": sweep, "task": task, "measure": name, "case": case}
                facts["runs"] = int((part["case"] == case).sum())
                facts["n"] = int(part[measure.counts].min()) if measure.counts else 0
                rows.append(facts | _spread(one, measure) | paired(one, base, step))
    return pd.DataFrame(rows, columns=EFFECTS)


def describe(table: pd.DataFrame) -> str:
    """`effects` as a table in text and a note: a row per case, a column per sweep and measure.

    A goal that no run of a sweep reached has no column.
    """
    found = effects(table)
    at = {tuple(row[["case", "sweep", "measure"]]): row for _, row in found.iterrows()}
    reached = found[found["reached"] > 0].groupby(["sweep", "measure"], sort=False).size()
    columns = [
        (sweep, name)
        for sweep in dict.fromkeys(table["sweep"])
        for name in MEASURES
        if (sweep, name) in reached.index
    ]
    head = [f"{sweep}: {MEASURES[name].label}" for sweep, name in columns]
    rows = [
        [case, *(_cell(at.get((case, *column)), MEASURES[column[1]]) for column in columns)]
        for case in _cases(table)
    ]
    return f"{common.markdown(['case', *head], rows)}\n\n{NOTE}"


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """The difference of each case to `default`: a dot and its 95 % interval, a panel per sweep.

    A panel shows the first measure of `DRAWN` that its sweep has and that differs between cases.
    Takes `collect`; raises ValueError if there is no case but `default`.
    """
    found, cases = effects(table), _cases(table)[1:]
    if not cases or found.empty:
        raise UsageError(f"there is nothing to draw: no case was scored besides {DEFAULT}")
    parts = list(found.groupby("sweep", sort=False))
    height = 1.5 + 0.24 * len(cases)
    figure, axes = style.panels(len(parts), columns=PANELS, width=4.0, height=height)
    for number, (axis, (_, part)) in enumerate(zip(axes, parts, strict=True)):
        have = [name for name in DRAWN if name in set(part["measure"])]
        telling = set(part.loc[part["difference"].abs() > 0, "measure"])
        name = next((name for name in have if name in telling), have[0])
        rows = part[part["measure"] == name].set_index("case", drop=False)
        _panel(axis, rows, cases, MEASURES[name])
        labels = cases if number % PANELS == 0 else [""] * len(cases)
        axis.set_yticks(range(len(cases)), labels)
    key = [Line2D([], [], ls="", label=label, **look) for label, look in LOOKS.items()]
    figure.suptitle(f"mean difference to {DEFAULT}, seed by seed, with 95 % interval over seeds")
    style.legend(figure, key)
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, cases: Sequence[str], measure: Measure) -> None:
    """One sweep: `rows` by case, those of one measure."""
    axis.axvline(0, color="0.15", linewidth=1, zorder=1)
    for height, case in enumerate(cases):
        if case not in rows.index:
            continue
        row = rows.loc[case]
        if math.isnan(row["difference"]):
            some = f"99 % in {row['reached']} of {row['seeds']} seeds" if row["seeds"] else "no run"
            axis.text(0.98, height, some, transform=axis.get_yaxis_transform(), **SAID)
            continue
        better = (row["difference"] > 0) == measure.more_is_better
        clear = row["low"] > 0 or row["high"] < 0
        look = LOOKS[("better" if better else "worse") if clear else "not told apart"]
        half = row["high"] - row["difference"]
        axis.errorbar(row["difference"], height, xerr=half, ls="", ms=6, lw=1.4, **look)
    # A wide interval of one case runs out of the panel rather than squeezing the others.
    ends = rows.loc[rows.index.isin(cases), ["difference", "low", "high"]].stack().dropna()
    low, high = np.percentile([*ends, 0.0], [2, 98])
    axis.set(xlim=(low - 0.1 * (high - low or 1), high + 0.1 * (high - low or 1)), ylabel="")
    axis.set_ylim(len(cases) - 0.4, -0.6)
    better = "right" if measure.more_is_better else "left"
    axis.set_xlabel(f"{measure.label}:\ndifference, {better} of 0 is better")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    if measure is MEASURES["examples"]:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    base = rows.loc[DEFAULT]
    axis.set_title(f"{base['sweep']}\n{DEFAULT}: {_cell(base, measure)}", fontsize=10)


def _read(file: Path) -> pd.DataFrame:
    """The rows of `collect` in a file of them."""
    kinds = dict.fromkeys(COLUMNS[:3], str) | {"seed": int}
    try:
        table = pd.read_csv(file, dtype=kinds, keep_default_na=False, na_values=[""])
        whole = list(table.columns) == COLUMNS and not table.empty
        if not whole or table[COLUMNS[:3]].isna().any(axis=None):
            raise UsageError("not the columns and rows of --csv")
        return _typed(table)
    except (ValueError, OSError) as error:
        raise UsageError(f"{file} is no table of sweeps: {str(error).strip()}") from None


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(dict.fromkeys(COLUMNS[4:], float))


def _sweep(folder: Path) -> pd.DataFrame:
    plan = common.planned(folder)
    evals, losses = load.evals(folder), load.losses(folder)
    params = pd.concat([evals[["run", "params"]], losses[["run", "params"]]])
    parts = [_training(load.metrics(folder)), _scores(evals), _losses(losses)]
    facts = pd.concat([params.groupby("run")["params"].first(), *parts], axis=1)
    facts = facts.loc[facts.index.isin(plan.loc[plan["done"], "run"])]
    table = plan.assign(sweep=folder.resolve().name).join(facts, on="run")
    return _typed(table.reindex(columns=COLUMNS))


def _training(log: pd.DataFrame) -> pd.DataFrame:
    """By run: where its log ends, and when val first was as right as `GOAL`."""
    groups = log.groupby("run", sort=False)
    times = ["seconds", "examples"]
    apart = groups[times].diff().fillna(log[times]).add_suffix("_apart")
    good = log[times].add_suffix("_to_99").join(apart).assign(run=log["run"])
    good = good[log["val_exact"] >= GOAL].groupby("run").first()
    ends = groups[["step", "examples", "seconds"]].last()
    reached = good.reindex(ends.index)
    never = reached["seconds_to_99"].isna() & (groups["val_exact"].count() > 0)
    reached.loc[never, ["seconds_to_99", "examples_to_99"]] = np.inf
    return ends.join(reached)


def _scores(evals: pd.DataFrame) -> pd.DataFrame:
    """By run: held-out problems and right answers, of lengths trained on and of longer ones."""
    plain = (evals["stratum"] == "all") | (evals["len_a"] == 0)
    cells = evals[plain & ~evals["seen"].astype(bool)]
    far = cells["longer"].astype(bool)
    counts = ["n", "answer_correct"]
    near = cells[~far].groupby("run")[counts].sum()
    beyond = cells[far].groupby("run")[counts].sum().set_axis(["far_n", "far_correct"], axis=1)
    return pd.concat([near, beyond], axis=1)


def _losses(losses: pd.DataFrame) -> pd.DataFrame:
    """By run: the loss with the longest context, and on how many characters."""
    rows = losses.sort_values("context").groupby("run").last()
    return rows[["n", "nats"]].rename(columns={"n": "characters"})


def _spread(values: np.ndarray, measure: Measure) -> dict[str, float]:
    worst = np.min if measure.more_is_better else np.max
    return {
        "seeds": len(values),
        "reached": int(np.isfinite(values).sum()),
        "median": float(np.median(values)) if len(values) else math.nan,
        "worst": float(worst(values)) if len(values) else math.nan,
    }


def paired(one: np.ndarray, base: np.ndarray, step: float = 0.0) -> dict[str, float]:
    """The mean of differences and its 95 % interval by Student's t; NaN where it is not defined.

    Rounding to a step has the variance step^2 / 12, on either side.
    """
    n = len(one)
    if not n or not np.isfinite([one, base]).all():
        return dict.fromkeys(("difference", "low", "high"), math.nan)
    difference = one - base
    half = math.nan
    if n > 1:
        deviation = max(difference.std(ddof=1), step / math.sqrt(6))
        half = student((1 + LEVEL) / 2, n - 1) * deviation / math.sqrt(n)
    mean = float(difference.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half}


def _cases(table: pd.DataFrame) -> list[str]:
    """All cases of all sweeps, `default` first, else in the order of their files."""
    return list(dict.fromkeys([DEFAULT, *table["case"]]))


def _cell(row: pd.Series | None, measure: Measure) -> str:
    if row is None:
        return ""
    if not row["seeds"]:
        return "no run finished"
    few = f", {row['seeds']} of {row['runs']} seeds" if row["seeds"] < row["runs"] else ""
    if row["reached"] < row["seeds"]:
        return f"reached by {row['reached']} of {row['seeds']}{few}"
    text = f"{measure.show(row['median'])} ({measure.show(row['worst'])})"
    if row["case"] == DEFAULT:
        return text + few + (f", n = {row['n']:,}" if row["n"] else "")
    if math.isfinite(row["difference"]):
        ends = [measure.signed.format(end) for end in row[["low", "high"]] if math.isfinite(end)]
        interval = " to ".join(ends) or "one seed"
        text += f"; {measure.signed.format(row['difference'])} [{interval}]"
    return text + few
