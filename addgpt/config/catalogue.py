"""The catalogue of published ideas that are settings of the model and of training.

Each table belongs to one field of a config (`GPTConfig`, `TrainConfig`), which takes its valid
choices from it, and says what each value stands for. Where a field takes any number, `N` (whole) or
`X` stands for it. `addgpt features` and docs/features.md print these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Feature(NamedTuple):
    """A published idea that a setting switches on."""

    name: str
    paper: str  # author, year, arXiv id
    does: str


Features = Mapping[str, Feature | None]

# Papers that several features come from.
VASWANI = "Vaswani et al. 2017, arXiv:1706.03762"
SHAZEER = "Shazeer 2020, arXiv:2002.05202"
KAYYAM = "Kayyam et al. 2026, arXiv:2606.04032"

ARCHITECTURE: Features = {
    "gpt": Feature(
        "GPT", VASWANI, "each token attends to all before it, in blocks of attention and MLP"
    ),
    "gru": Feature(
        "gated recurrent network",
        "Cho et al. 2014, arXiv:1406.1078",
        "one state is carried from token to token: no attention",
    ),
    "mlp": Feature(
        "neural probabilistic model",
        "Bengio et al. 2003, JMLR 3:1137",
        "the last `window` tokens' vectors side by side, through tanh layers",
    ),
    "bigram": Feature(
        "bigram",
        "Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x",
        "one table of logits, a row for the last token, by gradient",
    ),
    "counts": Feature(
        "bigram by counting",
        "Chen and Goodman 1996, arXiv:cmp-lg/9606011",
        "the same table by counting what training draws, one added to each pair",
    ),
}
POSITION: Features = {
    "none": Feature(
        "no index", "Haviv et al. 2022, arXiv:2203.16634", "only causal attention gives the order"
    ),
    "learned": Feature(
        "learned positions",
        "Gehring et al. 2017, arXiv:1705.03122",
        "a trained vector for each place is added to the embedding",
    ),
    "sinusoidal": Feature(
        "sinusoidal positions", VASWANI, "sines and cosines of the place are added"
    ),
    "rotary": Feature(
        "rotary positions",
        "Su et al. 2021, arXiv:2104.09864",
        "queries and keys are rotated by an angle for each place",
    ),
    "alibi": Feature(
        "ALiBi",
        "Press et al. 2022, arXiv:2108.12409",
        "attention falls linearly with distance, with a slope for each head",
    ),
    "hard_alibi": Feature(
        "Hard-ALiBi",
        "Jelassi et al. 2024, arXiv:2402.01032",
        "half of the heads see only the last 1, 2, 3, ... tokens, the others all, without order",
    ),
    "relative": Feature(
        "relative positions",
        "Raffel et al. 2020, arXiv:1910.10683",
        "a trained bias for each distance, up to 64, is added to attention",
    ),
    "fire": Feature(
        "FIRE",
        "Li et al. 2024, arXiv:2310.04418",
        "a small network of the relative distance is added to attention, one for all blocks",
    ),
}
LEVEL_POSITION: Features = {
    "learned": Feature(
        "learned position ids",
        "Cho et al. 2024, arXiv:2405.20671",
        "a trained vector for each id that the task gives is added to the embedding",
    ),
    "rotary": Feature(
        "axial rotary position ids",
        "Heo et al. 2024, arXiv:2403.13298",
        "queries and keys are rotated by an angle for each id; levels share a head's channels",
    ),
    "rotary2": Feature(
        "axial rotary ids, from two slots",
        "Su et al. 2021, arXiv:2104.09864",
        "as rotary, but half by the id of the token just read: queries have two ids (our own)",
    ),
    "relative": Feature(
        "relative position ids",
        "Raffel et al. 2020, arXiv:1910.10683",
        "a trained bias for each difference of two ids, up to 4, is added to attention",
    ),
    "none": None,
}
ATTENTION: Features = {
    "full": Feature("causal attention", VASWANI, "each token sees all before it"),
    "window": Feature(
        "attention windows of position ids",
        "Jelassi et al. 2024, arXiv:2402.01032",
        "each slot sees what is at most as many columns and rows away as its task says (our own)",
    ),
    "reads": Feature(
        "attention to what a row reads",
        "Weiss et al. 2021, arXiv:2106.06981",
        "each slot sees the few tokens that its step of the work reads, as its task says (our own)",
    ),
}
CONTENT: Features = {
    "false": Feature(
        "attention without content",
        "Tay et al. 2021, arXiv:2005.00743",
        "no queries and keys: attention weights come from alibi, fire or relative ids alone",
    )
}
NEXT_IDS: Features = {
    "true": Feature(
        "double positions",
        "Pannatier et al. 2024, arXiv:2404.09562",
        "each step knows the ids of the token it reads and of the slot it fills",
    )
}
RANDOM_INDEX: Features = {
    "N": Feature(
        "randomised positions",
        "Ruoss et al. 2023, arXiv:2305.16843",
        "in training, places are random numbers below N, in order",
    )
}
NORM: Features = {
    "rms": Feature(
        "RMSNorm", "Zhang and Sennrich 2019, arXiv:1910.07467", "by the root mean square alone"
    ),
    "layer": Feature("LayerNorm", "Ba et al. 2016, arXiv:1607.06450", "with gain and bias"),
    "plain": Feature(
        "norm without parameters", "Xu et al. 2019, arXiv:1911.07013", "RMSNorm without its gain"
    ),
    "none": Feature(
        "no norm", "Zhang et al. 2019, arXiv:1901.09321", "what blocks add starts at zero"
    ),
}
NORM_PLACE: Features = {
    "before": Feature("pre-norm", "Xiong et al. 2020, arXiv:2002.04745", "x + f(norm(x))"),
    "after": Feature("post-norm", VASWANI, "norm(x + f(x)), and no norm before the head"),
    "both": Feature("sandwich norm", "Ding et al. 2021, arXiv:2105.13290", "x + norm(f(norm(x)))"),
}
ACTIVATION: Features = {
    "relu2": Feature("squared ReLU", "So et al. 2021, arXiv:2109.08668", "max(x, 0) squared"),
    "relu": Feature("ReLU", VASWANI, "max(x, 0)"),
    "gelu": Feature(
        "GELU", "Hendrycks and Gimpel 2016, arXiv:1606.08415", "x times P(a normal number < x)"
    ),
    "silu": Feature("SiLU", "Elfwing et al. 2017, arXiv:1702.03118", "x sigmoid(x)"),
    "swiglu": Feature(
        "SwiGLU", SHAZEER, "silu(gate) times up; two thirds as wide, for equal parameters"
    ),
    "geglu": Feature(
        "GEGLU", SHAZEER, "gelu(gate) times up; two thirds as wide, for equal parameters"
    ),
}
QK_NORM: Features = {
    "true": Feature(
        "query-key norm",
        "Henry et al. 2020, arXiv:2010.04245",
        "queries and keys of length 1 and a trained gain for each head",
    )
}
KV_HEADS: Features = {
    "N": Feature(
        "grouped-query attention",
        "Ainslie et al. 2023, arXiv:2305.13245",
        "groups of heads share keys and values",
    ),
    "1": Feature(
        "multi-query attention",
        "Shazeer 2019, arXiv:1911.02150",
        "all heads share keys and values",
    ),
}
LOG_SCALE: Features = {
    "true": Feature(
        "log-length scaling",
        "Chiang and Cholak 2022, arXiv:2202.12172",
        "attention, biases too, is sharpened by log(context length), so that it does not thin out",
    )
}
PREFIX: Features = {
    "true": Feature(
        "prefix LM",
        "Raffel et al. 2020, arXiv:1910.10683",
        "the prompt sees all of itself; what is written sees what came before",
    )
}
LOOPS: Features = {
    "N": Feature(
        "looped layers",
        "Dehghani et al. 2019, arXiv:1807.03819",
        "the same blocks are run through N times: depth without parameters",
    )
}
INJECT: Features = {
    "true": Feature(
        "input injection",
        "Bansal et al. 2022, arXiv:2202.05826",
        "the embedding is added again before each further loop",
    )
}
TOKEN_SHIFT: Features = {
    "true": Feature(
        "token shift",
        "Peng et al. 2023, arXiv:2305.13048",
        "the MLP also reads what the token before had, a trained share of each channel",
    )
}
TIED: Features = {
    "true": Feature(
        "tied embeddings",
        "Press and Wolf 2017, arXiv:1608.05859",
        "the embedding is the output matrix as well",
    )
}
SHARE: Features = {
    "none": None,
    "qk": Feature("shared queries and keys", KAYYAM, "one matrix makes queries and keys"),
    "kv": Feature("shared keys and values", KAYYAM, "one matrix makes keys and values"),
    "qkv": Feature("one attention matrix", KAYYAM, "one matrix makes queries, keys and values"),
    "vo": Feature(
        "no output matrix",
        "He and Hofmann 2024, arXiv:2311.01906",
        "what heads find is added as it is; of two matrices that multiply each other one is left",
    ),
}
ALPHABET: Features = {
    "all": None,
    "used": Feature(
        "vocabulary of what occurs",
        "Abdaoui et al. 2020, arXiv:2010.05609",
        "characters that the task never writes have no row of the embedding and are never written",
    ),
}
ARC: Features = {
    "N": Feature(
        "numbers on an arc",
        "Kantamneni and Tegmark 2025, arXiv:2502.00873",
        "the first N tokens lie on a circle, evenly apart: radius, start and step are trained",
    )
}
BIASES: Features = {
    "all": None,
    "visible": Feature(
        "biases of what is seen",
        "Shaw et al. 2018, arXiv:1803.02155",
        "relative ids have a bias for differences that local attention shows, no others (our own)",
    ),
    "pinned": Feature(
        "biases of what is seen but one",
        "Shaw et al. 2018, arXiv:1803.02155",
        "as visible, and the last is fixed at 0: a softmax knows differences alone (our own)",
    ),
}
RANK: Features = {
    "N": Feature(
        "low-rank matrices",
        "Winata et al. 2020, arXiv:1910.13923",
        "each matrix of a block is the product of two, with N channels between",
    )
}
EMBED_RANK: Features = {
    "N": Feature(
        "factorised embedding",
        "Lan et al. 2019, arXiv:1909.11942",
        "each token has N numbers, which one matrix turns into channels",
    )
}
DROPOUT: Features = {
    "X": Feature(
        "dropout",
        "Hinton et al. 2012, arXiv:1207.0580",
        "the share X of what attention and MLP write is dropped in training",
    )
}
OPTIMIZER: Features = {
    "muon": Feature(
        "Muon",
        "Liu et al. 2025, arXiv:2502.16982",
        "orthogonalised momentum for the blocks' matrices, AdamW for the rest",
    ),
    "adamw": Feature(
        "AdamW", "Loshchilov and Hutter 2019, arXiv:1711.05101", "Adam with decoupled weight decay"
    ),
}
SCHEDULE: Features = {
    "linear": Feature(
        "linear decay", "Devlin et al. 2019, arXiv:1810.04805", "the rate falls linearly"
    ),
    "cosine": Feature(
        "cosine decay",
        "Loshchilov and Hutter 2017, arXiv:1608.03983",
        "the rate falls along half a cosine wave",
    ),
    "wsd": Feature(
        "warm-up, stable, decay",
        "Hu et al. 2024, arXiv:2404.06395",
        "the rate stays at its peak and falls linearly in the last fifth",
    ),
    "inverse_sqrt": Feature(
        "inverse square root", VASWANI, "the rate falls with the root of the steps"
    ),
    "constant": None,
}
CLIP: Features = {
    "X": Feature(
        "gradient clipping",
        "Pascanu et al. 2013, arXiv:1211.5063",
        "AdamW's gradient is scaled to a norm of at most X",
    )
}
EMA: Features = {
    "X": Feature(
        "weight averaging",
        "Tarvainen and Valpola 2017, arXiv:1703.01780",
        "a running average of the weights, of decay X, is scored and kept",
    )
}
LABEL_SMOOTHING: Features = {
    "X": Feature(
        "label smoothing",
        "Szegedy et al. 2016, arXiv:1512.00567",
        "the share X of each target is spread over all tokens",
    )
}
Z_LOSS: Features = {
    "X": Feature(
        "z-loss",
        "Chowdhery et al. 2022, arXiv:2204.02311",
        "X log(softmax sum)^2 is added to the loss, so that logits do not drift",
    )
}
AUX: Features = {
    "X": Feature(
        "auxiliary loss on running sums",
        "Bai et al. 2025, arXiv:2510.00184",
        "two heads of the last block must predict the running sum behind each digit of a product",
    )
}
SUPERVISE: Features = {
    "NAME@N": Feature(
        "deep supervision",
        "Lee et al. 2015, arXiv:1409.5185",
        "in training, linear probes after block N must predict results that the task names",
    )
}
CURRICULUM: Features = {
    "N:option=X": Feature(
        "curriculum",
        "Bengio et al. 2009, doi:10.1145/1553374.1553380",
        "from step N of training on, an option of the task is X",
    )
}
SCORE_PROMPT: Features = {
    "true": Feature(
        "loss on the prompt",
        "Shi et al. 2024, arXiv:2405.14394",
        "the loss of training counts the tokens of the prompt, too",
    )
}
UNTIL_CERTIFIED: Features = {
    "true": Feature(
        "hard examples until proved",
        "Shrivastava et al. 2016, arXiv:1604.03540",
        "then rounds with problems that contain what is wrong, until every context is right "
        "(the end is our own)",
    )
}
