"""A run as a folder that transformers loads: weights, a character tokenizer, a model card.

A plain GPT is written as the stock architecture that it is (see stock.py). Any other model brings
its code along: `modeling_addgpt.py`, made from the template beside this file, and copies of the
modules that it needs (see vendoring.py), so that addgpt need not be installed where it is loaded.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from safetensors.torch import save

from addgpt.config.architectures import CustomConfig
from addgpt.config.errors import UsageError
from addgpt.config.settings import to_dict
from addgpt.evaluation.schema import read_eval
from addgpt.export.stock import stock_model, stock_name
from addgpt.export.vendoring import MODULE, bundled
from addgpt.generation.decode import EXTRA_TOKENS, batch_within_tables, write
from addgpt.model.build import Model
from addgpt.model.forward import tensors
from addgpt.runs.files import RunError, check_writable, write_atomically
from addgpt.runs.provenance import versions
from addgpt.runs.run import Run
from addgpt.task import Batch, Explained, Graded, Problem, Task

TEMPLATES = Path(__file__).parent / "templates"
CHECKED = 64  # problems on which logits are compared
CARD_ROWS = 100  # of exact match on the model card

EVERY_FILE = """

def _files():  # never called: transformers 5.0 copies only files that this one names
"""


def export_huggingface(run: Run, out: Path) -> dict[str, Any]:
    """Write a run into a folder, load it again, and compare.

    Returns `stock`, the stock architecture it is, or nothing, and `difference`, the largest one
    between logits of the loaded model and of ours. Loading carries out the code that was written,
    which is ours.

    Raises:
        UsageError: transformers is not installed, or the model cannot be exported: it is somebody
            else's, or its task has no equals sign.
        RunError: the run has no sound model, the folder is not empty or cannot be written to.
    """
    try:
        import transformers
    except ImportError:
        raise UsageError("--to hf needs transformers: pip install 'addgpt[hf]'") from None
    if isinstance(run.config.model, CustomConfig):
        raise UsageError(
            f"--to hf brings code of addgpt along, not that of {run.config.model.architecture}; in "
            "Python its module is addgpt.load_run(RUN).model().inner"
        )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    task, (model, progress) = run.task(), sound_model(run)
    end = task.alphabet.index(task.end) if task.end else None
    stock, batch = stock_name(model.config), some_rows(task)
    with new_folder(out):
        _tokenizer(task).save_pretrained(out)
        if stock:
            stock_model(model, end).save_pretrained(out)
        else:
            for name, content in _with_code(task, model, end).items():
                write_atomically(out / name, content)
        difference = _difference(out, model, batch, not stock)
        found = {"stock": stock, "difference": difference, "checked": len(batch)}
        write_atomically(out / "README.md", _card(run, task, model, progress, found))
    return found


def sound_model(run: Run) -> tuple[Model, dict[str, Any]]:
    """The model of a run that is to be exported, and its progress. Raises RunError."""
    model, progress = run.load()
    if not all(bool(x.isfinite().all()) for x in model.parameters()):
        raise RunError(f"some weights of {run.path} are not numbers; nothing is exported")
    return model, progress


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Make the folder of an export; where that fails, nothing of it is left.

    Raises RunError if there is anything in it.
    """
    there = out.is_dir()
    if there and any(out.iterdir()):
        raise RunError(f"{out} is not empty; choose another --out")
    check_writable(out)
    try:
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if there:
            out.mkdir(exist_ok=True)
        raise


def _tokenizer(task: Task) -> Any:
    """A token a character; characters that are not in the alphabet are refused."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {char: number for number, char in enumerate(task.alphabet)}
    characters = Tokenizer(models.WordLevel(ids))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    ends = {"eos_token": task.end, "pad_token": task.end} if task.end else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, padding_side="left", clean_up_tokenization_spaces=False, **ends
    )


def _with_code(task: Task, model: Model, end: int | None) -> dict[str, str | bytes]:
    """The files of a model that brings its code along, by name."""
    version = versions()["addgpt"]
    module, own = type(task).__module__, None
    if not module.startswith("tasks."):
        import sys

        module, own = "own_task", {"own_task": Path(str(sys.modules[module].__file__))}
    asks = bool(task.levels) and any(way != "none" for way in model.config.scheme)
    asks = asks or model.config.local or model.config.prefix
    if asks and "=" not in task.alphabet:
        raise UsageError(f"task {task.name} has no equals sign to tell its prompts by: no --to hf")
    source = rendered(
        "modeling_addgpt.py.jinja",
        version=version,
        entry="addgpt_model_gpt.py",
        task={"module": module, "name": type(task).__name__} if asks else None,
        prefix=model.config.prefix,
    )
    files: dict[str, Any] = dict(bundled(source, version, own))
    copies = [f"    from .{name[:-3]} import {MODULE}  # noqa: F401\n" for name in files if name]
    files["modeling_addgpt.py"] = files.pop("") + EVERY_FILE + "".join(copies)
    names = {"AutoConfig": "AddGPTConfig", "AutoModelForCausalLM": "AddGPTForCausalLM"}
    settings = {
        "model_type": "addgpt",
        "architectures": ["AddGPTForCausalLM"],
        "auto_map": {auto: f"modeling_addgpt.{name}" for auto, name in names.items()},
        "model": to_dict(model.config),
        "options": to_dict(task) if asks else {},
        "alphabet": task.alphabet,
        "vocab_size": len(task.alphabet),
        "max_position_embeddings": model.config.longest or 1 << 15,
        "dtype": "float32",
        "use_cache": False,
        "eos_token_id": end,
        "pad_token_id": end,
        "addgpt_version": version,
    }
    files["config.json"] = json.dumps(settings, indent=2) + "\n"
    generation = {"eos_token_id": end, "pad_token_id": end, "use_cache": False}
    files["generation_config.json"] = json.dumps(generation, indent=2) + "\n"
    files["model.safetensors"] = _weights(model)
    return files


def _weights(model: Model) -> bytes:
    """All tensors of a model, those that are computed again elsewhere, too."""
    named = dict(model.state_dict()) | dict(model.named_buffers())
    return save({f"gpt.{name}": x.contiguous() for name, x in named.items()}, {"format": "pt"})


def some_rows(task: Task) -> Batch:
    """Rows of the split that is scored, on which logits are compared."""
    rng = np.random.default_rng(0)
    return task.batch(rng, CHECKED, task.splits[-1])


@torch.inference_mode()
def _difference(folder: Path, model: Model, batch: Batch, remote: bool) -> float:
    """The largest difference between logits of the folder's model and of ours."""
    from transformers import AutoModelForCausalLM

    how: dict[str, Any] = {"trust_remote_code": True} if remote else {}
    other: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how)
    batch = batch_within_tables(batch, model.config)
    tokens, ids, _ = tensors(batch, torch.device("cpu"))
    prompt = torch.from_numpy(batch.scored.argmax(1)) if model.config.prefix else None
    ours = model(tokens, ids, prompt=prompt)
    real = torch.arange(tokens.shape[1]) < torch.from_numpy(batch.lengths - 1)[:, None]
    theirs = other.eval()(input_ids=tokens).logits
    return float((ours - theirs).abs()[real].max())


