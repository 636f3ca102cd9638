"""Tiny trainings on texts."""

from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.training.loop import train

TINY = {
    "layers": "1", "width": "16", "heads": "2", "steps": "20", "batch_size": "8", "threads": "1",
    "eval_every": "10", "eval_size": "16", "save_every": "10", "warmup": "2",
}  # fmt: skip


def run_of(name, file, folder, **settings) -> Run:
    run = Run.create(folder, configure(name, TINY | {"corpus": str(file)} | settings))
    train(run)
    return run
