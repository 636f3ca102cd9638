"""A grid of runs, trained and scored side by side, that can be stopped and called again.

The entry is `addgpt.sweep.run`: `run_sweep(grid, plan_sweep(grid), engine)`.

    grid        the toml file as a `Grid`: settings, combinations, seeds
    plan        the grid as runs, and what is left to do of each: train, resume, score, nothing
    run         hands what is left to an engine and keeps sweep.json
    local       an engine: a pool of processes on this machine
    ray_engine  an engine: tasks of a Ray cluster
    worker      what both let other processes do: train one run, score it, tell how far it is
    table       what of it is shown
    cores       which CPU cores there are, and each worker's share of them

An engine is given runs and yields (name of a run, what has changed). Nothing is imported here: a
worker must choose its cores before torch is loaded.
"""
