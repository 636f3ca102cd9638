"""Settings: documented fields of frozen dataclasses, with the values that each may take.

`setting` declares a field, `check_settings` checks a config against what its fields declare;
`from_dict` reads JSON, `with_settings` and `parse` text.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from addgpt.config.catalogue import Feature, Features
from addgpt.config.errors import UsageError

T = TypeVar("T")
Number = int | float

# What other libraries call settings of ours.
ELSEWHERE = {
    "lr": "learning_rate max_lr base_lr rate",
    "final_lr": "min_lr lr_min",
    "steps": "epochs max_steps max_iters num_steps iterations iters",
    "batch_size": "batch bs train_batch_size per_device_train_batch_size",
    "warmup": "warmup_steps warmup_iters",
    "schedule": "lr_schedule scheduler lr_scheduler lr_decay decay",
    "clip": "grad_clip gradient_clipping max_grad_norm grad_norm_clip clip_grad",
    "eval_every": "eval_interval eval_steps val_every",
    "eval_size": "eval_iters val_size",
    "save_every": "save_steps save_interval checkpoint_every",
    "precision": "dtype amp bf16 fp16",
    "ema": "ema_decay",
    "beta2": "adam_beta2 adam_b2 betas",
    "weight_decay": "wd l2",
    "layers": "n_layer n_layers num_layers num_hidden_layers depth blocks",
    "heads": "n_head n_heads num_heads num_attention_heads nhead",
    "kv_heads": "n_kv_head n_kv_heads num_key_value_heads",
    "width": "n_embd d_model dim hidden_size embed_dim embedding_size channels",
    "mlp_ratio": "d_ff ffn_dim intermediate_size mlp_dim dim_feedforward",
    "dropout": "p_drop dropout_rate attn_pdrop resid_pdrop",
    "tied": "tie_weights tie_word_embeddings weight_tying",
    "position": "pos positions pos_emb positional_encoding position_embedding",
    "norm": "normalization layernorm norm_type",
    "activation": "act hidden_act activation_function nonlinearity",
    "architecture": "kind model model_type arch",
    "digits": "ndigit n_digits num_digits max_digits length",
    "block": "block_size seq_len max_seq_len context_length",
    "window": "context_size n_gram",
}  # fmt: skip
KNOWN_AS = {name: ours for ours, names in ELSEWHERE.items() for name in names.split()}

KINDS: dict[Any, str] = {  # types, as a person would say
    bool: "true or false", int: "a whole number", float: "a number", (int, float): "a number",
    str: "text", tuple: "a list", dict: "a table",
}  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting may be: `low` and `high` count, `below` does not."""

    low: Number | None = None
    high: Number | None = None
    below: Number | None = None

    def hold(self, value: Number) -> bool:
        """Whether a number is within the bounds; NaN and infinity never are."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
            and -math.inf < value < math.inf
        )

    def __str__(self) -> str:
        """Such as `1..1024`, `[0, 1)` or `at least 0`; empty if there are none."""
        top = self.high if self.below is None else self.below
        if top is None:
            return "" if self.low is None else f"at least {self.low:g}"
        if self.low is None:
            return f"{'at most' if self.below is None else 'below'} {top:g}"
        if self.below is None and isinstance(self.low, int) and isinstance(top, int):
            return f"{self.low}..{top}"
        return f"[{self.low:g}, {top:g}{']' if self.below is None else ')'}"


def setting(
    default: Any,
    help: str,
    choices: Iterable[Any] = (),
    features: Features | None = None,
    *,
    low: Number | None = None,
    high: Number | None = None,
    below: Number | None = None,
    gradients: bool = False,
) -> Any:
    """A documented field of a dataclass; `check_settings` enforces what is declared here.

    Args:
        help: one line for `addgpt settings`.
        choices: the valid values; a table of features documents each of them.
        features: for a field that takes other values too, what some of them stand for.
        low, high, below: bounds; `below` is the first number that is too large.
        gradients: whether only training by gradients has a use for it.

    Where the value is a tuple, each of its parts must be within the choices and bounds. None, which
    a field of type `T | None` may hold, always is.
    """
    if isinstance(default, float):  # `[0, 1]`, not `0..1`
        low, high = (None if x is None else float(x) for x in (low, high))
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "features": choices if isinstance(choices, Mapping) else features or {},
        "bounds": Bounds(low, high, below),
        "gradients": gradients,
    }
    return field(default=default, metadata=metadata)


def features_of(cls: type) -> Iterator[tuple[str, str, Feature]]:
    """The features of a dataclass of settings: field, value, what the value stands for."""
    for item in dataclasses.fields(cls):
        for value, feature in item.metadata.get("features", {}).items():
            if feature is not None:
                yield item.name, value, feature


def check_settings(config: Any) -> None:
    """Raise ValueError, saying what is valid, if a field is outside its choices or bounds."""
    for item in dataclasses.fields(config):
        value, choices = getattr(config, item.name), item.metadata.get("choices")
        bounds = item.metadata.get("bounds", Bounds())
        for part in value if isinstance(value, tuple) else (value,):
            if part is None:
                continue
            if choices and part not in choices:
                valid = ", ".join(map(str, choices))
                raise UsageError(f"{item.name} must be one of {valid}, not {part!r}")
            if isinstance(part, Number) and not bounds.hold(part):
                text = "finite" if abs(part) == math.inf else str(bounds) or "a number"
                text = f"in {text}" if text[0] in "[-0123456789" else text
                raise UsageError(f"{item.name} must be {text}, not {part}")


def unknown(what: str, name: str, valid: Iterable[str], where: str = "") -> UsageError:
    """The error for an unknown name: the one that may be meant, and all valid ones."""
    valid = sorted(valid)
    near = [KNOWN_AS[name]] if KNOWN_AS.get(name) in valid else []
    near = near or difflib.get_close_matches(name, valid, 1, cutoff=0.7)
    listed = "valid keys" if what == "key" else "valid"
    meant = f"; did you mean {near[0]}?" if near else ";"
    return UsageError(f"unknown {what} {name!r}{where}{meant} {listed}: {', '.join(valid)}")


def names_of(config: Any) -> list[str]:
    """The names of a dataclass's fields, in their order."""
    return [item.name for item in dataclasses.fields(config)]


