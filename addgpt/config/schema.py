"""The settings of a run: frozen dataclasses, strict to and from plain dicts."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from addgpt.config import architectures as kinds
from addgpt.config import catalogue
from addgpt.config.catalogue import Feature, Features

T = TypeVar("T")

# The number goes up whenever a config written by this version could not be read by an older one.
# Configs of older formats are read: what they do not name has its default.
FORMAT = 5


def setting(
    default: Any, text: str, choices: Iterable[str] = (), features: Features | None = None
) -> Any:
    """A documented field; its value, or each part of it, must be one of `choices` if given.

    Choices may be a table of features; `features` is one for a field that takes other values too.
    """
    found = choices if isinstance(choices, Mapping) else features or {}
    metadata = {"help": text, "choices": tuple(choices), "features": found}
    return field(default=default, metadata=metadata)


def features_of(cls: type) -> Iterator[tuple[str, str, Feature]]:
    """The features of a dataclass of settings: field, value, what the value stands for."""
    for item in dataclasses.fields(cls):
        for value, feature in item.metadata.get("features", {}).items():
            if feature is not None:
                yield item.name, value, feature


def check_choices(config: Any) -> None:
    """Raise ValueError, naming the valid ones, if a field holds what is not among its choices."""
    for item in dataclasses.fields(config):
        value, choices = getattr(config, item.name), item.metadata.get("choices")
        for part in value if isinstance(value, tuple) else (value,):
            if choices and part not in choices:
                raise ValueError(f"{item.name} must be one of {', '.join(choices)}, not {part!r}")


# Largest values that a config from anywhere may name, so that none can make us allocate or loop
# without end; far beyond what anybody trains here.
MOST = {
    "vocab": 1 << 20, "context": 1 << 20, "random_index": 1 << 20, "layers": 1024, "loops": 1024,
    "heads": 1024, "kv_heads": 1024, "width": 1 << 16, "rank": 1 << 16, "embed_rank": 1 << 16,
    "mlp_ratio": 64, "window": 256, "steps": 10**12, "batch_size": 1 << 20, "micro_batch": 1 << 20,
    "eval_size": 1 << 20, "threads": 1024,
}  # fmt: skip
MOST_LEVELS = 64
MOST_RELATIVE = 4  # levels: their biases are looked up in one table, of ENTRIES to that power


def check_most(config: Any) -> None:
    """Raise ValueError if a number is beyond what makes sense (`MOST`)."""
    for item in dataclasses.fields(config):
        most, value = MOST.get(item.name), getattr(config, item.name)
        if most is not None and not value <= most:
            raise ValueError(f"{item.name} must be at most {most:,}, not {value}")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model. `vocab`, `context` and `levels` come from the task."""

    vocab: int = setting(0, "number of tokens, from the task")
    context: int = setting(0, "longest sequence, from the task")
    levels: tuple[int, ...] = setting((), "number of position ids on each level, from the task")
    kind: str = setting("gpt", "of model", catalogue.KIND)
    layers: int = setting(2, "transformer blocks; layers of a GRU or MLP")
    heads: int = setting(4, "attention heads; must divide width")
    width: int = setting(128, "channels of embeddings and of the residual stream or state")
    mlp_ratio: float = setting(4, "hidden width of the MLP over width (0: no MLP)")
    window: int = setting(16, "tokens that kind=mlp sees")
    position: str = setting("none", "how the index in the text enters", catalogue.POSITION)
    level_position: tuple[str, ...] = setting(
        (), "how each id level enters, comma-separated", catalogue.LEVEL_POSITION
    )
    content: bool = setting(
        True, "queries and keys compare tokens; false: positions decide", features=catalogue.CONTENT
    )
    next_ids: bool = setting(
        True, "tell the model the ids of the slot it is about to fill", features=catalogue.NEXT_IDS
    )
    norm: str = setting("rms", "plain: RMS without parameters", catalogue.NORM)
    activation: str = setting("relu2", "of the MLP", catalogue.ACTIVATION)
    qk_norm: bool = setting(True, "normalise queries and keys", features=catalogue.QK_NORM)
    tied: bool = setting(False, "output weights are the embedding's", features=catalogue.TIED)
    dropout: float = setting(
        0.0, "share of channels dropped in training", features=catalogue.DROPOUT
    )
    random_index: int = setting(
        0,
        "draw the index in the text below this, increasing, in training (0: it counts)",
        features=catalogue.RANDOM_INDEX,
    )
    norm_place: str = setting("before", "of the norm in a block", catalogue.NORM_PLACE)
    kv_heads: int = setting(
        0, "heads of keys and values; must divide heads (0: as many)", features=catalogue.KV_HEADS
    )
    log_scale: bool = setting(
        False, "scale attention with the log of the length", features=catalogue.LOG_SCALE
    )
    prefix: bool = setting(False, "let the prompt see all of itself", features=catalogue.PREFIX)
    loops: int = setting(
        1, "times that the stack of blocks is run through", features=catalogue.LOOPS
    )
    inject: bool = setting(
        False, "add the embedding again before each further loop", features=catalogue.INJECT
    )
    share: str = setting("none", "matrices of attention that are one", catalogue.SHARE)
    rank: int = setting(0, "rank of the blocks' matrices (0: full)", features=catalogue.RANK)
    embed_rank: int = setting(
        0, "rank of the embedding and the output weights (0: full)", features=catalogue.EMBED_RANK
    )

    def __post_init__(self) -> None:
        check_choices(self)
        check_most(self)
        sizes = (self.vocab, self.context, *self.levels)
        if len(self.levels) > MOST_LEVELS or not all(0 <= n <= MOST["context"] for n in sizes):
            raise ValueError(f"vocab, context and levels must be in 0..{MOST['context']:,}")
        kinds.check(self)
        for name in ("layers", "heads", "width", "loops", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("mlp_ratio", "random_index", "kv_heads", "rank", "embed_rank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.kind == "gpt" and self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        if self.heads % (self.kv_heads or 1):
            raise ValueError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}")
        if "q" in self.share and self.key_heads < self.heads:
            raise ValueError(f"share={self.share} needs as many kv_heads as heads")
        for name in ("rank", "embed_rank"):
            if getattr(self, name) > self.width:
                raise ValueError(f"{name}={getattr(self, name)} is more than width={self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")
        if "rotary2" in self.level_position and not self.next_ids:
            raise ValueError("rotary2 looks from the slot to fill, too: it needs next_ids=true")
        if self.level_position.count("relative") > MOST_RELATIVE:
            raise ValueError(f"level_position may hold relative at most {MOST_RELATIVE} times")
        if not self.content:
            self._check_without_content()
        if self.inject and self.loops == 1:
            raise ValueError("inject=true needs loops of at least 2")
        if self.random_index and self.position == "none":
            raise ValueError("random_index needs a position that reads the index, not none")
        if 0 < self.random_index <= self.context:
            raise ValueError(
                f"random_index={self.random_index} must be above the longest sequence, "
                f"{self.context}"
            )
        if self.level_position and len(self.level_position) != len(self.levels):
            raise ValueError(
                f"level_position names {len(self.level_position)} levels, "
                f"the task has {len(self.levels)}"
            )

    def _check_without_content(self) -> None:
        """Raise ValueError for what needs queries and keys, and where nothing else says."""
        ways = {self.position, *self.scheme}
        for way in sorted(ways & {"rotary", "rotary2"}):
            raise ValueError(f"{way} turns queries and keys: content=false has none")
        if self.share != "none":
            raise ValueError("share is about queries and keys: content=false has none")
        if not ways & {"alibi", "fire", "relative"}:
            raise ValueError(
                "content=false needs positions that say what is looked at: position=alibi or fire, "
                "or level_position with relative"
            )

    def of_kind(self, kind: str) -> ModelConfig:
        """This config; for another kind, the usual shape of that one on the same task."""
        if kind == self.kind:
            return self
        shape = kinds.SHAPES.get(kind, {})
        return ModelConfig(self.vocab, self.context, self.levels, kind, **shape)

    @property
    def scheme(self) -> tuple[str, ...]:
        """How each id level enters."""
        return self.level_position or ("learned",) * len(self.levels)

    @property
    def longest(self) -> int | None:
        """The longest sequence the model can read; None where no table bounds it."""
        return self.places if self.position in ("learned", "sinusoidal") else None

    @property
    def places(self) -> int:
        """How many places the index in the text is told apart, where a table holds them."""
        return self.random_index or self.context

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def depth(self) -> int:
        """How many blocks a token passes, each as often as it is looped; none in a table."""
        return 0 if self.kind in kinds.TABLES else self.layers * self.loops

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP; two thirds where it is gated, so that parameters are equal."""
        share = 2 / 3 if self.gated else 1
        return max(1, round(self.mlp_ratio * self.width * share)) if self.mlp_ratio else 0

    @property
    def gated(self) -> bool:
        return self.activation in ("swiglu", "geglu")


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: int = setting(1000, "optimizer steps")
    batch_size: int = setting(128, "problems per step")
    micro_batch: int = setting(0, "rows per forward pass, sorted by length (0: the whole batch)")
    optimizer: str = setting(
        "muon", "muon is for matrices; the rest has adamw", catalogue.OPTIMIZER
    )
    lr: float = setting(3e-3, "AdamW's peak rate")
    muon_lr: float = setting(0.02, "Muon's peak rate, for the matrices")
    weight_decay: float = setting(0.0, "decoupled weight decay")
    clip: float = setting(1.0, "largest norm of the AdamW gradient", features=catalogue.CLIP)
    warmup: int = setting(20, "steps of linear warm-up")
    schedule: str = setting("linear", "of the learning rate after warm-up", catalogue.SCHEDULE)
    final_lr: float = setting(0.01, "last rate over peak rate")
    eval_every: int = setting(100, "steps between looks at val")
    eval_size: int = setting(1000, "val problems in each look")
    save_every: int = setting(500, "steps between checkpoints")
    stop_at: float = setting(0.0, "stop once val exact match reaches this (0: never)")
    device: str = setting("auto", "where to train", ("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto", "of matrix products; auto: what is fastest here", ("auto", "float32", "bfloat16")
    )
    threads: int = setting(0, "CPU threads (0: as many as pay for the model and are free)")
    ema: float = setting(
        0.0, "decay of the averaged weights (0: no averaging)", features=catalogue.EMA
    )
    label_smoothing: float = setting(
        0.0, "share of the target spread over all tokens", features=catalogue.LABEL_SMOOTHING
    )
    z_loss: float = setting(
        0.0, "weight of the squared log of the softmax's sum", features=catalogue.Z_LOSS
    )

    def __post_init__(self) -> None:
        check_choices(self)
        check_most(self)
        for name in ("steps", "batch_size", "eval_every", "eval_size", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("micro_batch", "lr", "muon_lr", "weight_decay", "clip", "warmup", "threads"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("stop_at", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        for name in ("ema", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if not 0 <= self.z_loss < math.inf:
            raise ValueError(f"z_loss must not be negative, not {self.z_loss}")


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

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in 0..2^63-1, not {self.seed}")
        if self.model.kind == "counts":
            kinds.check_counting(self.train)


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
    """A RunConfig from the JSON of a run folder, refusing formats that this version cannot read."""
    found = data.get("format") if isinstance(data, dict) else None
    if found not in range(1, FORMAT + 1):
        raise ValueError(
            f"written in format {found!r} by another version of addgpt; this one reads {FORMAT}"
        )
    return from_dict(RunConfig, data | {"format": FORMAT})


def with_settings(config: T, settings: dict[str, str]) -> T:
    """A copy of a dataclass with text values (`{"width": "64"}`) parsed by the field's type.

    Another `kind` of model starts from the usual shape of that kind.
    Unknown keys and wrong values raise ValueError.
    """
    hints = typing.get_type_hints(type(config))
    for key in settings:
        if key not in hints:
            raise ValueError(f"unknown key {key!r}; valid: {', '.join(sorted(hints))}")
    values = {key: parse(key, hints[key], text) for key, text in settings.items()}
    if isinstance(config, ModelConfig):
        config = config.of_kind(values.get("kind", config.kind))
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
