"""Which runs repeat one another: one rule for the report and for the figures of seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from addgpt.config.architectures import GPTConfig
from addgpt.config.schema import TrainConfig, load_run_config
from addgpt.config.settings import to_dict
from addgpt.runs import recipe
from addgpt.task import load_task
from analysis import load, seeds
from analysis.report import data

ROOT = Path(__file__).resolve().parent.parent
LATER = {
    "model": ("architecture", "kv_heads", "loops", "embed_rank"),
    "options": ("ids", "pool", "hints"),
}


def old() -> dict:
    """The reference run's config, as a version without the settings in LATER would have it."""
    config = json.loads((ROOT / "results/reference/add-3/config.json").read_text())
    for part, names in LATER.items():
        for name in names:
            del config[part][name]
    return config


OLD = old()


def as_now() -> dict:
    """The reference run's config, as this version would write it."""
    config = to_dict(load_run_config(OLD))
    config["options"] = to_dict(load_task("add", OLD["options"]))
    return json.loads(json.dumps(config))


def changed(config: dict, **settings: object) -> dict:
    """The config with settings such as train_lr=1 put in."""
    config = json.loads(json.dumps(config))
    for name, value in settings.items():
        part, _, field = name.partition("_")
        config[part][field] = value
    return config


def key(config: dict) -> str:
    return recipe.key(load.flat(recipe.complete(config)))


def write(folder: Path, **configs: dict) -> Path:
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


def test_what_a_config_leaves_out_is_filled_in_as_the_loader_does():
    now = as_now()
    whole = recipe.complete(OLD)
    for part in ("options", "model", "train"):
        assert whole[part] == now[part]
    assert key(OLD) == key(now)


def test_seeds_of_two_versions_go_together_in_report_and_figures(tmp_path):
    new = as_now() | {"seed": 1, "command": "another", "versions": {"torch": "9"}}
    write(tmp_path, old=OLD, new=new, other=changed(new, model_kv_heads=1))
    groups = {"new": ["new", "old"], "other": ["other"]}
    assert seeds.recipes(load.runs(tmp_path)) == groups
    runs, _ = data.read(tmp_path, lambda items, total, what: items)
    assert [[run.name for run in one.runs] for one in data.group(runs)] == list(groups.values())


def test_every_setting_but_those_of_the_machine_makes_another_recipe():
    base = key(OLD)
    for part, cls in (("model", GPTConfig), ("train", TrainConfig)):
        for field in dataclasses.fields(cls):
            other = key(changed(OLD, **{f"{part}_{field.name}": "something else"}))
            aside = f"{part}.{field.name}" in (*recipe.ASIDE, *recipe.VALIDATION)
            assert (other == base) == aside, field.name


def test_looks_count_where_they_end_the_training():
    often, stops = changed(OLD, train_eval_every=1), changed(OLD, train_stop_at=0.99)
    assert key(often) == key(OLD)
    assert key(changed(often, train_stop_at=0.99)) != key(stops)


def test_a_task_that_is_not_installed_keeps_its_options():
    config = OLD | {"task": "made-up", "options": {"size": 3}}
    assert recipe.complete(config)["options"] == {"size": 3}
    assert key(config) != key(changed(config, options_size=4))


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_column_that_a_run_has_no_value_for_does_not_count(value):
    assert recipe.key({"task": "add", "options.pool": value}) == recipe.key({"task": "add"})
