"""A grid of runs, trained and scored side by side, that can be stopped and called again.

The file (grid) becomes runs and what is left to do of each (plan); `run` hands that to an engine,
this machine or a Ray cluster (engines), where each run is trained and scored by a process of its
own (worker), and shows how it goes (table). The run folder is the protocol: config.json says what
to do, metrics.jsonl how far it is, sweep.log that it goes on, or why it failed, eval.csv or
loss.json that it is done.
"""
