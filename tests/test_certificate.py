"""Certificates: they hold where they should, and each way for one to fail makes it fail."""

import dataclasses
import hashlib
import io
import json
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.certify import command, summary, verdict
from addgpt.config.errors import UsageError
from addgpt.config.gpt import NO_PLACE
from addgpt.evaluation import certificate
from addgpt.evaluation.certificate import list_contexts, margin, prove
from addgpt.evaluation.certify import certify
from addgpt.evaluation.check_certificate import check
from addgpt.evaluation.exact_match import score
from addgpt.generation.decode import write
from addgpt.locality import LocalTrace
from addgpt.model.gpt import GPT
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run, RunError
from addgpt.task import Cell
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from addgpt.training.preflight import check_trainable
from tasks.add import Add

pytestmark = pytest.mark.slow

SMALL = {
    "digits": "3", "trace": "carry", "attention": "reads", "width": "32", "batch_size": "64",
    "steps": "600", "eval_every": "600", "eval_size": "50", "threads": "1", "device": "cpu",
    "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """An adder that was trained until certified."""
    settings = SMALL | {"until_certified": "true", "steps": "400", "eval_every": "400"}
    run = Run.create(tmp_path_factory.mktemp("certified") / "run", configure("add", settings))
    train(run)
    assert certify(run)["proved"]
    return run


@pytest.fixture
def certified(original, tmp_path):
    """A copy of it, to be spoiled."""
    return Run(shutil.copytree(original.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """The same, stopped early."""
    out = tmp_path_factory.mktemp("unfinished") / "run"
    run = Run.create(out, configure("add", SMALL | {"steps": "120"}))
    train(run)
    return run


def test_a_certificate_says_what_was_proved(original):
    found = json.loads((original.path / "certificate.json").read_text())
    assert found["proved"] and not found["wrong"] and not found["failures"]
    assert found["contexts"] == 684 == sum(row["contexts"] for row in found["rows"].values())
    assert found["margin"] > 0.5 > found["float32"]["bound"] > found["float64"]["bound"] > 0
    assert found["tried"]["slots"] > 1500 and not found["tried"]["unlisted"]
    assert (
        found["weights"]
        == hashlib.sha256((original.path / "model.safetensors").read_bytes()).hexdigest()
    )
    done = CliRunner().invoke(command, [str(original.path)])
    assert done.exit_code == 0
    assert "right for every sum of any length: 684 contexts" in done.stdout
    done = CliRunner().invoke(command, [str(original.path), "--json"])
    assert json.loads(done.stdout)["proved"] and done.stderr == ""


def test_what_is_proved_is_right_at_lengths_never_trained_on(original):
    model, task = original.model(), original.task()
    for a, b, size in ((1000, 1000, 2), (1, 400, 3), (57, 3, 50), (3, 3, 500)):
        batch = task.batch(np.random.default_rng(0), size, "test", Cell("+", a, b))
        assert score(model, task, batch, fast=False).trace_correct.all()


def test_a_model_stopped_early_is_not_proved_and_its_failures_can_be_typed(unfinished):
    done = CliRunner().invoke(command, [str(unfinished.path)])
    assert done.exit_code == 1 and "not proved" in done.stdout
    found = json.loads((unfinished.path / "certificate.json").read_text())
    assert 0 < found["wrong"] < 684 and not found["proved"] and found["margin"] < 0
    task = unfinished.task()
    assert len(found["failures"]) > 3 and all(some["margin"] <= 0 for some in found["failures"])
    typed = [some["problem"] for some in found["failures"] if some["problem"]]
    assert len(typed) > 3
    model = unfinished.model()
    for text in typed:
        prompt = task.encode(task.prompt(task.parse(text)))[None]
        right = task.reference(prompt).tokens[0, prompt.shape[1] :]
        wrote = write(model, task, prompt, len(right)).tokens[0, : len(right)]
        assert task.decode(wrote) != task.decode(right)
        assert f"try {text}" in done.stdout
    with pytest.raises(ValueError, match="the smallest margin is -"):
        check(unfinished.path)


def spoil(run, change):
    """Change the weights of a run, as a training would."""
    model, (_, progress) = run.model(), run.load()
    with torch.no_grad():
        change(dict(model.named_parameters()))
    run.save(model, {}, progress)


def double_one(weights):
    weights["head.weight"].flatten()[40] += 30


def test_one_spoiled_weight_is_found(certified):
    spoil(certified, double_one)
    found = certify(certified)
    assert found["wrong"] and not found["proved"]
    with pytest.raises(ValueError, match="the smallest margin is -"):
        check(certified.path)


def test_a_weight_that_is_no_number_is_found(certified):
    spoil(certified, lambda weights: weights["head.weight"].fill_(float("nan")))
    assert not certify(certified)["proved"]


def test_other_weights_than_those_certified_are_refused(certified):
    check(certified.path)
    spoil(certified, lambda weights: weights["head.weight"].flatten()[0].add_(1e-6))
    with pytest.raises(ValueError, match=r"the certificate is of another model\.safetensors"):
        check(certified.path)


def forge(run, change):
    """Change the listed contexts and what the certificate says of the file."""
    arrays = dict(np.load(run.path / "certificate.npz"))
    told = json.loads((run.path / "certificate.json").read_text())
    change(arrays, told)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    (run.path / "certificate.npz").write_bytes(packed.getvalue())
    told["listed"] = hashlib.sha256(packed.getvalue()).hexdigest()
    (run.path / "certificate.json").write_text(json.dumps(told))


VOCAB, KINDS = 19, 25  # of task add


def remove_one(arrays, told):
    for name in ("0.tokens", "0.right"):
        arrays[name] = arrays[name][1:]


def remove_a_token(arrays, told):
    """All contexts after a 7 just written, and the count put right."""
    for group in range(told["groups"]):
        keep = arrays[f"{group}.tokens"][:, -1] != 7
        told["contexts"] -= int((~keep).sum())
        for name in (f"{group}.tokens", f"{group}.right"):
            arrays[name] = arrays[name][keep]


def repeat_one(arrays, told):
    for name in ("0.tokens", "0.right"):
        arrays[name] = np.concatenate([arrays[name], arrays[name][:1]])
    told["contexts"] += 1


def repeat_one_by_another_number(arrays, told):
    """-1 stands for the last token, too: the same context under another name."""
    repeat_one(arrays, told)
    arrays["0.tokens"] = arrays["0.tokens"].astype(int)
    arrays["0.tokens"][-1, 0] -= VOCAB


def count_kinds_from_the_end(arrays, told):
    for name in ("0.ids", "0.after"):
        arrays[name] = arrays[name].astype(int)
        arrays[name][..., -1] -= KINDS


def alter_a_right_token(arrays, told):
    arrays["0.right"][3] ^= 1


@pytest.mark.parametrize(
    "change, reason",
    [
        (remove_one, "683 different contexts are listed, not 684"),
        (remove_a_token, "tokens written in some rows are not the tokens that contexts see"),
        (repeat_one, "684 different contexts are listed, not 685"),
        (repeat_one_by_another_number, "listed are not known"),
        (count_kinds_from_the_end, "listed are not known"),
        (alter_a_right_token, "the smallest margin is -"),
    ],
)
def test_a_forged_list_of_contexts_is_refused(certified, change, reason):
    forge(certified, change)
    with pytest.raises(ValueError, match=reason):
        check(certified.path)


def test_prompts_may_end_with_tokens_that_are_written_too(certified):
    def end_with_any_digit(arrays, told):
        told["begins"] = [[kind, digit] for kind in range(KINDS) for digit in range(10)]

    forge(certified, end_with_any_digit)
    check(certified.path)


def test_the_checker_says_in_one_line_what_it_cannot_read(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["check_certificate.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="^not accepted: FileNotFoundError: ") as left:
        runpy.run_path(check.__code__.co_filename, run_name="__main__")
    assert "\n" not in str(left.value)


def test_a_list_of_another_certificate_is_refused(certified):
    forge(certified, lambda arrays, told: None)
    check(certified.path)
    with open(certified.path / "certificate.npz", "ab") as file:
        file.write(b"0")
    with pytest.raises(ValueError, match=r"the certificate is of another certificate\.npz"):
        check(certified.path)


@pytest.mark.parametrize("name, value", [
    ("layers", 2), ("position", "rotary"), ("attention", "full"), ("next_ids", False),
    ("norm", "layer"), ("activation", "silu"), ("level_position", ["learned", "none", "learned"]),
    ("level_position", ["relative", "none", "rotary"]),
])  # fmt: skip
def test_the_checker_refuses_models_it_does_not_know(certified, name, value):
    config = json.loads((certified.path / "config.json").read_text())
    config["model"][name] = value
    (certified.path / "config.json").write_text(json.dumps(config))
    told = json.loads((certified.path / "certificate.json").read_text())
    model = json.dumps(config["model"], sort_keys=True).encode()
    told["model"] = hashlib.sha256(model).hexdigest()
    (certified.path / "certificate.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="this checker does not know"):
        check(certified.path)


def test_a_certificate_is_of_what_a_slot_sees_too(certified):
    certify(certified)
    assert Run(certified.path).proved()
    config = json.loads((certified.path / "config.json").read_text())
    config["model"]["visible"] = [[0, 1, 2, NO_PLACE], *config["model"]["visible"][1:]]
    (certified.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="of a model with other settings"):
        check(certified.path)
    (certified.path / "SHA256SUMS").unlink()  # or the run is refused as damaged
    assert not Run(certified.path).proved()


def test_a_certificate_of_another_task_proves_nothing(certified):
    assert certified.proved()
    certified.config = dataclasses.replace(certified.config, task="sub")
    assert not certified.proved()


def test_a_run_of_a_version_with_fewer_settings_is_certified(certified):
    config = json.loads((certified.path / "config.json").read_text())
    for name in ("arc", "alphabet", "used", "biases"):
        del config["model"][name]
    (certified.path / "config.json").write_text(json.dumps(config))
    (certified.path / "SHA256SUMS").unlink()
    run = Run(certified.path)
    assert certify(run)["proved"] and run.proved()


def test_where_the_checker_disagrees_nothing_is_proved(certified, monkeypatch):
    def disagree(folder):
        raise ValueError("no")

    monkeypatch.setattr("addgpt.evaluation.certify.check", disagree)
    with pytest.raises(RunError, match="the independent checker does not agree: no"):
        certify(certified)
    assert not json.loads((certified.path / "certificate.json").read_text())["proved"]


def test_a_model_that_is_swayed_by_what_it_should_not_see_is_not_proved(certified, monkeypatch):
    """A mask that only biases lets a little of all tokens through."""
    forward = GPT.forward

    def leaking(self, tokens, ids, **more):
        found = forward(self, tokens, ids, **more)
        ramp = torch.linspace(0, 1e-2, found.shape[-1])
        return found + ramp * tokens.float().mean(1)[:, None, None]

    monkeypatch.setattr(GPT, "forward", leaking)
    found = certify(certified)
    assert not found["wrong"] and not found["tried"]["unlisted"] and not found["proved"]
    assert "not proved: logits change by" in verdict(found)


def test_margins_that_rounding_can_take_are_no_proof(certified):
    """Logits so close together that float32 does not tell which is the highest."""
    spoil(certified, lambda weights: weights["head.weight"].mul_(1e-3))
    flat = certify(certified)
    assert flat["proved"]  # all of it shrinks, rounding as well

    def lifted(weights):
        """The same logits, from an embedding whose sums lose their last digits."""
        weights["blocks.0.mlp.down.weight"].mul_(1e-7)

    spoil(certified, lifted)
    assert not certify(certified)["proved"]


def test_a_rule_that_is_wrong_is_found(certified, monkeypatch):
    """The rules say what is right: where one differs from the trace, random problems show it."""
    rules = Add.rules

    def wrong(self):
        found = rules(self)
        kind, rule = next(iter(found.items()))

        def token(a, b, carry):
            right = np.asarray(rule.token(a, b, carry))
            if a is None or b is None:
                return right
            return np.where((a == 9) & (b == 9), (right + 1) % 10, right)

        return found | {kind: rule.__class__(rule.reads, token)}

    monkeypatch.setattr(Add, "rules", wrong)
    found = certify(certified)
    assert found["tried"]["unlisted"] > 0 and not found["proved"]
    assert "the rules of the trace are wrong" in summary(found)


@pytest.mark.parametrize("windows, reason", [
    (((), (0, 1 << 15), ()), "operands of 12 digits still bring new layouts"),
    (((-2, -1, 0, 1, 2, 1 << 15), (0, 1 << 15), ()), "too many tokens to list all contexts"),
])  # fmt: skip
def test_a_window_too_wide_is_refused(monkeypatch, windows, reason):
    monkeypatch.setattr(LocalTrace, "windows", lambda self: windows)
    monkeypatch.setattr("addgpt.evaluation.contexts.MAX_CONTEXTS", 100_000)
    config = configure("add", {"attention": "window"})
    with pytest.raises(UsageError, match=reason):
        list_contexts(load_task("add", {}), config.model)


def test_a_model_that_cannot_tell_two_slots_apart_is_refused(monkeypatch):
    """Where the same is seen, the same must be right."""
    config = configure("add", {"attention": "window"})
    monkeypatch.setattr("addgpt.evaluation.contexts.NEAR", 0)  # no column is nearer than another
    monkeypatch.setattr(certificate, "LARGEST", 3)
    with pytest.raises(UsageError, match="different tokens are right|still bring new layouts"):
        list_contexts(load_task("add", {}), config.model)


@pytest.mark.parametrize("task, settings, reason", [
    ("add", {"attention": "full"}, "attention=full sees all of a text"),
    ("add", {"layers": "2"}, "2 blocks see further than one"),
    ("add", {"loops": "2"}, "2 blocks see further than one"),
    ("add", {"position": "learned"}, "position=learned depends on the index in the text"),
    ("add", {"level_position": "learned,none,learned"}, "level_position=learned on level 1"),
    ("add", {"level_position": "relative,none,rotary"}, "level_position=rotary on level 3"),
    ("add", {"next_ids": "false"}, "needs next_ids=true, not false"),
    ("add", {"norm": "layer"}, "needs norm=rms or plain or none, not layer"),
    ("add", {"activation": "silu"}, "needs activation=geglu or relu2, not silu"),
    ("mul", {"trace": "rows", "attention": "full"}, "attention=full sees all"),
])  # fmt: skip
def test_what_cannot_be_certified_is_refused_before_training(task, settings, reason):
    usual = {} if "attention" in settings else {"attention": "window"}
    config = configure(task, usual | settings | {"until_certified": "true"})
    with pytest.raises(UsageError, match=reason) as error:
        check_trainable(config)
    assert "\n" not in str(error.value)


def test_a_context_alone_gives_the_logits_of_a_long_problem(original):
    """What the slots between show nothing of: `spaced` is as good as the text."""
    model, task = original.model(), original.task()
    proof = prove(model, task)
    other = prove(model, task, list_contexts(task, model.config))
    for one, two in zip(proof.judged, other.judged, strict=True):
        for example in one.examples[1:]:
            assert np.abs(margin(model, example, one.tokens, one.right) - two.margin).max() < 1e-5


def test_what_a_slot_sees_too_little_for_is_one_line():
    config = configure("mul", {"digits": "2", "attention": "window", "width": "16"})
    with pytest.raises(UsageError, match="tens: slots see too little of what it is made of"):
        list_contexts(load_task("mul", config.options), config.model)
