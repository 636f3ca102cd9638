"""All benchmarks, one table. With --quick a smoke run; in full about six minutes.

python -m benchmarks.run
"""

from __future__ import annotations

from benchmarks import evaluation, generation, time_to_99, timing


def main() -> None:
    parser = timing.parser(__doc__)
    for benchmark in (evaluation, time_to_99):
        benchmark.add_options(parser)
    options = parser.parse_args()
    timing.start(options)
    rows = []
    for benchmark in (generation, evaluation, time_to_99):
        timing.say(f"\n{benchmark.__name__}")
        rows += benchmark.measure(options)
    print(f"{timing.machine()}\n\n{timing.table(rows)}")


if __name__ == "__main__":
    main()
