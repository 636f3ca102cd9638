"""Inside a model: activations and interventions, ablations, probes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import addgpt
from addgpt.config.architectures import GRUConfig
from addgpt.config.errors import UsageError
from addgpt.interpret import Activations, Edit, activations, knock_out, mean, patch, run_with, zero
from addgpt.interpret.ablation import ablate
from addgpt.interpret.attribution import attribution, lens
from addgpt.interpret.patching import patch_pairs
from addgpt.interpret.probes import fitted, probe, spectrum
from addgpt.interpret.sample import Sample, hits, of_batch, sample
from addgpt.interpret.subject import Subject, subject, written
from addgpt.model.build import build
from addgpt.task import Problem
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

ADDER = str(Path(addgpt.__file__).parent / "pretrained" / "adder")
VARIANTS = [
    {},
    {"norm": "layer", "position": "learned", "tied": True},
    {"kv_heads": 1, "position": "rotary"},
    {"share": "kv", "qk_norm": False, "norm": "none"},
    {"content": False, "position": "fire"},
    {"norm_place": "after"},
    {"norm_place": "both", "activation": "geglu"},
    {"loops": 2, "inject": True},
    {"mlp_ratio": 0, "log_scale": True},
    {"prefix": True, "position": "alibi"},
]
LOCAL = [{"attention": "reads"}, {"attention": "window"}]
RELATIVE = {"level_position": ("relative", "none", "learned")}


@pytest.fixture
def toy(toy_model):
    """A model of any setting, with the task of sums in three digits."""

    def make(**settings) -> Subject:
        task = load_task("add", {"digits": 3})
        local = settings.get("attention", "full")
        if local != "full":
            settings |= RELATIVE | {"visible": task.visible(local)}
        settings = {"level_position": ("learned", "none", "learned")} | settings
        return Subject(toy_model(vocab=19, levels=task.levels, **settings), task)

    return make


def own_logits(of: Subject, work) -> np.ndarray:
    tokens, ids, prompt = work.inputs(of.model)
    with torch.inference_mode():
        return of.model(tokens, ids, prompt=prompt)[0].numpy()


@pytest.mark.parametrize("settings", VARIANTS + LOCAL, ids=str)
def test_activations_are_those_of_the_models_own_pass_to_the_bit(toy, settings):
    of = toy(**settings)
    work = written(of, "128+367", "594#")
    found = activations(of.model, "128+367", of.task, "594#")
    np.testing.assert_array_equal(found["logits"], own_logits(of, work))
    np.testing.assert_array_equal(found["logits"], own_logits(of, work))  # and no hook is left
    for depth in range(of.config.depth):
        weights = found[f"weights.{depth}"]
        value = found[f"value.{depth}"].repeat(of.config.heads // of.config.key_heads, 0)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(weights @ value, found[f"found.{depth}"], atol=1e-4)
        total = found[f"head.{depth}"].sum(0)
        np.testing.assert_allclose(total, found[f"attention.{depth}"], atol=1e-4)
    for name, array in found.items():
        assert len(found.axes(name)) == array.ndim


@pytest.mark.parametrize("settings", [{}, {"attention": "window"}], ids=str)
def test_no_key_gets_weight_that_cannot_be_seen(toy, settings):
    of = toy(**settings)
    found = activations(of.model, "128+367", of.task, "594#")
    weights = found["weights.0"]
    assert (np.triu(weights, 1) == 0).all()
    if settings:
        for place, token in enumerate(found.tokens[1:]):
            for key in np.flatnonzero(weights[0, place]):
                other = found.tokens[key]
                if token.column and other.column and key != place:
                    assert token.column - other.column in (0, 1)


@pytest.mark.parametrize("settings", [VARIANTS[0], *LOCAL], ids=str)
def test_edits_do_what_they_say(toy, settings):
    of = toy(**settings)
    ask = (of.model, "128+367")
    plain = activations(*ask, of.task, "594#")

    def edited(*edits):
        return run_with(*ask, list(edits), of.task, "594#")

    nothing = edited(zero("found.0", head=1))
    assert (nothing["found.0"][1] == 0).all()
    np.testing.assert_array_equal(nothing["found.0"][0], plain["found.0"][0])
    assert not np.allclose(nothing["logits"], plain["logits"])
    np.testing.assert_array_equal(edited(patch("found.0", plain))["logits"], plain["logits"])
    at = edited(zero("after.0", tokens=[9]))
    assert (at["after.0"][9] == 0).all() and (at["after.0"][8] != 0).all()
    average = edited(mean("mlp.0", [plain]))
    np.testing.assert_allclose(average["mlp.0"][3], plain["mlp.0"].mean(0), atol=1e-5)
    other = activations(of.model, "999+111", of.task, "0111#"[:4])
    moved = edited(patch("before.0", other))
    np.testing.assert_allclose(moved["logits"], other["logits"], atol=1e-5)


@pytest.mark.parametrize("name, each", [("mlp.0", (9, 16)), ("found.0", (2, 9, 8))])
def test_an_edit_of_many_problems_can_be_made_part_by_part(name, each):
    many = np.arange(6.0).reshape(6, *[1] * len(each)) + np.zeros(each)
    assert Edit(name, many).rows(2, 4).value.shape == (2, *each)
    for value in (many[0], many[:1], 0.0):  # the same for all
        assert Edit(name, value).rows(2, 4).value is value


@pytest.mark.parametrize("settings", [VARIANTS[0], LOCAL[1]], ids=str)
def test_a_knocked_out_key_counts_as_if_it_were_hidden(toy, settings):
    of = toy(**settings)
    plain = activations(of.model, "128+367", of.task, "594#")
    key = int(np.flatnonzero(plain["weights.0"][0, 8] > 0)[0])
    found = run_with(of.model, "128+367", [knock_out(0, 0, [key], [8])], of.task, "594#")
    before = plain["weights.0"][0, 8].copy()
    before[key] = 0
    np.testing.assert_allclose(found["weights.0"][0, 8], before / before.sum(), atol=1e-6)
    np.testing.assert_array_equal(found["weights.0"][1], plain["weights.0"][1])
    np.testing.assert_array_equal(found["weights.0"][0, 7], plain["weights.0"][0, 7])


USED = {"alphabet": "used", "used": load_task("add", {"digits": 3}).used()}


@pytest.mark.parametrize(
    "settings", [*(v for v in VARIANTS if "norm_place" not in v), USED], ids=str
)
def test_what_the_parts_add_to_the_logits_sums_to_them(toy, settings):
    of = toy(**settings)
    found = activations(of.model, "128+367", of.task, "594#")
    names, parts = attribution(of.model, found)
    assert len(names) == len(parts)
    some = list(settings.get("used", range(19)))
    np.testing.assert_allclose(parts.sum(0)[:, some], found["logits"][:, some], atol=2e-4)
    places, logits = lens(of.model, found)
    np.testing.assert_allclose(logits[-1], found["logits"], atol=2e-4)


def test_activations_survive_a_file(tmp_path):
    found = activations(ADDER, "128+367")
    found.save(tmp_path / "a.npz")
    again = Activations.load(tmp_path / "a.npz")
    assert again.tokens == found.tokens and list(again) == list(found)
    assert all((again[name] == found[name]).all() for name in found)


def test_a_damaged_file_is_one_line(tmp_path):
    whole = tmp_path / "a.npz"
    activations(ADDER, "1+2").save(whole)
    content = whole.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 255
    for damaged in (b"", b"nothing", content[: len(content) // 2], bytes(flipped)):
        whole.write_bytes(damaged)
        with pytest.raises(UsageError, match="does not hold activations"):
            Activations.load(whole)
    about = np.array('{"tokens": [], "alphabet": ""}')
    for arrays in ({"about": np.array({"x": 1}, object)}, {"about": about, "mine.0": about}, {}):
        np.savez(whole, **arrays)
        with pytest.raises(UsageError, match="does not hold activations"):
            Activations.load(whole)
    with pytest.raises(UsageError, match="No such file"):
        Activations.load(tmp_path / "none.npz")


@pytest.mark.parametrize("problem", ["9" * 30 + "*" + "8" * 30, "9" * 1000 + "+" + "1" * 1000])
def test_work_that_is_too_long_is_refused_and_not_cut(problem):
    with pytest.raises(UsageError, match=r"[23],\d+ tokens: at most 2,000 can be inspected"):
        activations("calculator", problem)


def test_what_is_no_problem_is_quoted_in_a_short_line():
    with pytest.raises(UsageError, match="9…1.* is not a problem like 12.34") as error:
        activations(ADDER, "9" * 9000 + "+" + "1" * 9000)
    assert len(str(error.value)) < 120


def test_errors_name_what_is_valid(toy):
    found = activations(ADDER, "1+2")
    with pytest.raises(UsageError, match="unknown activation 'query'; valid: before.0, query.0"):
        found["query"]
    with pytest.raises(UsageError, match="unknown activation 'found.7'"):
        run_with(ADDER, "1+2", [zero("found.7")])
    with pytest.raises(UsageError, match="heads 0 to 1, not 2"):
        run_with(ADDER, "1+2", [zero("found.0", head=2)])
    with pytest.raises(UsageError, match="can only be read"):
        run_with(ADDER, "1+2", [zero("mid.0")])
    with pytest.raises(UsageError, match="head.0 can only be read; edit found.D"):
        run_with(ADDER, "1+2", [zero("head.0", head=0)])
    for edits in (zero("found.0"), ["found.0"]):
        with pytest.raises(UsageError, match="edits must be a list"):
            run_with(ADDER, "1+2", edits)
    with pytest.raises(UsageError, match="not of task modular"):
        activations(ADDER, "1+2", load_task("modular", {}))
    with pytest.raises(UsageError, match="or a Problem, not 3"):
        activations(ADDER, 3)
    with pytest.raises(UsageError, match=re.escape("12+34")):
        activations(ADDER, "12*34")
    with pytest.raises(UsageError, match="as many tokens"):
        run_with(ADDER, "1+2", [patch("found.0", activations(ADDER, "128+367"))])
    with pytest.raises(UsageError, match="tokens must be in 0"):
        run_with(ADDER, "1+2", [zero("found.0", tokens=[99])])
    gru = build(GRUConfig(vocab=19, context=40, levels=(9, 1, 25), width=8))
    with pytest.raises(UsageError, match="gru has no attention"):
        activations(gru, "1+2", load_task("add", {"digits": 3}))
    with pytest.raises(UsageError, match="give its task"):
        activations(toy().model, "1+2")


# Measures of whole models.


@pytest.fixture(scope="module")
def adder() -> Subject:
    return subject(ADDER)


def test_ablation_counts_what_a_model_with_weights_of_zero_gets_right(adder):
    some = sample(adder, 60, seed=3)
    rows = ablate(adder, some)
    whole = {(r["part"], r["how"], r["at"]): r["right"] for r in rows if r["row"] == "all"}
    assert whole["none", "none", "all"] == 60
    again = subject(ADDER)
    size = again.config.width // again.config.heads
    with torch.no_grad():
        again.model.blocks[0].attention.out.weight[:, :size] = 0  # what head 0 writes
    assert whole["head 0.0", "zero", "all"] == ablate(again, some)[0]["right"] < 60
    digits = [r for r in rows if r["part"] == "none" and r["row"] != "all"]
    assert sum(r["n"] for r in digits) == some.scored.sum()


def test_ablation_by_cascades_asks_each_class_and_counts_what_is_right(adder):
    from addgpt.interpret.ablation import ablate_cascades

    rows = ablate_cascades(adder, 20)
    found = {(row["part"], row["how"], row["cell"]): row for row in rows}
    assert [row["cell"] for row in rows if row["part"] == "none"] == [
        *(f"+ carry:{k}" for k in range(4)), *(f"+ idle:{k}" for k in (1, 2, 3))
    ]  # fmt: skip
    assert all(row["n"] == row["right"] for row in rows if row["part"] == "none")
    carries = [found["head 0.0", "mean", f"+ carry:{k}"] for k in (0, 3)]  # its carry head
    assert carries[1]["right"] < carries[0]["right"] <= carries[0]["n"]
    with pytest.raises(UsageError, match="no cells of carry chains; try add, sub, calc"):
        ablate_cascades(Subject(adder.model, load_task("mul", {"digits": 2})), 20)


def test_ablation_in_one_row_is_the_same_with_and_without_the_short_cut(toy):
    of = toy(layers=1, attention="window")
    some = sample(of, 30)
    kinds = some.rows()
    from addgpt.interpret.ablation import Part, hits_of

    part = Part("head 0.0", "found.0", 0)
    everywhere, as_is = hits_of(of, some, part), hits_of(of, some)
    for kind in kinds:
        there = hits_of(of, some, part, None, kind)
        np.testing.assert_array_equal(there, np.where(some.kinds == kind, everywhere, as_is))


def test_mean_ablation_puts_means_into_the_rows_of_prompts_too(toy, monkeypatch):
    """Of one problem the mean of a row of one token is what stands there: nothing changes."""
    from addgpt.interpret import ablation

    of, changed = toy(layers=2), []
    kept = activations(of.model, "128+367", of.task, "594#")

    def look(of: Subject, some: Sample, edits=()) -> np.ndarray:
        changed.extend(edit for edit in edits if edit.name == "mlp.0" and edit.tokens is None)
        return hits(of, some, edits)

    monkeypatch.setattr(ablation, "hits", look)
    batch = of.task.reference(of.task.encode("128+367=")[None])
    ablate(of, of_batch(of, batch))
    mean_one = changed[1].value[0]  # the first puts zeros
    alone = [k for k, t in enumerate(kept.tokens[1:]) if t.kind == "operator"]
    assert len(alone) == 1
    np.testing.assert_allclose(mean_one[alone], kept["mlp.0"][alone], atol=1e-6)


@pytest.mark.parametrize("op, digits", [("+", 3), ("-", 4)])
def test_pairs_differ_in_one_digit_and_one_carry(op, digits):
    task = load_task("calc", {"digits": 3, "sum_digits": digits})
    name = "carry" if op == "+" else "borrow"
    for first, second, column in task.pairs(np.random.default_rng(0), 20, op):
        (a, b), (c, d) = first.operands, second.operands
        assert a == c and sum(x != y for x, y in zip(str(b), str(d), strict=True)) == 1

        def into(problem: Problem) -> list[int]:
            """Carries by adding up digits, one after the other."""
            x, y = (str(n).zfill(digits)[::-1] for n in problem.operands)
            found, now = [], 0
            for i, j in zip(x, y, strict=True):
                found.append(now)
                total = int(i) + int(j) + now if op == "+" else int(i) - int(j) - now
                now = int(total > 9 or total < 0)
            return [*found, now]

        one, two = into(first), into(second)
        assert [k + 1 for k in range(digits + 1) if one[k] != two[k]] == [column]
        assert two[column - 1] == 1
        assert two == [task.column_fact(name, second, k + 1) for k in range(digits + 1)]


def test_patching_everything_brings_the_carry_and_nothing_brings_none(adder):
    rows = {row["part"]: row for row in patch_pairs(adder, 60)}
    assert rows["mlp 0"]["carried"] == rows["mlp 0"]["n"] == 60  # all that differs goes through it
    assert all(row["carried"] + row["kept"] + row["other"] == 60 for row in rows.values())


def test_probes_find_what_is_there_and_nothing_else(adder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5)).astype(np.float32)
    labels = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
    assert (fitted(x[:300], labels[:300], 4)(x[300:]) == labels[300:]).mean() > 0.9
    rows = {row["place"]: row for row in probe(adder, sample(adder, 300), "carry")}
    assert rows["mid.0"]["accuracy"] > 0.98 > 0.8 > rows["mid.0"]["control"]
    with pytest.raises(UsageError, match="unknown probe 'tens'; valid: carry, borrow, sum"):
        probe(adder, sample(adder, 20), "tens")


def test_a_probe_is_not_scored_on_a_problem_that_trained_it(toy, monkeypatch):
    from addgpt.interpret import probes

    of = toy()  # all of a problem is seen, so that no two look alike
    some = sample(of, 200)
    again = of_batch(of, some.batch.rows(np.repeat(np.arange(len(some.tokens)), 2)))
    halves = []

    def look(train: tuple, test: tuple) -> dict:
        halves.append([set(map(bytes, part[0])) for part in (train, test)])
        return {}

    monkeypatch.setattr(probes, "_scores", look)
    probe(of, again, "carry")
    train, test = halves[-1]
    assert train and test and not train & test


def test_sums_of_many_numbers_are_probed_where_there_are_two(toy_model):
    task = load_task("sum", {"digits": 3})
    with pytest.raises(UsageError, match="of two numbers, not 3"):
        task.column_fact("carry", Problem("+", (1, 2, 3)), 1)
    model = toy_model(vocab=len(task.alphabet), levels=task.levels)
    of = Subject(model, task)
    assert {row["row"] for row in probe(of, sample(of, 400), "carry")} <= set(
        task.row_names().values()
    )


def test_the_spectrum_of_a_wave_has_one_frequency(toy):
    model = toy(tied=True).model
    with torch.no_grad():
        model.token.weight.normal_()
        model.token.weight[:10, :] = 1.0
        model.token.weight[:10, 3] = torch.cos(2 * torch.pi * 3 * torch.arange(10) / 10)
    shares = {row["frequency"]: row["share"] for row in spectrum(model)}
    assert shares[3] == pytest.approx(1, abs=1e-5)
    model.token.weight.data.normal_()
    assert sum(row["share"] for row in spectrum(model)) == pytest.approx(1)
