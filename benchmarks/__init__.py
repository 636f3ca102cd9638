"""What the project is measured against, as runnable programs.

    python -m benchmarks.run            all of them, one table
    python -m benchmarks.NAME --help    one of them: time_to_99, generation, evaluation, ...

Each measures its contenders in turns in one process, so that a busy machine slows all alike, and
prints medians and their ratio. Nothing is written but what is asked for.
"""
