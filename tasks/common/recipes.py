"""Settings of model and training that work for traces."""

from addgpt.task import Recipe


def local_recipe(steps: int) -> Recipe:
    """What works for local traces. Without label smoothing, training that goes on once all is
    right already wanders (docs/log.md)."""
    recipe = traced_recipe(steps, True)
    local = {"layers": 1, "width": 96, "attention": "reads"}
    return Recipe(recipe.model | local, recipe.train | {"micro_batch": 16, "label_smoothing": 0.1})


def traced_recipe(steps: int, long: bool) -> Recipe:
    """What works for tasks whose traces have several steps; `long` traces share smaller passes."""
    return Recipe(
        model={
            "layers": 2,
            "width": 128,
            "norm": "plain",
            "level_position": ("relative", "relative", "learned"),
        },
        train={
            "precision": "float32",  # bfloat16 has not been tried on traces
            "steps": steps,
            "batch_size": 48,
            "micro_batch": 8 if long else 0,
            "muon_lr": 0.02,
            "lr": 3e-3,
            "eval_every": 250,
            "eval_size": 500,
        },
    )
