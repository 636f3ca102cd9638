"""addgpt certify"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

RESULTS_OF = {"+": "sum", "-": "difference", "*": "product", "/": "quotient"}


@click.command("certify")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="The certificate on stdout, nothing else.")
def command(run: str, as_json: bool) -> None:
    """Prove that a run is right for problems of any length.

    For runs with local attention. It lists everything that a slot of a right trace can see, runs
    the model in each of these contexts, and requires that the right token win by more than rounding
    can change; it shows contexts where that fails. The certificate is written to the run folder.
    Exit code 1 if it does not hold, 2 if such a model cannot have one.

    \b
    Example:
      addgpt certify results/add-3
      addgpt certify calculator --json
    """
    from addgpt.evaluation.certify import certify
    from addgpt.runs.run import CONFIG, MODEL, SHIPPED, Run, run_path

    def say(text: str) -> None:
        click.echo(text, err=True)

    path = run_path(run)
    with tempfile.TemporaryDirectory() as folder:
        if path.resolve().parent == SHIPPED.parent:  # they have certificates that nobody overwrites
            shipped, path = path, Path(folder) / path.resolve().name
            path.mkdir()
            for name in (CONFIG, MODEL):
                shutil.copy(shipped / name, path)
        found = certify(Run(path), (lambda text: None) if as_json else say)
    click.echo(json.dumps(found, indent=1) if as_json else summary(found))
    sys.exit(0 if found["proved"] else 1)


def summary(found: dict[str, Any]) -> str:
    """A certificate as people read it."""
    width = max(map(len, found["rows"]))
    lines = [f"{'row':<{width}}  {'contexts':>9}  {'wrong':>6}  smallest margin"]
    for name, row in found["rows"].items():
        lines.append(
            f"{name:<{width}}  {row['contexts']:>9,}  {row['wrong']:>6,}  {row['margin']:.2f}"
        )
    lines.append("")
    for failure in found["failures"]:
        seen = ", ".join(failure["seen"])
        problem = f"; try {failure['problem']}" if failure["problem"] else ""
        lines.append(f"wrong: {failure['row']} after {seen}: right is {failure['right']}{problem}")
    lines.append(verdict(found))
    if found["proved"]:
        lines.append(
            f"rounding: at most {found['float32']['bound']:.2g} logits in float32, "
            f"{found['float64']['bound']:.1g} in float64; "
            f"observed: {found['tried']['deviation']:.1g}"
        )
    return "\n".join(lines)


def verdict(found: dict[str, Any]) -> str:
    """What a certificate says, in one line."""
    contexts, tried = f"{found['contexts']:,} contexts", found["tried"]
    if found["proved"]:
        margin = f"smallest margin {found['margin']:.2f}"
        asked = [RESULTS_OF[op] for op in found["operations"] if op in RESULTS_OF] or ["problem"]
        every = " and ".join(filter(None, [", ".join(asked[:-1]), asked[-1]]))
        return f"right for every {every} of any length: {contexts}, {margin}"
    if tried["unlisted"]:
        met = f"{tried['unlisted']:,} of {tried['slots']:,} slots of random problems"
        return f"not proved: {met} are not as listed; the rules of the trace are wrong"
    if found["wrong"]:
        return f"not proved: {found['wrong']:,} of {contexts} wrong"
    bound, deviation = found["float32"]["bound"], tried["deviation"]
    if deviation > bound:
        return f"not proved: logits change by {deviation:.2g} with what cannot be seen"
    return f"not proved: rounding errors reach {bound:.2g}, more than a margin"
