"""The catalogue: it is complete, each feature of it acts, and the pages say what it says."""

import dataclasses
import re
from pathlib import Path

from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.architectures import CONFIGS, TOLD
from addgpt.config.schema import TrainConfig
from addgpt.config.settings import features_of, names_of
from addgpt.task_lookup import task_class, task_names

ROOT = Path(__file__).resolve().parents[1]


def test_every_choice_and_switch_is_in_the_catalogue():
    plain = {"none", "constant", "all"}  # nothing is switched on
    for cls in (*CONFIGS.values(), TrainConfig):
        listed = {field for field, _, _ in features_of(cls)}
        for field in dataclasses.fields(cls):
            if field.name in ("device", "precision", "keep"):  # of this machine, of the run folder
                continue
            values = {value for name, value, _ in features_of(cls) if name == field.name}
            missing = set(field.metadata["choices"]) - values
            assert missing <= plain, field.name
            assert field.name in listed or field.type != "bool", field.name


def test_every_feature_names_author_year_and_where_it_is():
    place = r"(arXiv:(\d{4}\.\d{4,5}|[a-z-]+/\d{7})|doi:10\.\d{4}/\S+|JMLR \d+:\d+)"
    seen = set()
    for cls in (*CONFIGS.values(), TrainConfig, *map(task_class, task_names())):
        for field, value, feature in features_of(cls):
            assert re.fullmatch(rf"[A-Z][\w .]+ (19|20)\d\d, {place}", feature.paper)
            assert feature.does and "|" not in feature.does
            seen.add((field, value))
            names = (f.name for f in dataclasses.fields(cls))
            assert field in names
    assert ("ids", "abacus") in seen


def test_the_page_of_settings_holds_what_the_command_prints():
    lines = CliRunner().invoke(main, ["settings"]).output.splitlines()
    assert any(re.match(r"lr +0\.003 +at least 0 +AdamW's peak rate", line) for line in lines)
    assert any(re.match(r"dropout +0\.0 +\[0, 1\) +share of channels", line) for line in lines)
    for cls in (*CONFIGS.values(), TrainConfig):  # all but what the task gives
        for name in set(names_of(cls)) - set(TOLD):
            assert any(line.startswith(f"{name} ") for line in lines), name
    tables = CliRunner().invoke(main, ["settings", "--markdown"]).output.strip()
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert tables in page, "put the output of `addgpt settings --markdown` into docs/settings.md"


def test_the_options_of_a_task_are_settings_too():
    done = CliRunner().invoke(main, ["settings", "--task", "add"])
    assert re.search(r"^digits +3 .*longest operand$", done.output, re.MULTILINE)
    assert CliRunner().invoke(main, ["settings", "--task", "ad"]).exit_code == 2


def test_the_command_lists_them_and_the_page_holds_the_same_table():
    done = CliRunner().invoke(main, ["features"])
    lines = done.output.splitlines()
    assert done.exit_code == 0
    assert any("ALiBi" in line and "position=alibi" in line for line in lines)
    table = CliRunner().invoke(main, ["features", "--markdown"]).output.strip()
    assert len(table.splitlines()) == len(lines) + 1
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    assert table in page, "put the output of `addgpt features --markdown` into docs/features.md"
