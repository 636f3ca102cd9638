"""A results folder as one page of HTML: what was trained, how right it is, and how it goes wrong.

The page needs no network, no other file and no script. Everything that comes from files is escaped.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from addgpt.config.format import duration
from addgpt.config.settings import as_text
from addgpt.evaluation.intervals import percent
from addgpt.evaluation.schema import ERROR_KINDS
from addgpt.task_lookup import short, task_class, task_names
from analysis.report import data, examples, figures, numbers
from analysis.report.data import Group, Progress, RunData
from analysis.report.svg import Drawings

TEMPLATES = Path(__file__).parent / "templates"
LARGEST_EXPONENT = 700  # of e as a float
OPEN = 3  # groups up to which all of them are unfolded from the start
LONGEST_TEXT = 600  # characters shown of a text that comes from a file
SHAPE = ("architecture", "layers", "width")  # settings that are shown without being asked for
RECIPE = ("batch_size", "optimizer", "lr", "muon_lr", "schedule")


@dataclass(frozen=True)
class Page:
    """The html of the page, how many runs it shows, and a line for each file it cannot show.

    `left_out` says how many reference runs are not shown, see `data.chosen`.
    """

    html: str
    runs: int
    faults: tuple[str, ...]
    left_out: int = 0


def build(folder: str | Path, progress: Progress | None = None, date: str = "") -> Page:
    """The page about the runs in a folder; the same for the same files.

    Args:
        folder: a results folder, searched at any depth, or one run folder.
        progress: is given items, how many there are and what is done, and yields the items.
        date: stated as the day of the page; by default the day of the newest file.

    Raises:
        ValueError: no such folder, or no run in it.
    """
    folder = Path(folder)
    progress = progress or (lambda items, total, what: items)
    runs, faults = data.read(folder, progress)
    faults += [fault for run in runs for fault in run.faults]
    groups = data.group(runs)
    sections, drawings = [], Drawings()
    for one in progress(groups, len(groups), "drawing"):
        try:
            sections.append(_section(one, drawings))
        except data.DAMAGE as error:
            faults += [f"{run.name} cannot be shown: {error}" for run in one.runs]
    shown = [section["group"] for section in sections]
    shared = _shared([section["settings"] for section in sections])
    for section in sections:
        section["settings"] = {k: v for k, v in section["settings"].items() if k not in shared}
    html = (
        _templates()
        .get_template("report.html")
        .render(
            folder=folder.resolve().name,
            date=date or max((run.changed for run in runs), default=""),
            runs=sum(len(one.runs) for one in shown),
            sections=sections,
            compared=figures.compared(shown, drawings),
            most_lines=figures.MOST_LINES,
            drawings=drawings,
            shared=shared,
            faults=faults,
            shades=numbers.shade_names(),
            problems=any(section["headline"] for section in sections),
            texts=any(section["losses"] for section in sections),
            several=any(len(one.runs) > 1 for one in shown),
            unfolded=len(sections) <= OPEN,
            style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        )
    )
    html = html.encode("utf-8", "replace").decode("utf-8")
    return Page(html, len(runs), tuple(faults), data.chosen(folder)[1])


def _section(group: Group, drawings: Drawings) -> dict[str, Any]:
    """What the template shows of a group."""
    runs = [_run(run) for run in group.runs]
    scored = [run for run in group.runs if len(run.evals) or len(run.losses)]
    common = _shared([run["protocol"] for run in runs])
    for run in runs:
        run["protocol"] = {k: v for k, v in run["protocol"].items() if k not in common}
    return {
        "group": group,
        "facts": _facts(group),
        "time": _durations(_seconds(group)).partition(" (")[0],
        "settings": {
            key: _plain(value)
            for key, value in group.runs[0].recipe.items()
            if key != "model.visible"  # hundreds of numbers, which the task and attention say
        },
        "headline": numbers.headline(group),
        "losses": numbers.losses(group),
        "scored": len(scored),
        "missing": [str(run.path) for run in group.runs if scored and run not in scored],
        "unscored": _unscored(group),
        "figures": figures.draw(group, drawings),
        "strata": numbers.strata(group),
        "reached": numbers.reached(group),
        "course": numbers.course(group),
        "outdated": numbers.outdated(group),
        "contamination": numbers.contamination(group),
        "mistakes": numbers.mistakes(group),
        "explained": ERROR_KINDS,
        "wrong": examples.wrong_examples(group),
        "right": examples.right_examples(group),
        "runs": runs,
        "common": common,
    }


def _shared(settings: Sequence[dict[str, str]]) -> dict[str, str]:
    """Settings that all of several groups have in common; they are listed once."""
    first = settings[0] if len(settings) > 1 else {}
    return {key: text for key, text in first.items() if all(s.get(key) == text for s in settings)}


def _facts(group: Group) -> dict[str, str]:
    """What was trained, in a few lines; what is not known is left out."""
    first, runs = group.runs[0], group.runs
    model, train = first.part("model"), first.part("train")
    looks = [run.metrics.iloc[-1] for run in runs if len(run.metrics)]
    scored = [table for run in runs for table in (run.evals, run.losses) if len(table)]
    facts = {
        "Task": short(str(first.config["task"])),
        "Options": _pairs(_options(first)),
        "Model": _pairs({key: model[key] for key in SHAPE if key in model}),
        "Parameters": _numbers(table["params"].max() for table in scored),
        "Steps": _numbers(look["step"] for look in looks),
        "Examples": _numbers(look["examples"] for look in looks),
        "Training": _pairs({key: train[key] for key in RECIPE if key in train}),
        "Training time": _durations(_seconds(group)),
        "Seeds": ", ".join(dict.fromkeys(str(run.config["seed"]) for run in runs)),
        "Machine": _distinct(run.part("versions").get("machine", "") for run in runs),
        "Date": _distinct(_date(run)[:10] for run in runs),
    }
    return {name: text for name, text in facts.items() if text}


def _options(run: RunData) -> dict[str, str]:
    """How many digits, and what is not as the task has it by default; of a task that does not come
    with addgpt all options, for no code of others is run for a page."""
    name = str(run.config["task"])
    usual = task_class(name).options() if name in task_names() else {}
    told = {key: as_text(value) for key, value in run.part("options").items()}
    return {
        key: text
        for key, text in told.items()
        if key.endswith("digits") or key not in usual or text != as_text(usual[key].default)
    }


def _seconds(group: Group) -> list[float]:
    return [run.metrics["seconds"].iloc[-1] for run in group.runs if len(run.metrics)]


def _unscored(group: Group) -> str:
    """What the overview says of runs without eval.csv and loss.json."""
    losses = [run.metrics["val_loss"].iloc[-1] for run in group.runs if len(run.metrics)]
    if not losses:
        return "nothing logged yet"
    if any(run.metrics["val_exact"].notna().any() for run in group.runs if len(run.metrics)):
        return f"not scored yet: addgpt eval {group.runs[0].path}"
    loss = f"loss on val {statistics.median(losses):.4g} nats per token"
    return f"{loss}, median of {len(losses)}" if len(losses) > 1 else loss


def _run(run: RunData) -> dict[str, Any]:
    """What the template shows of one run: its commands, versions and all that eval.json says."""
    versions = {name: str(text) for name, text in run.part("versions").items() if text}
    return {
        "name": run.name,
        "seed": str(run.config["seed"]),
        "losses": numbers.losses(Group(run.name, (run,))),
        "command": str(run.config.get("command", "")),
        "facts": {"date": _date(run)} | versions,
        "scored_by": str(run.protocol.get("command") or ""),
        "protocol": {
            name: _plain(value)
            for name, value in run.protocol.items()
            if name not in ("command", "date", "contamination.summary") and value != []
        },
    }


def _date(run: RunData) -> str:
    return str(run.protocol.get("date") or "") or f"{run.changed} (last change of its files)"


def _pairs(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in settings.items())


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _distinct(texts: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(text) for text in texts if text))


def _numbers(values: Iterable[float]) -> str:
    """`54,788`, or the ends of several: `54,788 to 60,000`."""
    known = [value for value in values if math.isfinite(value)]
    ends = [f"{end:,.0f}" for end in (min(known), max(known))] if known else [""]
    return " to ".join(dict.fromkeys(ends))


def _durations(seconds: Iterable[float]) -> str:
    known = [value for value in seconds if math.isfinite(value)]
    if len(known) > 1:
        ends = f"{duration(min(known))} to {duration(max(known))}"
        return f"{duration(statistics.median(known))} (median of {len(known)}; {ends})"
    return duration(known[0]) if known else ""


def _bits(nats: float) -> str:
    """Loss in other units: `2.120 bits, perplexity 4.35`."""
    perplexity = math.exp(min(nats, LARGEST_EXPONENT))
    return f"{nats / math.log(2):.4g} bits, perplexity {perplexity:.4g}"


def _short(text: object) -> str:
    """A text of a file, its end cut off if it is long."""
    text = str(text)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… (cut)"


def _down(number: float) -> str:
    """A number of per cent, never rounded up."""
    return percent(number, 100)


def _templates() -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    templates = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"short": _short, "duration": duration, "bits": _bits, "down": _down}
    return templates
