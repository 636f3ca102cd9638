"""What each feature buys: the cases of sweeps against their case `default`, seed by seed.

    addgpt sweep ablation-add
    python -m analysis.ablation results/ablation-add --csv FILE --out FILE

Several folders are several columns of the table and panels of the figure; a table that --csv wrote
stands for the folders it was made from. A difference to `default`
is that of runs of the same seed, which are asked the same problems; its 95 % interval is Student's
t over these pairs, so it allows for the luck of seeds. A time is known no finer than looks at val
are apart: its differences are taken to vary at least as those of times rounded to looks do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from addgpt.evaluation.compare.statistics import LEVEL, student
from addgpt.evaluation.intervals import percent
from analysis import load, style, sweeps

DEFAULT = "default"
GOAL = 0.99  # share of val
NOTE = (
    f"Median (worst seed); then the mean difference to `{DEFAULT}`, seed by seed [95 % interval "
    "over seeds]. Each interval is of its case alone: of many, some leave out 0 by chance. "
    f"`to 99 %`: until the first look at val at which {100 * GOAL:g} % or more is right."
)
COLUMNS = (
    "sweep task case seed params step examples seconds seconds_to_99 examples_to_99 seconds_apart "
    "examples_apart n answer_correct far_n far_correct characters nats"
).split()


EFFECTS = ("sweep task measure case runs n seeds reached median worst difference low high").split()


@dataclass(frozen=True)
class Measure:
    """Something that is measured of a run; `of` takes it from `collect`.

    It is NaN where it is missing and inf where a goal was not reached. Columns of `collect`, where
    there are such: `grain` says in which steps it is measured, `counts` on how many problems or
    characters.
    """

    label: str
    more_is_better: bool
    of: Callable[[pd.DataFrame], pd.Series]
    show: Callable[[float], str]
    signed: str  # format of a difference
    grain: str = ""
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
ROOM = 0.5  # kept around the dots, in widths of what they span, or else for the median interval
LOOKS = {
    "better": {"marker": "o", "color": style.COLOURS[0], "mfc": style.COLOURS[0]},
    "worse": {"marker": "s", "color": style.MARK, "mfc": style.MARK},
    "not told apart": {"marker": "o", "color": "0.45", "mfc": "white"},
}


def collect(places: Sequence[str | Path]) -> pd.DataFrame:
    """One row per run of the sweeps in some folders, in `COLUMNS`; what is missing is NaN.

    In place of folders there may be csv files of such rows.

    `seconds_to_99` and `examples_to_99` are inf where val never was so right; `seconds_apart` and
    `examples_apart` say how far that look is from the one before it. `n` and `answer_correct` are
    of held-out problems of lengths trained on, `far_n` and `far_correct` of longer ones, both
    without strata; `nats` is the loss on `characters` of held-out text. A run that did not finish
    has none of it.

    Raises ValueError if a folder is not that of a sweep with a case `default`, a file not such a
    table, or a sweep there twice.
    """
    found = [_read(Path(place)) for place in places]
    names = [name for part in found for name in dict.fromkeys(part["sweep"])]
    if len(set(names)) < len(names):
        raise ValueError(f"each sweep needs a name of its own, not {', '.join(names)}")
    return pd.concat(found, ignore_index=True)


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
            grain = part[measure.grain].max() if measure.grain else 0.0
            by_case = values.pivot(index="seed", columns="case", values="value")
            if by_case[DEFAULT].isna().all():
                continue
            for case in dict.fromkeys(part["case"]):
                pairs = by_case.loc[by_case[[DEFAULT, case]].notna().all(axis=1)]
                one, base = pairs[case].to_numpy(), pairs[DEFAULT].to_numpy()
                facts = {"sweep": sweep, "task": task, "measure": name, "case": case}
                facts["runs"] = int((part["case"] == case).sum())
                facts["n"] = int(part[measure.counts].min()) if measure.counts else 0
                rows.append(facts | _spread(one, measure) | _paired(one, base, grain))
    return pd.DataFrame(rows, columns=EFFECTS)


def markdown(table: pd.DataFrame) -> str:
    """`effects` as a table in text and a note: a row per case, a column per sweep and measure.

    A goal that no run of a sweep reached has no column.
    """
    found = effects(table)
    at = {(row.case, row.sweep, row.measure): row for row in found.itertuples()}
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
    return f"{sweeps.markdown(['case', *head], rows)}\n\n{NOTE}"


@style.styled
def features(table: pd.DataFrame) -> Figure:
    """The difference of each case to `default`: a dot and its 95 % interval, a panel per sweep.

    A panel shows the first measure of `DRAWN` that its sweep has and that differs between cases.
    Takes `collect`; raises ValueError if there is no case but `default`.
    """
    found, cases = effects(table), _cases(table)[1:]
    if not cases or found.empty:
        raise ValueError(f"there is nothing to draw: no case was scored besides {DEFAULT}")
    names = list(dict.fromkeys(found["sweep"]))
    height = 1.5 + 0.24 * len(cases)
    figure, axes = style.panels(len(names), columns=PANELS, width=4.0, height=height)
    for number, (axis, name) in enumerate(zip(axes, names, strict=True)):
        part = found[found["sweep"] == name]
        measure = _drawn(part)
        _panel(
            axis,
            part[part["measure"] == measure].set_index("case", drop=False),
            cases,
            MEASURES[measure],
        )
        labelled = number % PANELS == 0
        axis.set_yticks(range(len(cases)), cases if labelled else [""] * len(cases))
    key = [Line2D([], [], ls="", label=label, **look) for label, look in LOOKS.items()]
    figure.suptitle(f"mean difference to {DEFAULT}, seed by seed, with 95 % interval over seeds")
    style.legend(figure, key)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    about = f"Compare the cases of sweeps with their case {DEFAULT}: a table and a figure."
    words = "ablation", about, "results/ablation-add"
    return sweeps.command(arguments, *words, collect, features, markdown, several=True)


def _read(place: Path) -> pd.DataFrame:
    """The rows of `collect` of one folder, or of a file of them."""
    if not place.is_file():
        return _sweep(place.resolve().name, place)
    kinds = dict.fromkeys(COLUMNS[:3], str) | {"seed": int}
    try:
        table = pd.read_csv(place, dtype=kinds, keep_default_na=False, na_values=[""])
        nameless = table.reindex(columns=COLUMNS[:3]).isna().to_numpy().any()
        if list(table.columns) != COLUMNS or table.empty or nameless:
            raise ValueError("not the columns and rows of --csv")
        if table.duplicated(["sweep", "case", "seed"]).any():
            raise ValueError("a case has a seed twice")
        table = _typed(table)
    except (ValueError, OSError) as error:
        raise ValueError(f"{place} is no table of sweeps: {str(error).strip()}") from None
    for name, part in table.groupby("sweep"):
        if DEFAULT not in set(part["case"]):
            raise ValueError(f"{place}: {name} has no case {DEFAULT}")
    return table


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(dict.fromkeys(COLUMNS[4:], float))


def _sweep(name: str, folder: Path) -> pd.DataFrame:
    file = folder / "sweep.json"
    if not file.is_file():
        raise ValueError(f"{folder} is not the folder of a sweep: it has no sweep.json")
    plan = load.read_json(file, dict)
    try:
        rows = [
            (str(plan["task"]), str(row["combination"]), int(row["seed"]), str(row["run"]))
            for row in plan["runs"]
        ]
        done = [str(row["run"]) for row in plan["runs"] if row["state"] == "done"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from None
    listed = pd.DataFrame(rows, columns=["task", "case", "seed", "run"]).assign(sweep=name)
    cases = list(dict.fromkeys(listed["case"]))
    if DEFAULT not in cases:
        raise ValueError(f"{file} has no case {DEFAULT}; its cases: {', '.join(cases)}")
    if listed.duplicated(["case", "seed"]).any():
        raise ValueError(f"{file} is damaged: a case has a seed twice")
    evals, losses = load.evals(folder), load.losses(folder)
    noted = pd.concat([evals[["run", "params"]], losses[["run", "params"]]])
    params = noted.groupby("run")["params"].first()
    parts = params, _training(load.metrics(folder)), _scores(evals), _losses(losses)
    facts = pd.concat(parts, axis=1)
    facts = facts.loc[facts.index.isin(done)]
    return _typed(listed.join(facts, on="run").reindex(columns=COLUMNS))


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
    cells = evals[(evals["stratum"] == "all") & ~evals["seen"].astype(bool)]
    far = cells[["len_a", "len_b"]].max(axis=1) > cells["trained"]
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


def _paired(one: np.ndarray, base: np.ndarray, grain: float = 0.0) -> dict[str, float]:
    """The mean of differences and its 95 % interval by Student's t; NaN where it cannot be told.

    Rounding to steps of `grain` has the variance grain^2 / 12, on either side.
    """
    n = len(one)
    if not n or not np.isfinite([one, base]).all():
        return dict.fromkeys(("difference", "low", "high"), math.nan)
    difference = one - base
    half = math.nan
    if n > 1:
        deviation = max(difference.std(ddof=1), grain / math.sqrt(6))
        half = student((1 + LEVEL) / 2, n - 1) * deviation / math.sqrt(n)
    mean = float(difference.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half}


def _cases(table: pd.DataFrame) -> list[str]:
    """All cases of all sweeps, `default` first, else in the order of their files."""
    return list(dict.fromkeys([DEFAULT, *table["case"]]))


def _cell(row: tuple | None, measure: Measure) -> str:
    if row is None:
        return ""
    if not row.seeds:
        return "no run finished"
    few = f", {row.seeds} of {row.runs} seeds" if row.seeds < row.runs else ""
    if row.reached < row.seeds:
        return f"reached by {row.reached} of {row.seeds}{few}"
    text = f"{measure.show(row.median)} ({measure.show(row.worst)})"
    if row.case != DEFAULT and math.isfinite(row.difference):
        ends = [measure.signed.format(end) for end in (row.low, row.high) if math.isfinite(end)]
        interval = " to ".join(ends) or "one seed"
        text += f"; {measure.signed.format(row.difference)} [{interval}]"
    return text + few + _n(row)


def _n(row: tuple | pd.Series) -> str:
    """`, n = 1,200`, for `default`: the other cases have the same."""
    return f", n = {row.n:,}" if row.n and row.case == DEFAULT else ""


def _drawn(part: pd.DataFrame) -> str:
    """The measure that is drawn of a sweep."""
    have = [name for name in DRAWN if name in set(part["measure"])]
    telling = part.loc[part["difference"].abs() > 0, "measure"]
    return next((name for name in have if name in set(telling)), have[0])


def _panel(axis: Axes, rows: pd.DataFrame, cases: Sequence[str], measure: Measure) -> None:
    """One sweep: `rows` by case, those of one measure."""
    known = rows["difference"].dropna()
    least, most = min(0.0, known.min()), max(0.0, known.max())
    half = ((rows["high"] - rows["low"]) / 2).loc[known.index].median()
    room = max(ROOM * (most - least), 0.0 if math.isnan(half) else 1.1 * half) or 1.0
    ends = rows.loc[known.index, ["low", "high"]].fillna(0.0)
    left = max(least - room, min(least, ends["low"].min()) - 0.05 * room)
    right = min(most + room, max(most, ends["high"].max()) + 0.05 * room)
    for height, case in enumerate(cases):
        if case in rows.index:
            _dot(axis, rows.loc[case], height, (left, right), measure)
    axis.axvline(0, color="0.15", linewidth=1, zorder=1)
    axis.set(xlim=(left, right), ylim=(len(cases) - 0.4, -0.6), ylabel="")
    better = "right" if measure.more_is_better else "left"
    axis.set_xlabel(f"{measure.label}:\ndifference, {better} of 0 is better")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    if most - least > 1000:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    base = rows.loc[DEFAULT]
    axis.set_title(f"{base['sweep']}\n{DEFAULT}: {_cell_of_default(base, measure)}", fontsize=10)


def _cell_of_default(base: pd.Series, measure: Measure) -> str:
    seeds = f"{base['seeds']} seed{'s' if base['seeds'] > 1 else ''}"
    if base["reached"] < base["seeds"]:
        return f"reached by {base['reached']} of {seeds}"
    return f"{measure.show(base['median'])}, median of {seeds}{_n(base)}"


def _dot(axis: Axes, row: pd.Series, height: int, ends: tuple[float, float], m: Measure) -> None:
    middle, low, high = row["difference"], row["low"], row["high"]
    if math.isnan(middle):
        said = f"99 % in {row['reached']} of {row['seeds']} seeds" if row["seeds"] else "no run"
        place = {"ha": "right", "va": "center", "fontsize": 8, "color": "0.35"}
        place["bbox"] = {"fc": "white", "ec": "none", "pad": 1}
        axis.text(0.98, height, said, transform=axis.get_yaxis_transform(), **place)
        return
    better = (middle > 0) == m.more_is_better
    clear = not (math.isnan(low) or low <= 0 <= high)
    look = LOOKS[("better" if better else "worse") if clear else "not told apart"]
    axis.plot(middle, height, ls="", ms=6, zorder=3, **look)
    if math.isfinite(low):
        axis.plot([low, high], [height, height], color=look["color"], lw=1.4, zorder=2)
        for end, beyond, caret in ((0, low < ends[0], 4), (1, high > ends[1], 5)):
            if beyond:  # the interval goes on outside the panel
                axis.plot(ends[end], height, marker=caret, color=look["color"], ms=6, clip_on=False)


if __name__ == "__main__":
    sys.exit(main())
