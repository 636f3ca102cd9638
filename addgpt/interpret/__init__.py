"""What goes on inside a trained GPT: activations, interventions, pictures, probes.

    import addgpt
    from addgpt.interpret import activations, run_with, zero

    run = addgpt.load_run("calculator")
    found = activations(run, "128+367")
    found["weights.0"].shape                            # (4, 15, 15): heads, queries, keys
    run_with(run, "128+367", edits=[zero("found.0", head=2)]).predicted

Names of activations and their axes: `addgpt.model.hooks`. docs/inspect.md shows what one can do.
"""

from addgpt.interpret.activations import Activations, activations, run_with
from addgpt.interpret.edits import Edit, knock_out, mean, patch, zero

__all__ = [
    "Activations", "Edit", "activations", "knock_out", "mean", "patch", "run_with", "zero",
]  # fmt: skip