def to_dict(config: Any) -> dict[str, Any]:
    """A plain, JSON-ready dict; `from_dict` takes it back."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], data: dict[str, Any], where: str = "") -> T:
    """The dataclass `cls` from a plain dict, which stands in a file as the table `where`, if any.

    Unknown and missing keys and wrong types raise ValueError, saying where.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{where or 'this'} must be a table of settings, not {data!r}")
    hints, inside = typing.get_type_hints(cls), f" in {where}" if where else ""
    for key in data:
        if key not in names_of(cls):
            raise unknown("key", key, names_of(cls), inside)
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        has_default = {item.default, item.default_factory} != {dataclasses.MISSING}
        if item.name not in data and not has_default:
            raise UsageError(f"{item.name} is missing{inside}")
    return cls(**{key: _convert(key, hints[key], data[key], inside) for key in data})


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """A copy of a dataclass with other values; text is parsed by the field's type.

    Unknown keys and wrong values raise ValueError.
    """
    hints, names = typing.get_type_hints(type(config)), names_of(config)
    values = {}
    for key, value in settings.items():
        if key not in names:
            raise unknown("setting", key, names)
        isread = isinstance(value, str)
        values[key] = parse(key, hints[key], value) if isread else _convert(key, hints[key], value)
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def parse(key: str, hint: Any, text: str) -> Any:
    """The value that `text` (from `--set key=text`) means for a field of type `hint`."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(parse(key, inner, part) for part in text.split(",") if part)
    if isinstance(hint, types.UnionType):  # T | None
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return None if text.lower() == "none" else parse(key, parts[0], text)
    if hint not in (bool, int, float, str):
        raise UsageError(f"{key} cannot be set from text")
    try:
        if hint is bool:
            return words[text.lower()]
        if hint is str or text.isascii():  # Python reads digits of all scripts
            return hint(text)
    except (ValueError, KeyError):
        pass
    raise UsageError(f"{key} must be {KINDS[hint]}, not {text!r}")


def as_text(value: Any) -> str:
    """A value as `parse` takes it: `true`, `none`, `1,2`."""
    if isinstance(value, tuple | list):
        return ",".join(map(as_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _convert(name: str, hint: Any, value: Any, inside: str = "") -> Any:
    """Check a JSON value against a type hint; lists become tuples, tables dataclasses.

    An error names the key and, ` in train`, the table that it stands in.
    """
    origin = typing.get_origin(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, name + inside)
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)[0]
        numbered = dataclasses.is_dataclass(inner)  # case 1, case 2, ...
        return tuple(
            _convert(f"{name} {number}" if numbered else name, inner, item, inside)
            for number, item in enumerate(value, 1)
        )
    if isinstance(hint, types.UnionType):
        kinds = typing.get_args(hint)
        if value is None and type(None) in kinds:
            return None
        if isinstance(value, kinds) and not isinstance(value, bool):
            return value
        return _convert(name, kinds[0], value, inside)
    wanted = {float: (int, float)}.get(hint, origin or hint)
    wrong_bool = isinstance(value, bool) and hint is not bool and wanted is not Any
    if hint is Any or (isinstance(value, wanted) and not wrong_bool):
        return value
    raise UsageError(f"{name}{inside} must be {KINDS.get(wanted, hint)}, not {value!r}")
