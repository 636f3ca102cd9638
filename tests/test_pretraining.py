"""The table and figure of the pretraining experiment, on a folder whose losses are known."""

import json

import pytest

from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from analysis import pretraining

STEPS, TOKENS = 4, 50


@pytest.fixture
def folder(tmp_path):
    """A writer of runs: ROLE-sSEED with a loss on all of val, and looks before."""
    text = tmp_path / "text.txt"
    text.write_text("so much to say " * 40)

    def write(*runs: tuple[str, float, int]):
        for name, nats, tokens in runs:
            settings = {"corpus": str(text), "block": "4", "steps": str(STEPS), "width": "8"}
            run = Run.create(tmp_path / "runs" / name, configure("shakespeare", settings))
            for step in (STEPS // 2, STEPS):
                look = {"step": step, "examples": step, "tokens": tokens * step // STEPS}
                run.log(look | {"seconds": 1.0, "loss": 2.0, "val_loss": nats + 1})
            row = {
                "run": name, "task": "shakespeare", "seed": 0, "params": 9, "step": STEPS,
                "examples": STEPS, "seconds": 1.0, "split": "val", "n": 60, "bits": 1.0,
                "perplexity": 2.0,
            }  # fmt: skip
            rows = [row | {"context": 0, "nats": nats}, row | {"context": 2, "nats": nats / 2}]
            (run.path / "loss.json").write_text(json.dumps(rows))
        return tmp_path / "runs"

    return write


def test_finetuning_counts_what_was_read_before_it(folder):
    runs = folder(
        ("pretrain-s0", 1.2, 100), ("finetune-s0", 1.5, 20), ("scratch-s0", 1.9, 20),
        ("pretrain-s1", 1.3, 200), ("finetune-s1", 1.7, 20), ("scratch-s1", 1.8, 20),
    )  # fmt: skip
    table = pretraining.collect(runs)
    whole = table[table["whole"]].set_index(["role", "seed"])
    assert whole["characters"].to_dict() == {
        ("pretrain", 0): 100, ("finetune", 0): 120, ("scratch", 0): 20,
        ("pretrain", 1): 200, ("finetune", 1): 220, ("scratch", 1): 20,
    }  # fmt: skip
    looks = table[(table["role"] == "finetune") & ~table["whole"]]
    assert sorted(looks["characters"]) == [110, 120, 210, 220]
    told = pretraining.describe(table)
    assert "| pretrained, then finetuned | 2 | 0.0 | 1.6000 | 1.7000 |" in told
    assert "| from scratch, as long as the finetuning | 2 | 0.0 | 1.8500 | 1.9000 |" in told
    (axis,) = pretraining.curves(table).axes
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert sorted(y for line in points for y in line.get_ydata()) == [1.5, 1.7, 1.8, 1.9]


def test_a_finetuning_without_its_pretraining_is_refused(folder):
    runs = folder(("pretrain-s0", 1.2, 100), ("finetune-s1", 1.5, 20))
    table = pretraining.collect(runs)  # the only one is meant
    assert set(table[table["role"] == "finetune"]["characters"]) == {110, 120}
    folder(("pretrain-s2", 1.2, 300))
    with pytest.raises(ValueError, match="finetune-s1 needs pretrain-s1"):
        pretraining.collect(runs)


def test_a_run_of_no_role_is_refused(folder):
    with pytest.raises(ValueError, match="run other must be named ROLE-sSEED, a role of pretrain"):
        pretraining.collect(folder(("other", 1.0, 10)))
