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
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from analysis import load, seeds
from analysis.report import data

ROOT = Path(__file__).resolve().parent.parent
BASE = json.loads((ROOT / "results/reference/add-3/config.json").read_text())


def changed(config: dict, **settings: object) -> dict:
    """The config with settings such as train_lr=1 put in."""
    config = json.loads(json.dumps(config))
    for name, value in settings.items():
        part, _, field = name.partition("_")
        config[part][field] = value
    return config


def key(config: dict) -> str:
    return recipe.key(load.flat(config))


def write(folder: Path, **configs: dict) -> Path:
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("folder", ["addgpt/pretrained/calculator", "results/reference/add-3"])
def test_a_config_names_every_setting(folder):
    """So that runs can be compared by what their files say, with nothing filled in."""
    config = json.loads((ROOT / folder / "config.json").read_text())
    now = to_dict(load_run_config(config))
    now["options"] = to_dict(load_task(config["task"], config["options"]))
    for part in ("options", "model", "train"):
        assert config[part] == json.loads(json.dumps(now[part]))


def test_seeds_go_together_in_report_and_figures_and_eval(tmp_path):
    again = BASE | {"seed": 1, "command": "another", "versions": {"torch": "9"}}
    write(tmp_path, a=BASE, b=again, other=changed(BASE, model_kv_heads=1))
    groups = {"a": ["a", "b"], "other": ["other"]}
    assert seeds.recipes(load.runs(tmp_path)) == groups
    runs, _ = data.read(tmp_path, lambda items, total, what: items)
    assert [[run.name for run in one.runs] for one in data.group(runs)] == list(groups.values())
    keys = [recipe.key_of(Run(tmp_path / name).config) for name in ("a", "b", "other")]
    assert keys[0] == keys[1] != keys[2]


def test_every_setting_but_those_of_the_machine_makes_another_recipe():
    base = key(BASE)
    for part, cls in (("model", GPTConfig), ("train", TrainConfig)):
        for field in dataclasses.fields(cls):
            other = key(changed(BASE, **{f"{part}_{field.name}": "something else"}))
            aside = f"{part}.{field.name}" in (*recipe.ASIDE, *recipe.VALIDATION)
            assert (other == base) == aside, field.name


def test_looks_count_where_they_end_the_training():
    often, stops = changed(BASE, train_eval_every=1), changed(BASE, train_stop_at=0.99)
    assert key(often) == key(BASE)
    assert key(changed(often, train_stop_at=0.99)) != key(stops)


def test_options_of_a_task_that_is_not_installed_count():
    config = BASE | {"task": "made-up", "options": {"size": 3}}
    assert key(config) != key(changed(config, options_size=4))


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_column_that_a_run_has_no_value_for_does_not_count(value):
    assert recipe.key({"task": "add", "options.pool": value}) == recipe.key({"task": "add"})
