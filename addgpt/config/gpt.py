"""The sizes and parts of a GPT."""

from __future__ import annotations

from dataclasses import dataclass

from addgpt.config import catalogue
from addgpt.config.base import LAYERS, LEVELS_HELP, WIDTH, LevelledConfig, architecture_setting
from addgpt.config.errors import UsageError
from addgpt.config.settings import setting

NO_PLACE = 1 << 15  # stands in `visible` for a key of id 0, which is at no distance
MAX_RELATIVE = 4  # levels: their biases are looked up in one table, of 10 entries to that power


@dataclass(frozen=True)
class GPTConfig(LevelledConfig):
    """A transformer. Each setting, and the paper it comes from: addgpt/config/catalogue.py."""

    architecture: str = architecture_setting("gpt")
    layers: int = setting(2, "transformer blocks", **LAYERS)
    heads: int = setting(4, "attention heads; must divide width", low=1, high=1024)
    width: int = setting(128, "channels of embeddings and of the residual stream", **WIDTH)
    mlp_ratio: float = setting(
        4, "hidden width of the MLP over width (0: no MLP)", low=0.0, high=64.0
    )
    position: str = setting("none", "how the index in the text enters", catalogue.POSITION)
    level_position: tuple[str, ...] = setting((), LEVELS_HELP, catalogue.LEVEL_POSITION)
    attention: str = setting("full", "which tokens a slot sees", catalogue.ATTENTION)
    visible: tuple[tuple[int, ...], ...] = setting((), "what local attention sees, from the task")
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
        "training draws increasing indices below this (0: consecutive indices)",
        features=catalogue.RANDOM_INDEX, low=0, high=1 << 20,
    )  # fmt: skip
    norm_place: str = setting(
        "before",
        "norms before each sublayer (pre-norm), after it (post-norm), or both",
        catalogue.NORM_PLACE,
    )
    kv_heads: int = setting(
        0,
        "heads of keys and values; must divide heads (0: as many)",
        features=catalogue.KV_HEADS, low=0, high=1024,
    )  # fmt: skip
    log_scale: bool = setting(
        False, "scale attention with the log of the length", features=catalogue.LOG_SCALE
    )
    prefix: bool = setting(
        False, "prefix LM: the prompt sees all of itself", features=catalogue.PREFIX
    )
    loops: int = setting(
        1, "times the stack of blocks is applied", features=catalogue.LOOPS, **LAYERS
    )
    inject: bool = setting(
        False, "add the embedding again before each further loop", features=catalogue.INJECT
    )
    token_shift: bool = setting(
        False, "the MLP also reads what the token before had", features=catalogue.TOKEN_SHIFT
    )
    share: str = setting(
        "none", "which of queries, keys, values and output share one matrix", catalogue.SHARE
    )
    rank: int = setting(
        0, "rank of the blocks' matrices (0: full)", features=catalogue.RANK, low=0, high=1 << 16
    )
    embed_rank: int = setting(
        0,
        "rank of the embedding and the output weights (0: full)",
        features=catalogue.EMBED_RANK, low=0, high=1 << 16,
    )  # fmt: skip

    alphabet: str = setting("all", "which characters have a row", catalogue.ALPHABET)
    used: tuple[int, ...] = setting((), "tokens that occur, from the task", low=0, high=1 << 20)
    arc: int = setting(
        0,
        "tokens, from the first, whose embeddings lie on an arc (0: none)",
        features=catalogue.ARC, low=0, high=1 << 16,
    )  # fmt: skip
    biases: str = setting("all", "which differences of relative ids have a bias", catalogue.BIASES)

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
            raise UsageError("rotary2 also uses target position ids: it needs next_ids=true")
        if self.level_position.count("relative") > MAX_RELATIVE:
            raise UsageError(f"level_position may hold relative at most {MAX_RELATIVE} times")
        if not self.content:
            self._check_without_content()
        elif self.share == "vo":
            raise UsageError("share=vo needs content=false")
        if self.local:
            self._check_local()
        self._check_rows()
        if self.token_shift and (self.norm_place != "before" or not self.hidden):
            raise UsageError("token_shift=true needs norm_place=before and an MLP")
        if self.inject and self.loops == 1:
            raise UsageError("inject=true needs loops of at least 2")
        if self.random_index and self.position == "none":
            raise UsageError("random_index needs a position that reads the index, not none")
        if 0 < self.random_index <= self.context:
            raise UsageError(
                f"random_index={self.random_index} must be above the longest sequence, "
                f"{self.context}"
            )

    def _check_rows(self) -> None:
        """Raise UsageError for embeddings and biases that cannot be."""
        if self.arc and self.width < 2:
            raise UsageError(f"arc={self.arc} needs a width of at least 2, not {self.width}")
        if (self.arc or self.alphabet == "used") and self.embed_rank:
            raise UsageError("arc and alphabet=used need embed_rank=0")
        relative = self.local and "relative" in self.level_position
        if self.biases != "all" and not relative:
            raise UsageError(
                f"biases={self.biases} needs attention=window or reads, and relative in "
                "level_position"
            )

    def _check_local(self) -> None:
        """Raise UsageError for what needs to see all tokens."""
        if self.position in ("alibi", "hard_alibi", "relative", "fire"):
            raise UsageError(
                f"position={self.position} needs attention=full; attention={self.attention} goes "
                "with position=none, learned, sinusoidal or rotary"
            )
        for name in ("prefix", "log_scale", "token_shift"):
            if getattr(self, name):
                raise UsageError(f"{name}=true needs attention=full, not {self.attention}")

    def check_sizes(self) -> None:
        super().check_sizes()
        if self.arc > self.vocab:
            raise UsageError(f"arc={self.arc} is more than the {self.vocab} tokens there are")
        if (self.alphabet == "used") != bool(self.used) or max(self.used, default=0) >= self.vocab:
            raise UsageError("alphabet=used is told by its task what occurs; used does not fit")
        if not self.local and self.visible:
            raise UsageError("visible goes with attention=window or reads, not full")
        if self.local and not self._visible_fits():
            raise UsageError(
                f"the task decides what attention={self.attention} sees: visible does not fit "
                f"{len(self.levels)} levels of ids"
            )

    def _visible_fits(self) -> bool:
        """Whether `visible` is of the shape that `LocalAttention` takes."""
        count = len(self.levels)
        if self.attention == "window":
            return len(self.visible) == count and any(self.visible)
        kinds = self.levels[-1] if count else 0
        return bool(self.visible) and all(
            len(row) == count + 1 and max(row[:2]) < kinds for row in self.visible
        )

    def _check_without_content(self) -> None:
        """Raise ValueError for what needs queries and keys, and where nothing else says."""
        ways = {self.position, *self.scheme}
        for way in sorted(ways & {"rotary", "rotary2"}):
            raise UsageError(f"{way} rotates queries and keys: content=false has none")
        if self.share not in ("none", "vo"):
            raise UsageError("share applies to queries and keys; content=false has none")
        if not ways & {"alibi", "fire", "relative"}:
            raise UsageError(
                "content=false needs positions that decide the attention: position=alibi, relative "
                "or fire, or level_position with relative"
            )

    @property
    def local(self) -> bool:
        return self.attention != "full"

    @property
    def longest(self) -> int | None:
        return self.index_count if self.position in ("learned", "sinusoidal") else None

    @property
    def index_count(self) -> int:
        """How many positions in the text a table of them has."""
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
        rows = not self.arc and self.alphabet == "all" and self.biases == "all"
        return usual and full and rows and self.content and not self.token_shift
