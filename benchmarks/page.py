"""Writes docs/benchmarks.md from benchmarks/history.csv.

python -m benchmarks.page

The table is the newest run of all benchmarks; what is around it stands here.
"""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks.run import HISTORY

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Speed, as ratios of runs interleaved in one process, so that a busy machine slows both sides alike.
`make bench` measures all (`python -m benchmarks.run`, ten minutes on two quiet cores) and
appends a line a benchmark to `benchmarks/history.csv`; this page is made from that file by
`python -m benchmarks.page`.

The newest run, medians. A ratio above 1 says how many times better addgpt is than the reference.

"""
TAIL = """
## What they measure

- **3-digit addition to 99 %**: seconds of training until 99 % of held-out sums of two 3-digit
  numbers are right; **start to exit** counts the whole process. The reference is minGPT's adder
  project, re-created (`benchmarks/mingpt.py`).
- **Shakespeare to 1.886**: seconds until that loss on all of val. The reference has nanoGPT's
  settings for a CPU and takes all its 2,000 steps (`benchmarks/nanogpt.py`). Notes say
  how many seeds were trained: fewer of a reference, which takes a minute or two each time.
- **product, reads**, **window**: tokens a second that one block of the calculator's width writes,
  or reads as a draft, with local attention, against full attention.
- **share of the matrix-product rate**: what a training step on text reaches of the rate of the
  products of its widest layer alone, of the same type: ours are bfloat16 where faster, so that a
  smaller share of twice the rate is left; the reference's are float32.
- **training on text**, **on sums**: tokens a second against a plain GPT with AdamW in float32.
  With Muon, our default, a step on sums takes longer, and fewer steps are needed.
- **3-digit additions**: problems drawn a second, against one by one as by a Dataset and collate,
  against a tight loop, and against the least that there is to do: the same random numbers drawn,
  and as many bytes copied.
- **judged**: problems scored a second, against batches of 100 without a cache.
- **alone**, **in a batch**: the shipped calculator, one expression at a time or many.

Since the run before, of the same day:

- *Start to exit* 3.72 s instead of 5.28, *to 99 %* 2.89 s instead of 4.01: with one block of local
  attention, training makes keys and values of the distinct tokens of a batch alone (54 of 1,536),
  and works on scored slots alone. Val is looked at every 25 steps, not 50.
- *Judged* 35.6 times instead of 30.7: products of all queries with few keys take less than
  gathering the keys of each query.
- 12-digit products *in a batch* 1,431 a second instead of 1,295: what is written is filtered only
  where something is hidden.

Aims not reached: 50 times the tight loop in drawing sums, 50 times with 12-digit products and
8-digit sums in a batch. A sum takes 0.30 microseconds to draw; 50 times the loop would leave 0.21.
Random numbers and bytes alone take 0.06, the rest is some hundred passes of numpy over short rows,
of which no single one stands out. (Since this run it has become 1.2 times quicker: on an Intel
Xeon, 36.5 times the loop in place of 31, and 45 times where the same problems as the loop's are
drawn, without carry chains and edge cases. See the log.) 8-digit sums take 0.11 ms each, most of
it Python that reads, checks and keeps what was asked and written. The whole run took 9.1 minutes,
with one seed of each reference.
"""


def page(history: Path = HISTORY) -> str:
    """The page, from a history of benchmarks."""
    with open(history, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    newest = max(row["date"] for row in rows)
    shown = [row for row in rows if row["date"] == newest]
    names = ("benchmark", "unit", "ours", "reference", "ratio", "note", "version")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in shown:
        cells = [row["benchmark"], row["unit"], _short(row["ours"]), _short(row["reference"])]
        version = f"{row['version']} `{row['commit']}`"
        lines.append(f"| {' | '.join([*cells, row['ratio'], row['note'], version])} |")
    about = f"\n{shown[0]['machine']}; measured {newest}.\n"
    return HEAD + "\n".join(lines) + "\n" + about + TAIL


def _short(number: str) -> str:
    """Three digits at least, and thousands told apart: 2,625,870, 18.1, 0.162."""
    if not number:
        return ""
    value = float(number)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
