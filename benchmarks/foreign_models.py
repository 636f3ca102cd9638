"""Other people's models: a small GPT-2 to try the grid on, and what a slow endpoint costs.

python -m benchmarks.foreign_models gpt2 --out exported/gpt2 --digits 3 --steps 3000
addgpt eval hf:exported/gpt2 --task add --digits 3
addgpt figures results/gpt2-add-3

python -m benchmarks.foreign_models gpt2 --task mul --digits 20 --steps 8000 --out exported/gpt2-mul

python -m benchmarks.foreign_models api      1,000 problems, 20 ms a reply, by concurrency
"""

from __future__ import annotations

import argparse
import json
import operator
import random
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from addgpt.config.external import ExternalConfig
from addgpt.evaluation.external.openai_client import OpenAIClient
from addgpt.evaluation.external.questions import Question, ask_missing
from addgpt.evaluation.external.replies import Replies

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

CHARACTERS = "0123456789+-*/=\n#"
END = CHARACTERS.index("#")
RATE = 3e-3
OPERATIONS = {"add": ("+", operator.add), "mul": ("*", operator.mul)}


def make_gpt2(
    folder: Path,
    digits: int,
    steps: int,
    task: str = "add",
    seed: int = 0,
    width: int = 64,
    layers: int = 2,
) -> float:
    """Train a GPT-2 of transformers on problems as people write them, `12+34=46#`; save it there.

    Operand lengths are drawn before digits: uniformly for sums, in proportion to 1 / n for
    products, since short numbers are more usual in text. 64 problems a step, AdamW at a rate that
    falls to 0. Nothing is held out. Returns the last loss.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(CHARACTERS), n_positions=128, n_embd=width, n_layer=layers, n_head=4,
            eos_token_id=END, bos_token_id=None, pad_token_id=END, resid_pdrop=0, embd_pdrop=0,
            attn_pdrop=0,
        )
    )  # fmt: skip
    draw = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    loss = torch.zeros(())
    for step in range(steps):
        tokens, labels = written([problem(draw, task, digits) for _ in range(64)])
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - (step + 1) / steps)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return float(loss.detach())


def problem(draw: random.Random, task: str, digits: int) -> tuple[str, str]:
    """A prompt and its answer, end mark included."""
    symbol, compute = OPERATIONS[task]
    lengths = range(1, digits + 1)

    def operand() -> int:
        if task == "mul":
            (length,) = draw.choices(lengths, [1 / n for n in lengths])
        else:
            length = draw.randint(1, digits)
        return draw.randrange(10**length)

    a, b = operand(), operand()
    return f"{a}{symbol}{b}=", f"{compute(a, b)}#"


def written(rows: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """(B, T) tokens, and labels: those of the answers, -100 for all others."""
    import torch

    longest = max(len(prompt + answer) for prompt, answer in rows)
    tokens = torch.full((len(rows), longest), END)
    labels = torch.full((len(rows), longest), -100)
    for row, (prompt, answer) in enumerate(rows):
        ids = torch.tensor([CHARACTERS.index(char) for char in prompt + answer])
        tokens[row, : len(ids)] = ids
        labels[row, len(prompt) : len(ids)] = ids[len(prompt) :]
    return tokens, labels


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = Tokenizer(models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=characters, eos_token="#", pad_token="#")


def time_api(n: int, seconds: float, concurrency: int) -> float:
    """Seconds to ask an endpoint on this machine n prompts, where each reply takes `seconds`."""

    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(seconds)
            message = {"role": "assistant", "content": "46"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                               "choices": [choice]}).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    how = ExternalConfig(source=f"api:http://127.0.0.1:{server.server_port}/v1", model="m")
    with tempfile.TemporaryDirectory() as folder:
        client, replies = OpenAIClient(how, concurrency), Replies(Path(folder))
        began = time.perf_counter()
        ask_missing(client, [Question(f"{k}+1", f"{k}+1=", 16) for k in range(n)], replies)
        took = time.perf_counter() - began
    server.shutdown()
    return took


def main() -> None:
    lines = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=lines)
    commands = parser.add_subparsers(dest="what", required=True)
    small = commands.add_parser("gpt2")
    small.add_argument("--out", type=Path, required=True)
    small.add_argument("--task", choices=OPERATIONS, default="add")
    small.add_argument("--digits", type=int, default=3)
    small.add_argument("--steps", type=int, default=3000)
    api = commands.add_parser("api")
    api.add_argument("--n", type=int, default=1000)
    api.add_argument("--ms", type=float, default=20)
    api.add_argument("--concurrency", type=int, nargs="*", default=[1, 8, 32])
    args = parser.parse_args()
    if args.what == "gpt2":
        loss = make_gpt2(args.out, args.digits, args.steps, args.task)
        print(f"{args.out}: last loss {loss:.3f}")
        return
    for concurrency in args.concurrency:
        took = time_api(args.n, args.ms / 1000, concurrency)
        print(f"{args.n:,} problems, {args.ms:g} ms each, {concurrency} at a time: {took:.1f} s")


if __name__ == "__main__":
    main()
