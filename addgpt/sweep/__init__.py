"""A grid of runs, trained and scored side by side, that can be stopped and called again.

The file (grid) becomes runs and what is left to do of each (plan); `run` hands that to an engine,
this machine or a Ray cluster (engines), whose workers train and score (worker), and shows how it
goes (table). The run folder is the protocol: config.json says what to do, metrics.jsonl how far it
is, sweep.log that a worker is at it, or why it failed, eval.csv or loss.json that it is done.
"""
