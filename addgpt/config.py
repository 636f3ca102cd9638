"""The settings of a run: frozen dataclasses, strict to and from plain dicts."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

# The number goes up whenever a config written by this version could not be read by an older one.
FORMAT = 1


def setting(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """A documented field; its value, or each part of it, must be one of `choices` if given."""
    return field(default=default, metadata={"help": text, "choices": choices})


def check_choices(config: Any) -> None:
    """Raise ValueError, naming the valid ones, if a field holds what is not among its choices."""
    for item in dataclasses.fields(config):
        value, choices = getattr(config, item.name), item.metadata.get("choices")
        for part in value if isinstance(value, tuple) else (value,):
            if choices and part not in choices:
                raise ValueError(f"{item.name} must be one of {', '.join(choices)}, not {part!r}")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the GPT. `vocab`, `context` and `levels` come from the task."""

    vocab: int = setting(0, "number of tokens, from the task")
    context: int = setting(0, "longest sequence, from the task")
    levels: tuple[int, ...] = setting((), "number of position ids on each level, from the task")
    layers: int = setting(2, "transformer blocks")
    heads: int = setting(4, "attention heads; must divide width")
    width: int = setting(128, "channels of the residual stream")
    mlp_ratio: int = setting(4, "hidden width of the MLP over width")
    position: str = setting(
        "none", "how the index in the text enters", ("none", "learned", "sinusoidal", "rotary")
    )
    level_position: tuple[str, ...] = setting(
        (), "how each id level enters, comma-separated", ("learned", "rotary", "none")
    )
    next_ids: bool = setting(True, "tell the model the ids of the slot it is about to fill")
    norm: str = setting("rms", "plain: RMS without parameters", ("rms", "layer", "plain"))
    activation: str = setting("relu2", "of the MLP", ("relu2", "relu", "gelu", "silu"))
    qk_norm: bool = setting(True, "normalise queries and keys")
    tied: bool = setting(False, "output weights are the embedding's")
    dropout: float = setting(0.0, "share of channels dropped in training")

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("layers", "heads", "width", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")
        if self.level_position and len(self.level_position) != len(self.levels):
            raise ValueError(
                f"level_position names {len(self.level_position)} levels, "
                f"the task has {len(self.levels)}"
            )

    @property
    def longest(self) -> int | None:
        """The longest sequence the model can read; None where no table bounds it."""
        return self.context if self.position in ("learned", "sinusoidal") else None


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: int = setting(1000, "optimizer steps")
    batch_size: int = setting(128, "problems per step")
    micro_batch: int = setting(0, "rows per forward pass, sorted by length (0: the whole batch)")
    optimizer: str = setting("muon", "muon is for matrices; the rest has adamw", ("muon", "adamw"))
    lr: float = setting(3e-3, "AdamW's peak rate")
    muon_lr: float = setting(0.02, "Muon's peak rate, for the matrices")
    weight_decay: float = setting(0.0, "decoupled weight decay")
    clip: float = setting(1.0, "largest norm of the AdamW gradient")
    warmup: int = setting(20, "steps of linear warm-up")
    schedule: str = setting(
        "linear", "of the learning rate after warm-up", ("linear", "cosine", "constant")
    )
    final_lr: float = setting(0.01, "last rate over peak rate")
    eval_every: int = setting(100, "steps between looks at val")
    eval_size: int = setting(1000, "val problems in each look")
    save_every: int = setting(500, "steps between checkpoints")
    stop_at: float = setting(0.0, "stop once val exact match reaches this (0: never)")
    device: str = setting("auto", "where to train", ("auto", "cpu", "cuda", "mps"))
    precision: str = setting("auto", "of products", ("auto", "float32", "bfloat16"))
    threads: int = setting(0, "CPU threads (0: torch's choice)")

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("steps", "batch_size", "eval_every", "eval_size", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("micro_batch", "lr", "muon_lr", "weight_decay", "clip", "warmup", "threads"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("stop_at", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")


@dataclass(frozen=True)
class RunConfig:
    """Everything a run folder needs to rebuild its task, model and training."""

    task: str
    options: dict[str, Any]
    model: ModelConfig
    train: TrainConfig
    seed: int = 0
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def to_dict(config: Any) -> dict[str, Any]:
    """A plain, JSON-ready dict; `from_dict` takes it back."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """The dataclass `cls` from a plain dict. Unknown keys and wrong types raise ValueError."""
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} must be a table of settings, not {data!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(
            f"unknown key {unknown[0]!r} in {cls.__name__}; valid keys: {', '.join(sorted(hints))}"
        )
    values = {key: _convert(f"{cls.__name__}.{key}", hints[key], data[key]) for key in data}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None


def load_run_config(data: dict[str, Any]) -> RunConfig:
    """A RunConfig from the JSON of a run folder, refusing formats of other versions."""
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"written in format {found!r} by another version of addgpt; this one reads {FORMAT}"
        )
    return from_dict(RunConfig, data)


def with_settings(config: T, settings: dict[str, str]) -> T:
    """A copy of a dataclass with text values (`{"width": "64"}`) parsed by the field's type.

    Unknown keys and wrong values raise ValueError.
    """
    hints = typing.get_type_hints(type(config))
    for key in settings:
        if key not in hints:
            raise ValueError(f"unknown key {key!r}; valid: {', '.join(sorted(hints))}")
    values = {key: parse(key, hints[key], text) for key, text in settings.items()}
    return dataclasses.replace(config, **values)


def parse(key: str, hint: Any, text: str) -> Any:
    """The value that `text` (from `--set key=text`) means for a field of type `hint`."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(parse(key, inner, part) for part in text.split(",") if part)
    try:
        if hint is bool:
            return words[text.lower()]
        if hint in (int, float, str):
            return hint(text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[hint]
        raise ValueError(f"{key} must be {kind}, not {text!r}") from None
    raise ValueError(f"{key} cannot be set from text")


def _convert(name: str, hint: Any, value: Any) -> Any:
    """Check a JSON value against a type hint; lists become tuples, tables dataclasses."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(name, typing.get_args(hint)[0], item) for item in value)
    if origin in (typing.Union, types.UnionType):
        return value
    wanted = {float: (int, float)}.get(hint, origin or hint)
    wrong_bool = isinstance(value, bool) and hint is not bool and wanted is not Any
    if hint is Any or (isinstance(value, wanted) and not wrong_bool):
        return value
    raise ValueError(f"{name} must be of type {getattr(hint, '__name__', hint)}, not {value!r}")