def _card(run: Run, task: Task, model: Model, progress: dict, found: dict[str, Any]) -> str:
    scores = []
    if (run.scores / "eval.csv").is_file():
        rows = read_eval(run.scores / "eval.csv")
        steps = progress.get("step", 0)  # a run may have been trained further since it was scored
        scores = [row for row in rows if row["stratum"] == "all" and row["step"] == steps]
    example, written, most, order = "...", "...", 100, ""
    if isinstance(task, Graded):
        batch = some_rows(task)
        order, batch = _digit_order(task, batch), batch.rows([0])
        prompt = task.texts(batch)[0][0]
        most = int(batch.lengths[0]) - len(prompt) + EXTRA_TOKENS
        most = min(most, (model.config.longest or 1 << 20) - len(prompt))
        made = write(model, task, batch.tokens[:, : len(prompt)], most)
        example = json.dumps(prompt)
        written = prompt + task.decode(made.tokens[0, : made.length[0]])
    return rendered(
        "README.md.jinja",
        name=run.name,
        task=task.name,
        options=", ".join(f"{name}={value}" for name, value in to_dict(task).items()),
        parameters=f"{model.parameter_count():,}",
        architecture=model.config.architecture,
        steps=f"{progress.get('step', 0):,}",
        seed=run.config.seed,
        remote=not found["stock"],
        stock=found["stock"],
        checked=found["checked"],
        difference=f"{found['difference']:.2g}",
        alphabet=json.dumps(task.alphabet, ensure_ascii=False)[1:-1],
        end=task.end,
        order=order,
        example=example,
        written=written,
        most=most,
        scores=scores[:CARD_ROWS],
    )


def _lowest_first(task: Graded, problem: Problem, prompt: str, completion: str) -> list[str]:
    """What of a row is written lowest digit first, as far as it shows: `operands`, the operation if
    the answer is, `remainders`."""
    answer = task.truth(problem)
    if not isinstance(task, Explained) or not isinstance(answer.whole, int):
        return []
    places = task.answer_digits(problem, completion)
    size = len(str(abs(answer.whole)))
    visible = "".join(char for char in prompt if char not in task.hidden)
    numbers = re.findall("[0-9]+", visible)
    asked = tuple(int(number[::-1]) for number in numbers)
    shows = {
        "operands": asked == problem.operands != tuple(map(int, numbers)),
        problem.op: _falls(places[:size]),
        "remainders": _falls(places[size:]),
    }
    return [name for name, shown in shows.items() if shown]


def _falls(places: list[int]) -> bool:
    return len(places) > 1 and places == sorted(places, reverse=True)


def _digit_order(task: Graded, batch: Batch) -> str:
    """What is written lowest digit first, and the shortest row that shows it; empty: nothing is, or
    the task does not say where the digits of an answer stand."""
    told, shown = set[str](), []
    for problem, texts in zip(batch.problems, task.texts(batch), strict=True):
        if names := _lowest_first(task, problem, *texts):
            told.update(names)
            digits = "".join(filter(str.isdigit, str(task.truth(problem))))
            shown.append((digits == digits[::-1], len("".join(texts)), problem, *texts))
    if not told:
        return ""
    *_, problem, prompt, completion = min(shown)
    ops = dict.fromkeys(problem.op for problem in batch.problems)
    mine = [f"`{op}`" for op in ops if op in told]
    answers = "answers" if len(mine) == len(ops) else f"answers of {', '.join(mine)}"
    names = [answers] * bool(mine) + sorted(told.difference(ops))
    return (
        f"Written lowest digit first: {', '.join(names)}. So `{task.text(problem)}` is read as "
        f"`{prompt}`, and all that is to be written for {task.truth(problem)} is `{completion}`."
    )


def rendered(template: str, **values: Any) -> str:
    """A template of this package, filled in."""
    pages = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return pages.from_string((TEMPLATES / template).read_text(encoding="utf-8")).render(values)
