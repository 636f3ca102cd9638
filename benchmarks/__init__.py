"""What the project is measured against, as runnable programs.

    python -m benchmarks.run            all of them, one table
    python -m benchmarks.NAME --help    one of them: time_to_99, generation, evaluation, ...

Each measures its contenders in turns in one process, so that a busy machine slows all alike, and
prints medians and their ratio. A full `benchmarks.run` is appended to history.csv.

    python -m benchmarks.kill           kill -9 a training at random moments and resume it
    python -m benchmarks.memory         whether memory stays flat in a long run
"""
