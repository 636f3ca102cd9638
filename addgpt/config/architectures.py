"""The sizes and parts of a model: a config for each architecture. The models: addgpt/model.

`ModelConfig` is any of them; its `architecture` says which. `vocab`, `context` and `levels` come
from the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from addgpt.config import catalogue, settings
from addgpt.config.errors import UsageError
from addgpt.config.settings import check_settings, from_dict, names_of, setting, unknown

FROM_TASK = ("vocab", "context", "levels")  # what a person does not set
MOST_LEVELS = 64
LEVELS_HELP = "how each id level enters, comma-separated (empty: all learned)"
LAYERS: dict[str, Any] = {"low": 1, "high": 1024}
WIDTH: dict[str, Any] = {"low": 1, "high": 1 << 16}
MOST_RELATIVE = 4  # levels: their biases are looked up in one table, of 10 entries to that power


def _architecture(*names: str) -> Any:
    """The field that says which architecture a config is of: the first name unless set."""
    return setting(
        names[0],
        "the model: gpt, gru, mlp, bigram or counts",
        {n: catalogue.ARCHITECTURE[n] for n in names},
    )


@dataclass(frozen=True)
class _Config:
    """What all architectures are told by the task."""

    vocab: int = setting(0, "number of tokens, from the task", low=0, high=1 << 20)
    context: int = setting(0, "longest sequence, from the task", low=0, high=1 << 20)
    levels: tuple[int, ...] = setting(
        (), "number of position ids on each level, from the task", low=0, high=1 << 20
    )
    architecture: str = _architecture(*catalogue.ARCHITECTURE)

    def __post_init__(self) -> None:
        check_settings(self)
        if len(self.levels) > MOST_LEVELS:
            raise UsageError(f"levels must be at most {MOST_LEVELS}, not {len(self.levels)}")

    def check_sizes(self) -> None:
        """Raise ValueError for a config without what the task gives."""
        if self.vocab < 1 or self.context < 1:
            sizes = f"vocab={self.vocab} and context={self.context}"
            raise UsageError(f"{sizes} must be positive; the task knows them")

    @property
    def scheme(self) -> tuple[str, ...]:
        """How each id level enters."""
        return ("none",) * len(self.levels)

    @property
    def longest(self) -> int | None:
        """The longest sequence the model can read; None where no table bounds it."""
        return None

    @property
    def depth(self) -> int:
        """How many layers a token passes."""
        return 0


@dataclass(frozen=True)
class _Levelled(_Config):
    """What all architectures that are told position ids have in common."""

    level_position: tuple[str, ...] = setting(
        (), LEVELS_HELP, {name: catalogue.LEVEL_POSITION[name] for name in ("learned", "none")}
    )
    next_ids: bool = setting(
        True,
        "target position ids: tell the model those of the slot to fill",
        features=catalogue.NEXT_IDS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level_position and len(self.level_position) != len(self.levels):
            raise UsageError(
                f"level_position names {len(self.level_position)} levels, "
                f"the task has {len(self.levels)}"
            )

    @property
    def scheme(self) -> tuple[str, ...]:
        return self.level_position or ("learned",) * len(self.levels)


@dataclass(frozen=True)
class GPTConfig(_Levelled):
    """A transformer. Each setting, and the paper it comes from: addgpt/config/catalogue.py."""

    architecture: str = _architecture("gpt")
    layers: int = setting(2, "transformer blocks", **LAYERS)
    heads: int = setting(4, "attention heads; must divide width", low=1, high=1024)
    width: int = setting(128, "channels of embeddings and of the residual stream", **WIDTH)
    mlp_ratio: float = setting(
        4, "hidden width of the MLP over width (0: no MLP)", low=0.0, high=64.0
    )
    position: str = setting("none", "how the index in the text enters", catalogue.POSITION)
    level_position: tuple[str, ...] = setting((), LEVELS_HELP, catalogue.LEVEL_POSITION)
    content: bool = setting(
        True,
        "queries and keys compare tokens; false: position-only attention",
        features=catalogue.CONTENT,
    )
    norm: str = setting("rms", "normalisation; plain: RMS without parameters", catalogue.NORM)
    activation: str = setting("relu2", "nonlinearity of the MLP", catalogue.ACTIVATION)
    qk_norm: bool = setting(True, "normalise queries and keys", features=catalogue.QK_NORM)
    tied: bool = setting(False, "output weights are the embedding's", features=catalogue.TIED)
    dropout: float = setting(
        0.0, "share of channels dropped in training", features=catalogue.DROPOUT, low=0, below=1
    )
    random_index: int = setting(
        0,
        "draw the index in the text below this, increasing, in training (0: it counts)",
        features=catalogue.RANDOM_INDEX, low=0, high=1 << 20,
    )  # fmt: skip
    norm_place: str = setting("before", "where the norms of a block stand", catalogue.NORM_PLACE)
    kv_heads: int = setting(
        0,
        "heads of keys and values; must divide heads (0: as many)",
        features=catalogue.KV_HEADS, low=0, high=1024,
    )  # fmt: skip
    log_scale: bool = setting(
        False, "scale attention with the log of the length", features=catalogue.LOG_SCALE
    )
    prefix: bool = setting(False, "let the prompt see all of itself", features=catalogue.PREFIX)
    loops: int = setting(
        1, "times that the stack of blocks is run through", features=catalogue.LOOPS, **LAYERS
    )
    inject: bool = setting(
        False, "add the embedding again before each further loop", features=catalogue.INJECT
    )
    share: str = setting(
        "none", "which of queries, keys and values share one matrix", catalogue.SHARE
    )
    rank: int = setting(
        0, "rank of the blocks' matrices (0: full)", features=catalogue.RANK, low=0, high=1 << 16
    )
    embed_rank: int = setting(
        0,
        "rank of the embedding and the output weights (0: full)",
        features=catalogue.EMBED_RANK, low=0, high=1 << 16,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise UsageError(f"heads={self.heads} does not divide width={self.width}")
        if self.heads % (self.kv_heads or 1):
            raise UsageError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}")
        if "q" in self.share and self.key_heads < self.heads:
            raise UsageError(f"share={self.share} needs as many kv_heads as heads")
        for name in ("rank", "embed_rank"):
            if getattr(self, name) > self.width:
                raise UsageError(f"{name}={getattr(self, name)} is more than width={self.width}")
        if "rotary2" in self.level_position and not self.next_ids:
            raise UsageError("rotary2 looks from the slot to fill, too: it needs next_ids=true")
        if self.level_position.count("relative") > MOST_RELATIVE:
            raise UsageError(f"level_position may hold relative at most {MOST_RELATIVE} times")
        if not self.content:
            self._check_without_content()
        if self.inject and self.loops == 1:
            raise UsageError("inject=true needs loops of at least 2")
        if self.random_index and self.position == "none":
            raise UsageError("random_index needs a position that reads the index, not none")
        if 0 < self.random_index <= self.context:
            raise UsageError(
                f"random_index={self.random_index} must be above the longest sequence, "
                f"{self.context}"
            )

    def _check_without_content(self) -> None:
        """Raise ValueError for what needs queries and keys, and where nothing else says."""
        ways = {self.position, *self.scheme}
        for way in sorted(ways & {"rotary", "rotary2"}):
            raise UsageError(f"{way} turns queries and keys: content=false has none")
        if self.share != "none":
            raise UsageError("share is about queries and keys: content=false has none")
        if not ways & {"alibi", "fire", "relative"}:
            raise UsageError(
                "content=false needs positions that say what is looked at: position=alibi or fire, "
                "or level_position with relative"
            )

    @property
    def longest(self) -> int | None:
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
        """How many blocks a token passes, each as often as it is looped."""
        return self.layers * self.loops

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP; two thirds where it is gated, so that parameters are equal."""
        share = 2 / 3 if self.gated else 1
        return max(1, round(self.mlp_ratio * self.width * share)) if self.mlp_ratio else 0

    @property
    def gated(self) -> bool:
        return self.activation in ("swiglu", "geglu")

    @property
    def plain(self) -> bool:
        """Whether addgpt/model/gpt.py has all that this asks for; else see variants.py there."""
        usual = self.norm_place == "before" and self.share == "none" and self.loops == 1
        full = self.key_heads == self.heads and not self.rank and not self.embed_rank
        return usual and full and self.content


