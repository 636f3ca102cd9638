"""Models that are a stock architecture of transformers: GPT-2's or Llama's, with our weights.

A GPT fits if it has no position ids and none of the parts that those two lack. GPT-2: LayerNorm, a
plain MLP, learned positions or none. Llama: RMSNorm, a gated MLP, rotary positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from addgpt.config.architectures import ModelConfig
from addgpt.config.gpt import GPTConfig
from addgpt.model.build import Model
from addgpt.model.rotary import INDEX_WAVES

GPT2_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "relu2": "relu2"}
LLAMA_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu"}
PLAIN = {
    "attention": "full", "content": True, "qk_norm": False, "norm_place": "before",
    "log_scale": False, "prefix": False, "loops": 1, "share": "none", "rank": 0, "embed_rank": 0,
    "alphabet": "all", "arc": 0, "token_shift": False,
}  # fmt: skip
UNBOUNDED = 1024  # tokens, at least, where nothing of the model bounds them


def stock_name(config: ModelConfig) -> str:
    """`GPT-2`, `Llama`, or nothing where a model is neither."""
    if not isinstance(config, GPTConfig) or any(way != "none" for way in config.scheme):
        return ""
    if any(getattr(config, name) != value for name, value in PLAIN.items()) or not config.hidden:
        return ""
    if config.norm == "layer" and config.activation in GPT2_ACTIVATIONS:
        same = config.key_heads == config.heads and config.position in ("learned", "none")
        return "GPT-2" if same else ""
    if config.norm in ("rms", "plain") and config.activation in LLAMA_ACTIVATIONS:
        return "Llama" if config.position == "rotary" else ""
    return ""


def stock_model(model: Model, end: int | None) -> Any:
    """The model of transformers that a model of ours is. `end` is the id of the end mark."""
    config = model.config
    assert isinstance(config, GPTConfig), config
    ends = {"eos_token_id": end, "pad_token_id": end, "bos_token_id": None}
    make = _gpt2 if stock_name(config) == "GPT-2" else _llama
    other, tensors = make(config, dict(model.state_dict()), ends)
    missing, unexpected = other.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    left = [name for name in missing if not (config.tied and name == "lm_head.weight")]
    assert not left, left
    other.tie_weights()
    return other.eval()


def _gpt2(c: GPTConfig, ours: dict[str, Tensor], ends: dict[str, Any]) -> tuple[Any, dict]:
    from transformers import GPT2Config, GPT2LMHeadModel

    places = c.index_count if c.position == "learned" else max(UNBOUNDED, c.context)
    other = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocab, n_positions=places, n_embd=c.width, n_layer=c.layers,
            n_head=c.heads, n_inner=c.hidden, activation_function=GPT2_ACTIVATIONS[c.activation],
            resid_pdrop=c.dropout, embd_pdrop=0, attn_pdrop=0, layer_norm_epsilon=1e-5,
            tie_word_embeddings=c.tied, **ends,
        )
    )  # fmt: skip
    zeros = torch.zeros(places, c.width)
    out = {
        "transformer.wte.weight": ours["token.weight"],
        "transformer.wpe.weight": ours.get("positions.index.table.weight", zeros),
        "transformer.ln_f.weight": ours["norm.weight"],
        "transformer.ln_f.bias": ours["norm.bias"],
    }
    for layer in range(c.layers):
        mine, its = f"blocks.{layer}.", f"transformer.h.{layer}."
        pairs = {  # its matrices are transposed, and have biases
            "attn.c_attn": ours[f"{mine}attention.qkv.weight"].flatten(0, 1),
            "attn.c_proj": ours[f"{mine}attention.out.weight"],
            "mlp.c_fc": ours[f"{mine}mlp.up.weight"],
            "mlp.c_proj": ours[f"{mine}mlp.down.weight"],
        }
        for name, matrix in pairs.items():
            out[f"{its}{name}.weight"] = matrix.T.contiguous()
            out[f"{its}{name}.bias"] = torch.zeros(len(matrix))
        for name, norm in (("ln_1", "attention_norm"), ("ln_2", "mlp_norm")):
            for part in ("weight", "bias"):
                out[f"{its}{name}.{part}"] = ours[f"{mine}{norm}.{part}"]
    return other, out | _head(c, ours)


def _llama(c: GPTConfig, ours: dict[str, Tensor], ends: dict[str, Any]) -> tuple[Any, dict]:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = c.width // c.heads
    pairs = size // 2
    # Our slowest pair turns 10,000 times slower than the first, Llama's would be the one after it.
    base = INDEX_WAVES[1] ** (pairs / max(1, pairs - 1))
    other = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab, hidden_size=c.width, intermediate_size=c.hidden,
            num_hidden_layers=c.layers, num_attention_heads=c.heads,
            num_key_value_heads=c.key_heads, hidden_act=LLAMA_ACTIVATIONS[c.activation],
            max_position_embeddings=max(UNBOUNDED, c.context), tie_word_embeddings=c.tied,
            rms_norm_eps=torch.finfo(torch.float32).eps, attention_bias=False, mlp_bias=False,
            rope_parameters={"rope_type": "default", "rope_theta": base}, **ends,
        )
    )  # fmt: skip
    ones = torch.ones(c.width)
    out = {
        "model.embed_tokens.weight": ours["token.weight"],
        "model.norm.weight": ours.get("norm.weight", ones),
    }
    for layer in range(c.layers):
        mine, its = f"blocks.{layer}.", f"model.layers.{layer}."
        stacks = [ours[f"{mine}attention.qkv.weight"]]
        if c.key_heads < c.heads:
            stacks.append(ours[f"{mine}attention.kv.weight"])
        matrices = [matrix for stack in stacks for matrix in stack]
        for name, matrix in zip("qkv", matrices, strict=True):
            out[f"{its}self_attn.{name}_proj.weight"] = matrix
        out[f"{its}self_attn.o_proj.weight"] = ours[f"{mine}attention.out.weight"]
        gate, up = ours[f"{mine}mlp.up.weight"]
        out |= {f"{its}mlp.gate_proj.weight": gate, f"{its}mlp.up_proj.weight": up}
        out[f"{its}mlp.down_proj.weight"] = ours[f"{mine}mlp.down.weight"]
        for name, norm in (("input_layernorm", "attention_norm"),
                           ("post_attention_layernorm", "mlp_norm")):  # fmt: skip
            out[f"{its}{name}.weight"] = ours.get(f"{mine}{norm}.weight", ones)
    return other, out | _head(c, ours)


def _head(c: GPTConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    return {} if c.tied else {"lm_head.weight": ours["head.weight"]}
