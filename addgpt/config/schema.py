"""The settings of a run: its task, model and training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addgpt.config import catalogue
from addgpt.config.architectures import ModelConfig, model_config
from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.config.settings import check_settings, from_dict, parse, setting

__all__ = [  # the last four: what addgpt/task.py takes from here
    "FORMAT", "RunConfig", "TrainConfig", "load_run_config", "trained",
    "check_settings", "from_dict", "parse", "setting",
]  # fmt: skip

FORMAT = 1  # goes up when a config written by this version could not be read by an older one
MOST_ROWS = 1 << 20
ADDED = ("z_loss", "aux", "supervise")  # settings that add to the training loss


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: int = setting(1000, "optimizer steps", low=1, high=10**12)
    batch_size: int = setting(128, "problems per step", low=1, high=MOST_ROWS)
    micro_batch: int = setting(
        0, "rows per forward pass, sorted by length (0: the whole batch)", low=0, high=MOST_ROWS
    )
    optimizer: str = setting(
        "muon", "muon: for matrices, AdamW for the rest", catalogue.OPTIMIZER, gradients=True
    )
    lr: float = setting(3e-3, "AdamW's peak rate", low=0)
    muon_lr: float = setting(0.02, "Muon's peak rate, for the matrices", low=0)
    beta2: float = setting(
        0.95, "AdamW's decay of squared gradients", low=0, below=1, gradients=True
    )
    weight_decay: float = setting(0.0, "decoupled weight decay", low=0, gradients=True)
    clip: float = setting(
        1.0, "clip the norm of the AdamW gradient at this (0: off)", features=catalogue.CLIP, low=0,
        gradients=True,
    )  # fmt: skip
    warmup: int = setting(20, "steps of linear warm-up", low=0, gradients=True)
    schedule: str = setting(
        "linear", "how the learning rate changes after warm-up", catalogue.SCHEDULE, gradients=True
    )
    final_lr: float = setting(
        0.01, "final learning rate over peak", low=0.0, high=1.0, gradients=True
    )
    eval_every: int = setting(100, "steps between validation passes", low=1)
    eval_size: int = setting(1000, "val problems in each pass", low=1, high=MOST_ROWS)
    save_every: int = setting(500, "steps between checkpoints", low=1)
    keep: str = setting(
        "last", "weights to keep; log: also at steps 1, 2, 3, ..., each a fifth later, in kept/",
        ("last", "log"),
    )  # fmt: skip
    stop_at: float = setting(
        0.0, "stop once val exact match reaches this (0: never)", low=0.0, high=1.0
    )
    until_certified: bool = setting(
        False,
        "after these steps, train on until the model is proved right",
        features=catalogue.UNTIL_CERTIFIED,
    )
    device: str = setting("auto", "where to train", ("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto", "compute dtype; auto: the fastest here", ("auto", "float32", "bfloat16")
    )
    threads: int = setting(
        0, "CPU threads (0: the free cores that speed this model up)", low=0, high=1024
    )
    ema: float = setting(
        0.0, "decay of the averaged weights (0: no averaging)", features=catalogue.EMA, low=0,
        below=1, gradients=True,
    )  # fmt: skip
    label_smoothing: float = setting(
        0.0, "share of the target spread over all tokens", features=catalogue.LABEL_SMOOTHING,
        low=0, below=1, gradients=True,
    )  # fmt: skip
    z_loss: float = setting(
        0.0, "weight of the squared log of the softmax's sum", features=catalogue.Z_LOSS, low=0,
        gradients=True,
    )  # fmt: skip
    aux: float = setting(
        0.0, "weight of the task's auxiliary loss, if it has one (mul)", features=catalogue.AUX,
        low=0, gradients=True,
    )  # fmt: skip
    supervise: str = setting(
        "", "results that probes must predict after blocks: products@1,columns@2,carries@3 (mul)",
        features=catalogue.SUPERVISE, gradients=True,
    )  # fmt: skip
    supervise_weight: float = setting(
        1.0, "weight of the loss of these probes", low=0, gradients=True
    )
    curriculum: str = setting(
        "", "task options that change at a step: 0:carry=0.9;500:carry=0.3 (empty: none)",
        features=catalogue.CURRICULUM,
    )  # fmt: skip
    score_prompt: bool = setting(
        False, "include the tokens of the prompt in the training loss",
        features=catalogue.SCORE_PROMPT,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class RunConfig:
    """Everything a run folder needs to rebuild its task, model and training."""

    task: str
    options: dict[str, Any]
    model: ModelConfig
    train: TrainConfig = TrainConfig()  # an external model was trained elsewhere
    seed: int = 0
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def trained_options(self) -> dict[str, Any]:
        """The task's options in training; none for a model that was trained elsewhere."""
        return {} if isinstance(self.model, ExternalConfig) else self.options

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in 0..2^63-1, not {self.seed}")
        if self.task.endswith(".py") and not Path(self.task).is_absolute():  # of whatever folder
            raise UsageError(
                f"task must be a name or the absolute path of a file, not {self.task!r}"
            )
        if self.model.architecture == "counts":
            for item in dataclasses.fields(self.train):
                mine = getattr(self.train, item.name)
                if item.metadata["gradients"] and mine != item.default:
                    raise UsageError(
                        f"architecture=counts has no {item.name}: it counts its training data"
                    )


def trained(architecture: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """The training settings of a recipe that an architecture uses: counting has no gradients."""
    unused = [f.name for f in dataclasses.fields(TrainConfig) if f.metadata["gradients"]]
    return {k: v for k, v in recipe.items() if architecture != "counts" or k not in unused}


def load_run_config(data: dict[str, Any]) -> RunConfig:
    """A RunConfig from the JSON of a run folder. Raises ValueError for another format, too."""
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise UsageError(
            f"written in format {found!r} by another version of addgpt; this one reads {FORMAT}"
        )
    return from_dict(RunConfig, data | {"model": model_config(data.get("model", {}))})