@dataclass(frozen=True)
class GRUConfig(_Levelled):
    """A gated recurrent network."""

    architecture: str = _architecture("gru")
    layers: int = setting(1, "recurrent layers", **LAYERS)
    width: int = setting(128, "channels of embeddings and of the state", **WIDTH)

    @property
    def depth(self) -> int:
        return self.layers


@dataclass(frozen=True)
class MLPConfig(_Levelled):
    """The last `window` tokens through layers."""

    architecture: str = _architecture("mlp")
    layers: int = setting(1, "hidden layers", **LAYERS)
    width: int = setting(32, "channels of embeddings", **WIDTH)
    mlp_ratio: float = setting(8, "width of hidden layers over width", low=1 / 64, high=64.0)
    window: int = setting(16, "tokens that the model sees", low=1, high=256)

    @property
    def depth(self) -> int:
        return self.layers

    @property
    def hidden(self) -> int:
        """Width of the hidden layers."""
        return max(1, round(self.mlp_ratio * self.width))


@dataclass(frozen=True)
class TableConfig(_Config):
    """A table of bigrams, by gradient (`bigram`) or by counting (`counts`): all sizes are given."""

    architecture: str = _architecture("bigram", "counts")


ModelConfig = GPTConfig | GRUConfig | MLPConfig | TableConfig
CONFIGS: dict[str, type[ModelConfig]] = {
    "gpt": GPTConfig, "gru": GRUConfig, "mlp": MLPConfig, "bigram": TableConfig,
    "counts": TableConfig,
}  # fmt: skip


def model_settings() -> list[str]:
    """The names of all settings of all architectures that a person may set."""
    found = {name: None for cls in CONFIGS.values() for name in names_of(cls)}
    return [name for name in found if name not in FROM_TASK]


def model_config(data: Mapping[str, Any]) -> ModelConfig:
    """The config that a plain dict holds. Raises ValueError."""
    if not isinstance(data, dict):
        raise UsageError(f"the model must be a table of settings, not {data!r}")
    return from_dict(_class_of(data.get("architecture", "gpt")), data)


def with_model_settings(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    """A copy of a config with other values, text or not.

    Another `architecture` starts from the usual shape of that one, for the same task. Raises
    ValueError, naming the valid settings, for one that the architecture does not have.
    """
    name = changes.get("architecture", config.architecture)
    cls = _class_of(name)
    if name != config.architecture:
        sizes = {size: getattr(config, size) for size in FROM_TASK}
        config = cls(**sizes, architecture=name)  # type: ignore[call-arg]
    valid = [setting for setting in names_of(cls) if setting not in FROM_TASK]
    for key in changes:
        if key not in (*valid, *FROM_TASK):
            raise unknown("setting", key, valid, f" of architecture={name}")
    return settings.with_settings(config, changes)


def _class_of(name: Any) -> type[ModelConfig]:
    if not isinstance(name, str) or name not in CONFIGS:
        raise UsageError(f"architecture must be one of {', '.join(CONFIGS)}, not {name!r}")
    return CONFIGS[name]
