"""All benchmarks, one table. With --quick a smoke run; in full about ten minutes.

python -m benchmarks.run

A full run is appended to benchmarks/history.csv: a line a measurement, with its date, commit,
version of addgpt and machine.
"""

from __future__ import annotations

import csv
import statistics
import time
from pathlib import Path

from addgpt.evaluation.schema import csv_text
from addgpt.runs.provenance import versions
from addgpt.task_lookup import load_task
from benchmarks import (
    calculator,
    core,
    evaluation,
    generation,
    local_attention,
    shakespeare,
    time_to_99,
    timing,
    whole_process,
)

HISTORY = Path(__file__).parent / "history.csv"
COLUMNS = "date commit version machine benchmark unit ours reference ratio note".split()


def main() -> None:
    parser = timing.parser(__doc__, evaluation.add_options, time_to_99.add_options)
    options = parser.parse_args()
    timing.start(options)
    parts = [generation, local_attention, core, evaluation, calculator, time_to_99, whole_process]
    try:
        len(load_task("shakespeare", {}).alphabet)
        parts.append(shakespeare)
    except OSError as error:  # said now, not when minutes have passed
        timing.say(f"benchmarks.shakespeare is left out: {error}")
    rows = []
    for benchmark in parts:
        timing.say(f"\n{benchmark.__name__}")
        rows += benchmark.measure(options)
    print(f"{timing.machine()}\n\n{timing.table(rows)}")
    if not options.quick:
        remember(rows)


def remember(rows: list[timing.Row], path: Path = HISTORY) -> None:
    """Append the medians of a run to the history; earlier lines stay as they are."""
    here = versions()
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": here["commit"],
        "version": here["addgpt"],
        "machine": timing.machine(),
    }
    lines = [
        about
        | {
            "benchmark": row.name,
            "unit": row.unit,
            "ours": f"{statistics.median(row.ours):.6g}",
            "reference": f"{statistics.median(row.reference):.6g}" if row.reference else "",
            "ratio": f"{row.ratio:.4g}" if row.ratio is not None else "",
            "note": row.note,
        }
        for row in rows
    ]
    text = csv_text(COLUMNS, lines)
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            if next(csv.reader(file)) != COLUMNS:
                raise ValueError(f"{path} has other columns than {', '.join(COLUMNS)}")
        text = text.partition("\n")[2]
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
