"""Settings: strict to and from plain dicts and text."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.config.architectures import GPTConfig, model_settings
from addgpt.config.errors import HOME, UsageError
from addgpt.config.schema import FORMAT, RunConfig, TrainConfig, load_run_config
from addgpt.config.settings import (
    ELSEWHERE,
    check_settings,
    from_dict,
    names_of,
    parse,
    setting,
    to_dict,
    with_settings,
)
from addgpt.device import pick_device
from addgpt.model.build import build
from addgpt.model.gpt import ACTIVATIONS, NORMS
from addgpt.runs.resolve import configure, parse_pairs, reconfigure
from addgpt.task_lookup import load_task, task_class, task_names
from addgpt.training import optim

CLASSES = (GPTConfig, TrainConfig)


def choices(cls, name: str) -> tuple[str, ...]:
    return next(f for f in dataclasses.fields(cls) if f.name == name).metadata["choices"]


@pytest.mark.parametrize("task", ["add", "sub", "mul", "div", "calc"])
def test_a_config_survives_json(task):
    config = configure(task, {"lr": "0.5"}, 3, "addgpt train", {"torch": "2"})
    text = json.dumps(to_dict(config))
    again = load_run_config(json.loads(text))
    assert (again.model, again.train, again.seed) == (config.model, config.train, config.seed)
    assert json.dumps(to_dict(again)) == text
    assert load_task(again.task, again.options) == load_task(config.task, config.options)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_is_documented(cls):
    assert all(len(field.metadata["help"]) > 4 for field in dataclasses.fields(cls))


@pytest.mark.parametrize("cls", CLASSES)
def test_configs_are_frozen(cls):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().steps = 1


@pytest.mark.parametrize(
    ("cls", "name", "built"),
    [
        (GPTConfig, "activation", ACTIVATIONS),
        (GPTConfig, "norm", NORMS),
        (TrainConfig, "schedule", optim.SCHEDULES),
    ],
)
def test_choices_are_what_is_built(cls, name, built):
    assert set(choices(cls, name)) == set(built)


@pytest.mark.parametrize("position", choices(GPTConfig, "position"))
@pytest.mark.parametrize("level", choices(GPTConfig, "level_position"))
def test_every_position_scheme_can_be_built(position, level):
    config = GPTConfig(9, 9, (4, 4), position=position, level_position=(level, "none"))
    assert build(config).parameter_count() > 0


@pytest.mark.parametrize("name", [*choices(TrainConfig, "device"), "cpu"])
def test_a_device_is_found_or_its_absence_is_said(name):
    try:
        assert pick_device(name).type == name or name == "auto"
    except ValueError as error:
        assert f"this machine has no {name}; use --set device=auto" == str(error)


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (GPTConfig, {"wide": 3}, "unknown key 'wide'; valid keys: activation, "),
        (GPTConfig, {"width": 2.0}, "^width must be a whole number, not 2.0"),
        (GPTConfig, {"width": None}, "^width must be a whole number, not None"),
        (GPTConfig, {"tied": 1}, "^tied must be true or false, not 1"),
        (GPTConfig, {"levels": 3}, "^levels must be a list"),
        (GPTConfig, {"levels": [3, "4"]}, "^levels must be a whole number, not '4'"),
        (GPTConfig, {"norm": "b"}, "norm must be one of rms, layer, plain, none, not 'b'"),
        (GPTConfig, {"dropout": math.nan}, r"dropout must be in \[0, 1\)"),
        (TrainConfig, {"lr": math.nan}, "lr must be at least 0, not nan"),
        (TrainConfig, {"lr": True}, "^lr must be a number, not True"),
        (TrainConfig, {"lr": "1"}, "^lr must be a number, not '1'"),
        (TrainConfig, {"stop_at": 1.5}, r"stop_at must be in \[0, 1\], not 1.5"),
        (TrainConfig, {"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, not 'tpu'"),
        (TrainConfig, {"optimizer": "sgd"}, "optimizer must be one of muon, adamw, not 'sgd'"),
        (TrainConfig, {"batch_size": -1}, r"batch_size must be in 1\.\.1048576, not -1"),
        (TrainConfig, [], r"^this must be a table of settings, not \[\]"),
        (RunConfig, {"task": "add"}, "^options is missing"),
    ],
)
def test_what_is_wrong_in_a_dict_is_named(cls, data, message):
    with pytest.raises(ValueError, match=message):
        from_dict(cls, data)


@pytest.mark.parametrize("found", [0, FORMAT + 1, None, "1"])
def test_a_config_of_another_format_is_refused(found):
    config = to_dict(configure("add", {})) | {"format": found}
    with pytest.raises(ValueError, match=f"format {found!r} by another version.* reads {FORMAT}"):
        load_run_config(config)


def test_whole_numbers_do_for_fractions_in_json():
    assert from_dict(TrainConfig, {"lr": 1, "stop_at": 0}).lr == 1


@given(
    st.one_of(
        st.tuples(st.just(int), st.integers()),
        st.tuples(st.just(float), st.floats(allow_nan=False)),
        st.tuples(st.just(bool), st.booleans()),
        st.tuples(st.just(str), st.text()),
    )
)
def test_text_is_parsed_by_type(case):
    hint, value = case
    assert parse("key", hint, str(value)) == value


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (bool, "yes", True),
        (bool, "0", False),
        (bool, "True", True),
        (tuple[int, ...], "1,2,3", (1, 2, 3)),
        (tuple[int, ...], "", ()),
        (tuple[str, ...], "rotary,none", ("rotary", "none")),
        (tuple[float, ...], "0.5", (0.5,)),
    ],
)
def test_words_and_lists_are_parsed(hint, text, value):
    assert parse("key", hint, text) == value


@pytest.mark.parametrize(
    ("hint", "text", "message"),
    [
        (int, "three", "key must be a whole number, not 'three'"),
        (int, "１２", "key must be a whole number"),
        (float, "1२", "key must be a number"),
        (int, "2.5", "key must be a whole number, not '2.5'"),
        (float, "fast", "key must be a number, not 'fast'"),
        (bool, "maybe", "key must be true or false, not 'maybe'"),
        (tuple[float, ...], "1,x", "key must be a number, not 'x'"),
        (dict[str, int], "{}", "key cannot be set from text"),
    ],
)
def test_text_that_does_not_parse_is_named(hint, text, message):
    with pytest.raises(ValueError, match=message):
        parse("key", hint, text)


def test_settings_replace_what_they_name_and_nothing_else():
    config = with_settings(TrainConfig(), {"steps": "7", "schedule": "cosine"})
    assert config == TrainConfig(steps=7, schedule="cosine")
    with pytest.raises(ValueError, match="unknown setting 'colour'; valid: .*batch_size"):
        with_settings(TrainConfig(), {"colour": "red"})


def test_a_run_s_config_is_the_recipe_with_settings_on_top():
    task = load_task("mul", {"digits": 3})
    plain = configure("mul", {"digits": "3"})
    assert plain.model.context == task.longest()
    assert (plain.model.levels, plain.model.vocab) == (task.levels, len(task.alphabet))
    assert load_task(plain.task, plain.options) == task
    recipe = task.recipe()
    for config, wanted in ((plain.model, recipe.model), (plain.train, recipe.train)):
        assert all(getattr(config, name) == value for name, value in wanted.items())
    changed = configure("mul", {"digits": "3", "steps": "9", "heads": "2"}, seed=4)
    assert changed == dataclasses.replace(
        plain,
        model=dataclasses.replace(plain.model, heads=2),
        train=dataclasses.replace(plain.train, steps=9),
        seed=4,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "red"}, "unknown setting 'colour'; valid: .*activation.*digits.*steps"),
        ({"vocab": "3"}, "unknown setting 'vocab'"),
        ({"digits": "0"}, r"digits must be in 1\.\.1000"),
        ({"heads": "3"}, "heads=3 does not divide"),
        ({"level_position": "rotary"}, "level_position names 1 levels, the task has 3"),
    ],
)
def test_a_wrong_setting_says_what_is_valid(settings, message):
    with pytest.raises(ValueError, match=message):
        configure("add", settings)


@pytest.mark.parametrize("task", task_names())
def test_options_of_tasks_have_names_of_their_own(task):
    """An option with the name of a setting of models or training could not be set."""
    others = {*model_settings(), *names_of(TrainConfig)}
    assert not others & set(task_class(task).options())


def test_a_task_of_ones_own_with_a_setting_s_name_is_told(tmp_path):
    source = (HOME / "tasks" / "modular.py").read_text().replace("train_share", "share")
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UsageError, match="has an option share, as model or training do"):
        configure(str(tmp_path / "mine.py"), {"share": "0.3"})


def test_key_value_pairs():
    assert parse_pairs(("a=1", " b-c = x=y ")) == {"a": "1", "b_c": "x=y"}
    for pair in ("a", "=1", " =2"):
        with pytest.raises(ValueError, match="--set takes key=value"):
            parse_pairs((pair,))
    assert parse_pairs(("lr=1", "lr=1")) == {"lr": "1"}
    with pytest.raises(ValueError, match="batch_size is given twice: 1 and 2"):
        parse_pairs(("batch-size=1", "batch_size=2"))


@pytest.mark.parametrize("text", ["inf", "1e400", "-inf", "nan"])
def test_settings_are_finite(text):
    for name in ("lr", "z_loss", "warmup"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            configure("add", {name: text})


def test_resuming_may_change_training_but_not_task_or_model():
    config = configure("add", {"steps": "5"})
    longer = reconfigure(config, "add", {"steps": "9", "width": str(config.model.width)})
    assert longer == dataclasses.replace(config, train=dataclasses.replace(config.train, steps=9))
    for task, settings in ((None, {"digits": "4"}), (None, {"width": "32"})):
        with pytest.raises(ValueError, match="keeps its task and model"):
            reconfigure(config, task, settings)
    with pytest.raises(ValueError, match="the run to resume is of task add, not sub"):
        reconfigure(config, "sub", {})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("learning_rate", "lr"),
        ("n_layer", "layers"),
        ("n_embd", "width"),
        ("kind", "architecture"),
        ("max_iters", "steps"),
        ("widht", "width"),
        ("batchsize", "batch_size"),
        ("digit", "digits"),
    ],
)
def test_a_near_miss_is_told_what_may_be_meant(wrong, meant):
    message = rf"unknown setting '{wrong}'; did you mean {meant}\? valid: .*"
    with pytest.raises(ValueError, match=message):
        configure("add", {wrong: "1"})


def test_names_used_elsewhere_mean_settings_that_there_are():
    options = {name for task in task_names() for name in task_class(task).options()}
    assert set(ELSEWHERE) <= {*model_settings(), *names_of(TrainConfig), *options}


@dataclasses.dataclass(frozen=True)
class Knobs:
    count: int = setting(3, "a whole number with bounds", low=1, high=9)
    share: float = setting(0.5, "a share", low=0, below=1)
    lengths: tuple[int, ...] = setting((), "several numbers", low=2)
    top: int | None = setting(None, "a number or none", low=1)
    way: str = setting("a", "a name", ("a", "b"))

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"count must be in 1\.\.9, not 0"),
        ({"count": 10}, r"count must be in 1\.\.9, not 10"),
        ({"share": 1.0}, r"share must be in \[0, 1\), not 1.0"),
        ({"share": math.nan}, r"share must be in \[0, 1\), not nan"),
        ({"lengths": (2, 1)}, "lengths must be at least 2, not 1"),
        ({"top": 0}, "top must be at least 1, not 0"),
        ({"way": "c"}, "way must be one of a, b, not 'c'"),
    ],
)
def test_bounds_stand_beside_the_field_and_are_enforced(settings, message):
    with pytest.raises(ValueError, match=message):
        Knobs(**settings)


def test_none_is_a_value_where_the_type_says_so():
    assert with_settings(Knobs(top=3), {"top": "none"}).top is None
    assert with_settings(Knobs(), {"top": "4"}).top == 4
    assert with_settings(Knobs(), {"top": 4, "lengths": [2, 3]}).lengths == (2, 3)
    assert from_dict(Knobs, json.loads(json.dumps(to_dict(Knobs(top=None))))) == Knobs()
    with pytest.raises(ValueError, match="count must be a whole number, not 'none'"):
        with_settings(Knobs(), {"count": "none"})


@given(st.integers(-3, 12), st.floats(-1, 2))
def test_bounds_hold_just_what_they_say(count, share):
    fits = 1 <= count <= 9 and 0 <= share < 1
    try:
        Knobs(count=count, share=share)
    except ValueError:
        assert not fits
    else:
        assert fits
