"""A grid of runs, trained and scored side by side, that can be stopped and called again.

The entry is `addgpt.sweep.run`: `run_sweep(grid, plan_sweep(grid), engine)`.

    grid     the toml file as a `Grid`: settings, combinations, seeds
    plan     the grid as runs, and what is left to do of each: train, resume, score, nothing
    run      hands what is left to an engine, reads the run folders and keeps sweep.json
    engines  where runs are carried out: on this machine, or as tasks of a Ray cluster
    process  how, in both: a Python of its own for each run
    table    what is shown

The run folder is the protocol: config.json says what to do, metrics.jsonl how far it is, eval.csv
(or loss.json) that it is done.
"""
