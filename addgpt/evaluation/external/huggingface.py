"""Replies of a causal language model of transformers, decoded greedily."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from addgpt.config.errors import UsageError
from addgpt.device import pick_device
from addgpt.evaluation.external.questions import Question
from addgpt.evaluation.external.replies import Reply
from addgpt.runs.files import RunError

TOKENS_AT_ONCE = 1 << 14  # of prompts and replies together


class HuggingFace:
    """A model and its tokenizer, from a folder or by the name that they have on the Hub.

    Prompts of equal length in tokens are asked together, so that there is no padding: what a prompt
    gets does not depend on those beside it, but for the rounding of the matrix products.

    Raises:
        UsageError: transformers is not installed, or the model brings code of its own and `trust`
            is not set.
        RunError: there is no such model, or it cannot be loaded.
    """

    def __init__(self, path: str, trust: bool = False, rows: int = 0) -> None:
        try:
            import transformers
        except ImportError:
            raise UsageError("hf: needs transformers: pip install 'addgpt[hf]'") from None
        transformers.logging.set_verbosity_error()  # of warnings about what is meant here
        transformers.logging.disable_progress_bar()
        if path[:1] in "/." and not Path(path).is_dir():
            raise RunError(f"hf:{path} cannot be loaded: there is no such folder")
        self.rows = rows
        self.device = pick_device()
        how: dict[str, Any] = {"trust_remote_code": trust}
        try:
            config = transformers.AutoConfig.from_pretrained(path, **how)
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, **how)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                path, config=config, dtype="auto", **how
            )
        except Exception as error:  # of another library, and of code that a model brings
            text = str(error) or type(error).__name__
            if "trust_remote_code" in text:
                raise UsageError(
                    f"hf:{path} comes with its own code; --trust-remote-code runs it: only if you "
                    "trust its author"
                ) from None
            raise RunError(f"hf:{path} cannot be loaded: {text.strip().splitlines()[0]}") from None
        self.model = model.to(self.device).eval()
        self.ends, usual = self._ends(), model.generation_config
        # Plain greedy: many a model's own settings punish what repeats, such as the 3s of 333.
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=sorted(self.ends) or None,
            pad_token_id=0,  # any: it stands only after a reply's end
            use_cache=usual.use_cache,
        )

    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def ask(self, questions: list[Question]) -> Iterator[list[tuple[Question, Reply]]]:
        """Replies in batches, the longest prompts first: what does not fit shows at once."""
        read = [self._read(question) for question in questions]
        pairs = sorted(zip(questions, read, strict=True), key=lambda pair: -len(pair[1]))
        for length, group in groupby(pairs, key=lambda pair: len(pair[1])):
            some = list(group)
            room = self._room(length, some[0][0])
            longest = length + min(room, max(q.limit for q, _ in some))
            size = self.rows or max(1, TOKENS_AT_ONCE // longest)
            for start in range(0, len(some), size):
                yield self._written(some[start : start + size], room)

    @torch.inference_mode()
    def _written(
        self, pairs: list[tuple[Question, list[int]]], room: int
    ) -> list[tuple[Question, Reply]]:
        prompts = torch.tensor([ids for _, ids in pairs], device=self.device)
        out = self.model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=min(room, max(q.limit for q, _ in pairs)),
        )
        replies = []
        for (question, ids), row in zip(pairs, out[:, prompts.shape[1] :].tolist(), strict=True):
            row = row[: question.limit]
            end = next((at for at, token in enumerate(row) if token in self.ends), None)
            kept = row if end is None else row[:end]
            text = self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
            count = len(kept) + (end is not None)
            replies.append((question, Reply(text, end is not None, len(ids), count)))
        return replies

    def _read(self, question: Question) -> list[int]:
        """The tokens of a prompt. Raises UsageError if the tokenizer cannot read it."""
        try:
            return self.tokenizer(question.prompt)["input_ids"]
        except Exception as error:  # of another library: some have no token for what is not known
            raise UsageError(
                f"the tokenizer cannot read {question.prompt!r}: {error}; try another --template"
            ) from None

    def _ends(self) -> set[int]:
        """The tokens that end a reply."""
        found = [self.model.generation_config.eos_token_id, self.tokenizer.eos_token_id]
        flat = [x for some in found for x in (some if isinstance(some, list) else [some])]
        return {token for token in flat if token is not None}

    def _room(self, length: int, question: Question) -> int:
        """How many tokens a model with a table of positions can write after a prompt.

        Raises UsageError if it can write none.
        """
        most = getattr(self.model.config, "max_position_embeddings", None)
        room = most - length if isinstance(most, int) else 1 << 20
        if room < 1:
            raise UsageError(
                f"{question.problem}: the prompt takes {length} tokens, the model reads at most "
                f"{most}; try fewer --shots"
            )
        return room
