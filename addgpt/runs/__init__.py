"""Run folders: what is in them, how they are written, and how settings become one."""

RESULTS = "results"  # where runs are kept by default
