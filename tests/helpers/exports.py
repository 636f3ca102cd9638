"""Runs that are exported to transformers, and what comes back from there."""

from __future__ import annotations

import numpy as np
import pytest

from addgpt.generation.decode import write
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run


def saved(path, task, settings, model=None):
    """A run of a config with a model, its own untrained one by default."""
    from addgpt.model.build import build

    run = Run.create(path, configure(str(task), settings))
    run.save(model or build(run.config.model), {}, {"step": 1, "examples": 1, "seconds": 1.0})
    return run


def exported(run, out):
    """What exporting a run into a folder tells."""
    pytest.importorskip("transformers")
    from addgpt.export.huggingface import export_huggingface

    return export_huggingface(run, out)


def loaded(folder, remote=True):
    transformers = pytest.importorskip("transformers")
    how = {"trust_remote_code": True} if remote else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **how).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder, **how)


def same_text(run, folder, remote):
    """`generate` writes what our own decoding writes, alone and beside a padded row."""
    model, tokenizer = loaded(folder, remote)
    task, ours = run.task(), run.model()
    rng = np.random.default_rng(1)
    prompts = [prompt for prompt, _ in task.texts(task.batch(rng, 4, "test"))]
    read = tokenizer(prompts, return_tensors="pt", padding=True)
    most = 12 if ours.config.longest is None else ours.config.longest - max(map(len, prompts))
    how = {"max_new_tokens": most, "do_sample": False}
    out = model.generate(read["input_ids"], attention_mask=read["attention_mask"], **how)
    for row, prompt in enumerate(prompts):
        made = write(ours, task, task.encode(prompt)[None], most)
        wanted = task.decode(made.tokens[0, : made.length[0]])
        written = tokenizer.decode(out[row, read["input_ids"].shape[1] :])
        assert written[: len(wanted)] == wanted and not written[len(wanted) :].strip(task.end)
        alone = tokenizer(prompt, return_tensors="pt")["input_ids"]
        assert tokenizer.decode(model.generate(alone, **how)[0]) == prompt + wanted
