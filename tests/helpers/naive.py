"""The GPT as plain formulas: one row, one head and one token at a time, in numpy and float64.

Written from the description of each feature, not from the code; `Naive(model).logits(...)` is what
`model(...)` must give.
"""

import cmath
import math

import numpy as np
import torch

from addgpt.model.gpt import GPT

SHARED = {"none": (0, 1, 2), "qk": (0, 0, 1), "kv": (0, 1, 1), "qkv": (0, 0, 0)}


class Naive:
    def __init__(self, model: GPT) -> None:
        self.config = model.config
        self.eps = torch.finfo(next(model.parameters()).dtype).eps
        self.w = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
        self.scheme = self.config.level_position or ("learned",) * len(self.config.levels)
        self.turned = [i for i, how in enumerate(self.scheme) if how in ("rotary", "rotary2")]
        self.twice = [i for i, how in enumerate(self.scheme) if how == "rotary2"]
        self.added = [i for i, how in enumerate(self.scheme) if how == "learned"]

    def logits(self, tokens, ids, prompt: int = 0, places=None) -> np.ndarray:
        """(T, V) logits of (T,) tokens with (T + 1, L) ids; `places` are those in the text."""
        config = self.config
        self.ids, self.length, self.found = ids, len(tokens), {}
        self.places = list(range(len(tokens) + 1)) if places is None else list(places)
        self.prompt = prompt if config.prefix else 0
        embedded = [self.embed(t, tokens[t]) for t in range(len(tokens))]
        stream = embedded
        for loop in range(config.loops):
            if loop and config.inject:
                stream = [x + e for x, e in zip(stream, embedded, strict=True)]
            for layer in range(config.layers):
                stream = self.block(f"blocks.{layer}", stream)
        head = self.table("token.weight" if config.tied else "head.weight")
        if config.norm_place != "after":
            stream = [self.norm("norm", x) for x in stream]
        logits = np.stack([head @ x for x in stream])
        if config.alphabet == "used":
            logits[:, [v for v in range(config.vocab) if v not in config.used]] = -1e4
        return logits

    def block(self, name: str, stream) -> list[np.ndarray]:
        parts = [("attention_norm", lambda xs: self.attend(name, xs))]
        if self.config.mlp_ratio:
            parts.append(("mlp_norm", lambda xs: [self.mlp(name, x) for x in self.shift(name, xs)]))
        for norm, part in parts:
            own, out = f"{name}.{norm}", f"{name}.{norm}_out"
            if self.config.norm_place == "after":
                written = part(stream)
                stream = [self.norm(own, x + y) for x, y in zip(stream, written, strict=True)]
                continue
            written = part([self.norm(own, x) for x in stream])
            if self.config.norm_place == "both":
                written = [self.norm(out, y) for y in written]
            stream = [x + y for x, y in zip(stream, written, strict=True)]
        return stream

    def shift(self, name: str, xs) -> list[np.ndarray]:
        """What the MLP reads: with token shift, some of what the token before had is added."""
        if not self.config.token_shift:
            return xs
        share = self.w[f"{name}.shift"]
        return [x + share * xs[t - 1] if t else x for t, x in enumerate(xs)]

    def matrix(self, name: str) -> np.ndarray:
        if self.config.rank:
            return self.w[f"{name}.left"] @ self.w[f"{name}.right"]
        return self.w[name]

    def table(self, name: str) -> np.ndarray:
        if self.config.embed_rank:
            return self.w[f"{name}.left"] @ self.w[f"{name}.right"]
        if name in self.w:
            return self.w[name]
        out, points = np.zeros((self.config.vocab, self.config.width)), 0
        if f"{name}.arc" in self.w:
            points, (radius, start, step) = self.config.arc, self.w[f"{name}.arc"]
            for v in range(points):
                z = cmath.rect(radius, start + v * step)
                out[v, :2] = z.real, z.imag
        used = self.config.used if self.config.alphabet == "used" else range(self.config.vocab)
        rows = iter(self.w[f"{name}.rows"])
        for v in used:
            if v >= points:
                out[v] = next(rows)
        return out

    def embed(self, t: int, token: int) -> np.ndarray:
        config, place = self.config, self.places[t]
        x = self.table("token.weight")[token].copy()
        if config.position == "learned":
            x += self.w["positions.index.table.weight"][place]
        if config.position == "sinusoidal":
            for c in range(config.width):
                angle = place / 10_000 ** (2 * (c // 2) / config.width)
                x[c] += math.cos(angle) if c % 2 else math.sin(angle)
        for table, level in enumerate(self.added):
            x += self.w[f"positions.learned.own.{table}.weight"][self.ids[t, level]]
            if config.next_ids:
                x += self.w[f"positions.learned.target.{table}.weight"][self.ids[t + 1, level]]
        return x

    def attend(self, name: str, read) -> list[np.ndarray]:
        config = self.config
        size = config.width // config.heads
        mixed = [np.zeros(config.width) for _ in read]
        ahead = bool(config.next_ids and self.turned)
        for head in range(config.heads):
            if config.content:
                wq, wk, wv = self.projections(name, head, size)
            else:
                group = head * (config.kv_heads or config.heads) // config.heads
                wv = self.matrix(f"{name}.attention.value.weight")[0][
                    group * size : (group + 1) * size
                ]
                wq = wk = np.zeros((2, config.width))
            queries = [self.turn(wq @ x, t + ahead, t) for t, x in enumerate(read)]
            keys = [self.turn(wk @ x, t, t) for t, x in enumerate(read)]
            values = [wv @ x for x in read]
            for t, q in enumerate(queries):
                seen = self.seen(t)
                sharp = math.log(len(seen)) / math.log(config.context) if config.log_scale else 1.0
                scores = np.array(
                    [
                        (self.score(name, head, q, keys[s]) + self.bias(head, t, s)) * sharp
                        for s in seen
                    ]
                )
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                mixed[t][head * size : (head + 1) * size] = sum(
                    w * values[s] for s, w in zip(seen, weights, strict=True)
                )
        if config.share == "vo":
            return mixed
        return [self.matrix(f"{name}.attention.out.weight") @ x for x in mixed]

    def seen(self, t: int) -> list[int]:
        """The places whose tokens place `t` sees, in any head and block."""
        if t not in self.found:
            most = max(t + 1, self.prompt if t < self.prompt else 0)
            self.found[t] = [s for s in range(most) if s == t or self.in_sight(t, s)]
        return self.found[t]

    def in_sight(self, t: int, s: int) -> bool:
        """Whether local attention shows place `t` another place, by their ids."""
        config = self.config
        slot, key = self.ids[t + config.next_ids], self.ids[s]
        if config.attention == "window":
            levels = zip(slot, key, config.visible, strict=True)
            return all(not some or any(self.apart(*two, n) for n in some) for *two, some in levels)
        if config.attention == "reads":
            return any(
                slot[-1] == reader
                and key[-1] == read
                and all(map(self.apart, slot[:-1], key[:-1], differences))
                for reader, read, *differences in config.visible
            )
        return True

    @staticmethod
    def apart(slot: int, key: int, difference: int) -> bool:
        """Whether two ids differ by so much. Only ids that are not 0 do; 2^15 asks for a key of 0,
        whatever the slot is."""
        if difference == 2**15:
            return key == 0
        return slot != 0 and key != 0 and slot - key == difference

    def projections(self, name: str, head: int, size: int) -> list[np.ndarray]:
        """The matrices of one head: its query's, and those of the keys and values it reads."""
        config = self.config
        which = SHARED[config.share]
        groups = config.kv_heads or config.heads
        own, read = (slice(h * size, (h + 1) * size) for h in (head, head * groups // config.heads))
        qkv = self.matrix(f"{name}.attention.qkv.weight")
        if groups == config.heads:
            return [qkv[i][own] for i in which]
        kv = self.matrix(f"{name}.attention.kv.weight")
        return [qkv[0][own], kv[0][read], kv[which[2] - 1][read]]

    def score(self, name: str, head: int, q, k) -> float:
        if not self.config.content:
            return 0.0
        if not self.config.qk_norm:
            return q @ k / math.sqrt(len(q))
        gain = self.w[f"{name}.attention.gain"][head, 0, 0]
        return gain * (q @ k) / np.linalg.norm(q) / np.linalg.norm(k)

    def bias(self, head: int, t: int, s: int) -> float:
        return self.place_bias(head, t, s) + self.id_bias(head, t, s)

    def id_bias(self, head: int, t: int, s: int) -> float:
        near = [i for i, how in enumerate(self.scheme) if how == "relative"]
        total = 0.0
        for table, level in enumerate(near):
            apart = int(self.ids[t + self.config.next_ids, level] - self.ids[s, level])
            entry = min(max(apart, -4), 4) + 4 if self.ids[s, level] else 9
            biases = self.w["positions.relative.table"]
            if self.config.biases != "all":
                total += self.visible_biases(near, head)[table].get(entry, self.start(entry))
            else:
                total += biases[table, head, entry]
        return total

    @staticmethod
    def start(entry: int) -> float:
        return 0.0 if entry == 9 else -float((entry - 4) ** 2)

    def visible_biases(self, levels: list[int], head: int) -> list[dict[int, float]]:
        """For each level the entries that are trained, in order, and their biases."""
        config, left, out = self.config, list(self.w["positions.relative.table"][head]), []
        for level in levels:
            if config.attention == "window":
                apart = set(config.visible[level])
            else:
                last = level == len(config.levels) - 1
                apart = set() if last else {row[2 + level] for row in config.visible}
            entries = sorted({9 if n == 2**15 else min(max(n, -4), 4) + 4 for n in apart})
            entries = entries or list(range(10))
            pinned = {entries.pop(): 0.0} if config.biases == "pinned" else {}
            out.append(pinned | dict(zip(entries, left, strict=False)))
            left = left[len(entries) :]
        assert not left
        return out

    def place_bias(self, head: int, t: int, s: int) -> float:
        here, there = self.places[t], self.places[s]
        if self.config.position == "alibi":
            return -(2 ** (-8 * (head + 1) / self.config.heads)) * abs(here - there)
        if self.config.position == "hard_alibi":
            windowed = head + 1 <= self.config.heads // 2
            return -math.inf if windowed and abs(here - there) > head else 0.0
        if self.config.position == "relative":
            table = self.w["positions.index.table"]
            return float(table[head, min(abs(here - there), table.shape[1] - 1)])
        if self.config.position == "fire":
            fire = {
                n: self.w[f"positions.index.{n}"]
                for n in ("scale", "threshold", "rise", "shift", "mix")
            }

            def log(x: float) -> float:
                return math.log(abs(fire["scale"]) * x + 1)

            share = log(abs(here - there)) / (log(max(here, abs(fire["threshold"]))) + 1e-6)
            hidden = [
                max(0.0, share * r + b) for r, b in zip(fire["rise"], fire["shift"], strict=True)
            ]
            return float(sum(h * m for h, m in zip(hidden, fire["mix"][head], strict=True)))
        return 0.0

    def turn(self, x, t: int, just_read: int) -> np.ndarray:
        """Channel c and its partner are a complex number that each axis' position turns."""
        index = self.config.position == "rotary"
        axes = [("index", self.places[t])] if index else []
        axes += [(i, self.ids[t, i]) for i in self.turned]
        axes += [(i, self.ids[just_read, i]) for i in self.twice]
        if not axes:
            return x
        pairs = int(len(x) * (0.75 if self.turned else 1)) // (2 * len(axes))
        out, total = x.copy(), pairs * len(axes)
        for axis, (name, place) in enumerate(axes):
            fastest, span = (1.0, 10_000.0) if name == "index" else (0.75 * math.pi, 100.0)
            for j in range(pairs):
                c = axis * pairs + j
                rate = fastest * span ** -(j / max(pairs - 1, 1))
                value = complex(x[c], x[total + c]) * cmath.exp(1j * rate * int(place))
                out[c], out[total + c] = value.real, value.imag
        return out

    def mlp(self, name: str, x) -> np.ndarray:
        up = self.matrix(f"{name}.mlp.up.weight")
        kind = self.config.activation
        simple = {"swiglu": "silu", "geglu": "gelu"}.get(kind, kind)
        act = {
            "relu2": lambda h: max(h, 0) ** 2,
            "relu": lambda h: max(h, 0),
            "gelu": lambda h: h * 0.5 * (1 + math.erf(h / math.sqrt(2))),
            "silu": lambda h: h / (1 + math.exp(-h)),
        }[simple]
        if kind == simple:
            hidden = np.array([act(h) for h in up @ x])
        else:
            hidden = np.array([act(g) * h for g, h in zip(up[0] @ x, up[1] @ x, strict=True)])
        return self.matrix(f"{name}.mlp.down.weight") @ hidden

    def norm(self, name: str, x) -> np.ndarray:
        if self.config.norm == "none":
            return x
        if self.config.norm == "layer":
            x = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
            return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
        x = x / math.sqrt((x**2).mean() + self.eps)
        return x * self.w[f"{name}.weight"] if self.config.norm == "rms" else x
