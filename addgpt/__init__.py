"""addgpt: a research harness in which a small GPT learns arithmetic.

    import addgpt

    addgpt.load_calculator().solve("12*(34-5)/2").answer            # '174'
    run = addgpt.train("add", digits=3, steps=400, out="results/first")
    addgpt.evaluate(run, per_cell=200)[["len_a", "len_b", "accuracy"]]

All of it is documented in `addgpt.api`. Importing the package alone does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from addgpt.api import evaluate, load_calculator, load_run, load_task, train
    from addgpt.task import Answer, Problem

__version__ = "0.1.0"
__all__ = [
    "Answer", "Problem", "evaluate", "load_calculator", "load_run", "load_task", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from addgpt import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
