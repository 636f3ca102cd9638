"""What the configs of all architectures share: the sizes that the task gives, and checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from addgpt.config import catalogue
from addgpt.config.errors import UsageError
from addgpt.config.settings import check_settings, setting

MAX_LEVELS = 64
LEVELS_HELP = "how each id level enters, comma-separated (empty: all learned)"
LAYERS: dict[str, Any] = {"low": 1, "high": 1024}
WIDTH: dict[str, Any] = {"low": 1, "high": 1 << 16}


def architecture_setting(*names: str) -> Any:
    """The field that says which architecture a config is of: the first name unless set."""
    return setting(
        names[0],
        "the model: gpt, gru, mlp, bigram or counts",
        {n: catalogue.ARCHITECTURE[n] for n in names},
    )


@dataclass(frozen=True)
class BaseConfig:
    """Facts about the task that all architectures need."""

    vocab: int = setting(0, "number of tokens, from the task", low=0, high=1 << 20)
    context: int = setting(0, "longest sequence, from the task", low=0, high=1 << 20)
    levels: tuple[int, ...] = setting(
        (), "number of position ids on each level, from the task", low=0, high=1 << 20
    )
    architecture: str = architecture_setting(*catalogue.ARCHITECTURE)

    def __post_init__(self) -> None:
        check_settings(self)
        if len(self.levels) > MAX_LEVELS:
            raise UsageError(f"levels must be at most {MAX_LEVELS}, not {len(self.levels)}")

    def check_sizes(self) -> None:
        """Raise ValueError for a config without what the task gives."""
        if self.vocab < 1 or self.context < 1:
            sizes = f"vocab={self.vocab} and context={self.context}"
            raise UsageError(f"{sizes} must be positive; the task sets them")

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
        """How many layers a token passes through."""
        return 0

    @property
    def width(self) -> int:
        """Channels of a token between layers; a table has none."""
        return 0

    @property
    def local(self) -> bool:
        """Whether each token sees only a few others, so that nothing is computed for all pairs."""
        return False

    @property
    def prefix(self) -> bool:
        """Whether the prompt sees all of itself."""
        return False


@dataclass(frozen=True)
class LevelledConfig(BaseConfig):
    """What all architectures with position ids have in common."""

    level_position: tuple[str, ...] = setting(
        (), LEVELS_HELP, {name: catalogue.LEVEL_POSITION[name] for name in ("learned", "none")}
    )
    next_ids: bool = setting(
        True,
        "target position ids: the model also gets those of the slot to fill",
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
