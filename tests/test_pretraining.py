"""The table and figure of the pretraining experiment, on a folder whose losses are known."""

import json
from dataclasses import replace

import pytest

from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from analysis.studies import pretraining

STEPS, TOKENS = 4, 50


@pytest.fixture
def folder(tmp_path):
    """A writer of runs: name, loss on all of val, tokens, steps, and what it was started from."""
    text = tmp_path / "text.txt"
    text.write_text("so much to say " * 40)

    def write(*runs: tuple):
        for name, nats, tokens, steps, source in runs:
            settings = {"corpus": str(text), "block": "4", "steps": str(steps), "width": "8"}
            config = configure("shakespeare", settings, int(name[-1]))
            config = replace(config, command=f"addgpt train{source and ' --init-from ' + source}")
            run = Run.create(tmp_path / "runs" / name, config)
            for step in (STEPS // 2, STEPS):
                look = {"step": step, "examples": step, "tokens": tokens * step // STEPS}
                run.log(look | {"seconds": 1.0, "loss": 2.0, "val_loss": nats + 1})
            row = {
                "run": name, "task": "shakespeare", "seed": int(name[-1]), "params": 9,
                "step": STEPS, "examples": STEPS, "seconds": 1.0, "split": "val", "n": 60,
                "bits": 1.0, "perplexity": 2.0,
            }  # fmt: skip
            rows = [row | {"context": 0, "nats": nats}, row | {"context": 2, "nats": nats / 2}]
            (run.path / "loss.json").write_text(json.dumps(rows))
        return tmp_path / "runs"

    return write


def test_finetuning_counts_what_was_read_before_it(folder):
    runs = folder(
        ("a0", 1.2, 100, 9, ""), ("b0", 1.5, 20, STEPS, "runs/a0"), ("c0", 1.9, 20, STEPS, ""),
        ("a1", 1.3, 200, 9, ""), ("b1", 1.7, 20, STEPS, "runs/a1"), ("c1", 1.8, 20, STEPS, ""),
        ("d0", 1.4, 40, 2 * STEPS, ""),
    )  # fmt: skip
    table = pretraining.collect(runs)
    whole = table[table["whole"]].set_index(["role", "seed"])
    assert whole["characters"].to_dict() == {
        ("pretrain", 0): 100, ("finetune", 0): 120, ("scratch", 0): 20,
        ("pretrain", 1): 200, ("finetune", 1): 220, ("scratch", 1): 20, ("long", 0): 40,
    }  # fmt: skip
    passes = table[(table["role"] == "finetune") & ~table["whole"]]
    assert sorted(passes["characters"]) == [110, 120, 210, 220]
    told = pretraining.describe(table)
    assert "| pretrained, then finetuned | 2 | 0.0 | 1.6000 | 1.7000 |" in told
    assert "| from scratch, as long as the finetuning | 2 | 0.0 | 1.8500 | 1.9000 |" in told
    (axis,) = pretraining.draw(table).axes
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert sorted(y for line in points for y in line.get_ydata()) == [1.4, 1.5, 1.7, 1.8, 1.9]


def test_several_may_start_from_one_and_none_from_what_is_not_there(folder):
    runs = folder(("a0", 1.2, 100, 9, ""), ("b1", 1.5, 20, STEPS, "a0"))
    table = pretraining.collect(runs)
    assert set(table[table["role"] == "finetune"]["characters"]) == {110, 120}
    folder(("b2", 1.2, 20, STEPS, "elsewhere/a2"))
    with pytest.raises(ValueError, match="run b2 needs a2, from which it was started"):
        pretraining.collect(runs)


def test_runs_of_which_none_goes_on_are_refused(folder):
    with pytest.raises(ValueError, match="no run in .* was started from another one"):
        pretraining.collect(folder(("a0", 1.0, 10, STEPS, "")))
