"""Files of problems as people have them: what is read, what is named, what is scored."""

from __future__ import annotations

import csv
import hashlib
import json
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.expression import exact, parse
from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.evaluation.exact_match import score
from addgpt.evaluation.problem_files import export
from addgpt.evaluation.problem_files.records import Columns
from addgpt.evaluation.problem_files.scores import by_group, read_problems
from addgpt.evaluation.problem_files.wording import number, spoken
from addgpt.runs.run import SHIPPED
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

NESTED = (
    '{"add": {"2": ["Add two numbers: 17 + 25 = 42", "Add two numbers: 90 + 9 = 99"]},\n'
    ' "floordiv": {"2": ["Divide two numbers and round down: 95 // 7 = 13"]}}\n'
)
LIST = """[
 {"instruction": "Add 417 and 88.", "input": "417 + 88", "output": "417 + 88 = 505",
  "answer": "505"},
 {"instruction": "Divide 1234 by 56", "input": "1234 / 56", "output": "...", "answer": "22 R 2"},
 {"instruction": "9 over 0?", "input": "9 / 0", "output": "9 / 0 is undefined",
  "answer": "undefined"}]"""
WORDS = (
    '{"context": "\\n\\nQ: What is 41 plus 27?\\n\\nA:", "completion": " 68"}\n'
    '{"context": "\\n\\nQ: What is (6 - 9) - 2?\\n\\nA:", "completion": " -5"}\n'
    '{"context": "\\n\\nQ: What is 12 times 13?\\n\\nA:", "completion": " 156"}\n'
    '{"context": "\\n\\nQ: What is 30 minus 52?\\n\\nA:", "completion": " -22"}\n'
)

# name, content, and what is read: expression and answer, or a word of the fault.
FILES = [
    ("mixed.csv", "problem,answer\n12+34,46\n7×8,56\n10/4,2.5\n1/0,\nhello,1\n",
     [("12+34", "46"), ("7*8", "56"), ("10/4", "2.5"), ("1/0", None), ("hello", "1")]),
    ("space.csv", "problem, answer\n12+34, 46\n2+2, 5\n", [("12+34", "46"), ("2+2", "5")]),
    ("semi.csv", "problem;answer\r\n12+34;46\r\n3-5;−2\r\n", [("12+34", "46"), ("3-5", "-2")]),
    ("excel.csv", "sep=;\r\nproblem;answer\r\n12+34;46\r\n", [("12+34", "46")]),
    ("tab.tsv", "problem\tanswer\n12+34\t46\n", [("12+34", "46")]),
    ("caps.csv", "Problem,Answer\n12+34,46\n", [("12+34", "46")]),
    ("bare.csv", "12+34,46\n7*8,56\n", [("12+34", "46"), ("7*8", "56")]),
    ("hash.csv", "# it's \"mine\nproblem,answer\n# so\n12+34,46\n", [("12+34", "46")]),
    ("bom.csv", "\ufeffproblem,answer\n12+34,46\n", [("12+34", "46")]),
    ("wide.csv", "problem,answer\n1000+1,1,001\n", ["3 fields in 2 columns"]),
    ("objects.ndjson", '{"problem":"12+34","answer":46}\n{"Problem":"7*8","answer":"56"}\nx\n',
     [("12+34", "46"), ("7*8", "56"), "not JSON"]),
    ("list.json", LIST, [("417 + 88", "505"), ("1234 / 56", "22 remainder 2"), "'undefined'"]),
    ("columns.json", '{"question": ["1+2", "3*4"], "answer": [3, 12], "by": "me"}',
     [("1+2", "3"), ("3*4", "12")]),
    ("pairs.json", '[["1+2", 3], ["3*4", "12"]]', [("1+2", "3"), ("3*4", "12")]),
    ("numbers.csv",
     'problem,answer\n1000+1,"1,001"\n999+1,1E+12\n4+5,9.00\n1+2,\n3+4,NaN\n"1,000*2",2_000\n',
     [("1000+1", "1001"), "lost digits", ("4+5", "9"), ("1+2", None), ("3+4", None),
      ("1000*2", "2000")]),
    ("words.jsonl", WORDS,
     [("41 + 27", "68"), ("(6 - 9) - 2", "-5"), ("12 * 13", "156"), ("30 - 52", "-22")]),
    ("equations.txt", "52+159=211\n0+7=7\n\n8+905=913\n",
     [("52+159", "211"), ("0+7", "7"), ("8+905", "913")]),
    ("dollars.txt", "$52+159=211$\n$0+7=7$\n", [("52+159", "211"), ("0+7", "7")]),
    ("padded.txt", "052+159=0211\n", [("052+159", "211")]),
    ("questions.txt", "what is 2+2?\n12 plus 3\n3 x 4 =\nAdd 417 and 88.\n",
     [("2+2", None), ("12 + 3", None), ("3 * 4", None), ("417 + 88", None)]),
    ("typed.txt", "1,000+2\n=12+3\n12+3=\n1,23\n",
     [("1000+2", None), ("12+3", None), ("12+3", None), ("1,23", None)]),
    ("trace.txt", "2 1 * 4 3||8 4 0 + 0 6 3 #### 8 0 4 0\n5 * 7||5 3 #### 5 3\n",
     [("12*34", "408"), ("5*7", "35")]),
    ("apart.txt", "1 2 + 3 4 = 4 6\n1 0 + 9 = 1 9\n", [("12+34", "46"), ("10+9", "19")]),
    ("nested.json", NESTED, [("17 + 25", "42"), ("90 + 9", "99"), ("95 / 7", "13")]),
]  # fmt: skip


def run(*words, code: int = 0):
    done = CliRunner().invoke(main, ["eval", *map(str, words)])
    assert done.exit_code == code, done.output
    return done


def read(folder, name, text):
    (folder / name).write_text(text, newline="")
    return read_problems(folder / name)


@pytest.mark.parametrize(("name", "text", "wanted"), FILES, ids=[name for name, *_ in FILES])
def test_files_as_people_have_them_are_read(tmp_path, name, text, wanted):
    file = tmp_path / name
    file.write_text(text, newline="")
    found = read_problems(file)
    assert len(found) == len(wanted)
    for one, expected in zip(found, wanted, strict=True):
        if isinstance(expected, str):
            assert expected in one.fault
        else:
            answer = None if one.answer is None else str(one.answer)
            assert (one.asked.text, answer, one.fault) == (*expected, "")


def test_lines_are_those_of_the_file(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text('# one\n\nproblem,note\n1+2,"a\nb"\n\n3+4,x\n')
    assert [one.where for one in read_problems(file)] == ["line 4", "line 7"]


def test_utf_16_as_spreadsheets_write_it_is_read(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("problem\tanswer\r\n7×8\t56\r\n".encode("utf-16"))
    (one,) = read_problems(file)
    assert (one.asked.text, str(one.answer)) == ("7*8", "56")


def test_nested_keys_columns_and_keys_of_json_are_groups(tmp_path):
    file = tmp_path / "nested.json"
    file.write_text(NESTED)
    assert [one.groups for one in read_problems(file)] == [("add", "2")] * 2 + [("floordiv", "2")]
    file = tmp_path / "kinds.csv"
    file.write_text("Type,q,a\neasy,1+1,2\nhard,9*9,81\n")
    found = read_problems(file, Columns.parse("problem=Q, answer=a"))
    assert [(one.asked.text, one.groups) for one in found] == [
        ("1+1", ("easy",)),
        ("9*9", ("hard",)),
    ]


def test_a_comment_sign_inside_quotes_is_part_of_the_answer(tmp_path):
    text = 'problem,answer\n# mine\n12+34,"I think\n#### 46"\n1+1,2\n'
    found = read(tmp_path, "a.csv", text)
    assert [(one.asked.text, str(one.answer)) for one in found] == [("12+34", "46"), ("1+1", "2")]
    assert [one.where for one in found] == ["line 3", "line 5"]


def test_a_quote_that_never_closes_is_named_where_it_opens(tmp_path):
    lines = [f"{n}+1,{n + 1}" for n in range(5)]
    found = read(tmp_path, "a.csv", "problem,answer\n" + "\n".join(lines) + '\n"7+1,8\n8+1,9\n')
    assert [one.fault for one in found[:5]] == [""] * 5 and len(found) == 6
    assert found[5].where == "line 7" and "never closes" in found[5].fault


def test_a_huge_field_is_one_unusable_line(tmp_path):
    found = read(tmp_path, "a.csv", f"problem,answer\n1+1,{'1' * 200_000}\n2+2,4\n")
    assert [bool(one.fault) for one in found] == [True, False]


def test_files_that_say_two_things_or_are_no_text_are_refused(tmp_path):
    with pytest.raises(UsageError, match="2 columns named problem"):
        read(tmp_path, "a.csv", "problem,problem,answer\n1+1,2+2,4\n")
    (tmp_path / "b.csv").write_bytes("problem\n1×2\n".encode("cp1252"))
    with pytest.raises(UsageError, match="not UTF-8 text; Excel"):
        read_problems(tmp_path / "b.csv")


def test_unknown_columns_are_named(tmp_path):
    for name, text in (("a.csv", "frage,antwort\n1+1,2\n"), ("a.jsonl", '{"frage": "1+1"}\n')):
        file = tmp_path / name
        file.write_text(text)
        with pytest.raises(UsageError, match="found: frage.*--columns problem=NAME,answer=NAME"):
            read_problems(file)
        assert read_problems(file, Columns.parse("problem=frage"))[0].asked.text == "1+1"
    with pytest.raises(UsageError, match="problem=NAME,answer=NAME,group=NAME, not 'x'"):
        Columns.parse("x")


@given(st.integers(0, 10**12), st.sampled_from("+-*"), st.integers(0, 10**9), st.booleans())
def test_numbers_survive_being_written_as_people_do(a, op, b, commas):
    words = {"+": "plus", "-": "minus", "*": "times"}
    shown = (lambda n: f"{n:,}") if commas else str
    right = {"+": a + b, "-": a - b, "*": a * b}[op]
    for text in (f"{shown(a)}{op}{shown(b)}", f"Q: What is {shown(a)} {words[op]} {shown(b)}?\nA:"):
        assert exact(parse(spoken(text).text), {}) == right
    assert number(shown(right).replace("-", "−")).whole == right
    whole, _, decimals = f"{right / 4:.2f}".partition(".")
    read = number(f"{whole}.{decimals}")
    assert read.whole == Fraction(f"{whole}.{decimals}") and read.decimals in (0, 2)


def test_what_can_be_asked_is_scored_and_the_rest_is_named_first(tmp_path):
    file = tmp_path / "mixed.csv"
    file.write_text("problem,answer\n12+34,46\n7×8,56\n10/4,2.5\n1/0,\n3*(4+5),27\nhello,1\n")
    done = run("calculator", "--problems", file, "--json", code=3)
    rows = json.loads(done.stdout)
    assert [row["where"] for row in rows] == ["line 2", "line 3", "line 4", "line 6"]
    assert all(row["correct"] for row in rows) and rows[2]["answer"] == "2 remainder 2"
    first, second, third = done.stderr.splitlines()
    assert "line 5: division by zero" in first and "line 7: unknown word 'hello'" in second
    assert third == "2 of 6 cannot be asked; scoring the other 4"
    refused = run("calculator", "--problems", file, "--strict", code=2)
    assert refused.stdout == "" and "line 5" in refused.stderr and "--strict" in refused.stderr
    done = run("calculator", "--columns", "problem=a", code=2)
    assert "--columns goes with --problems" in done.stderr


def test_a_run_of_one_operation_is_scored_on_that_one(tmp_path):
    file = tmp_path / "mixed.csv"
    file.write_text("problem,answer\n12+34,46\n7*8,56\n917+88,1005\nhello,1\n")
    done = run(SHIPPED.parent / "adder", "--problems", file, "--json", code=3)
    rows = json.loads(done.stdout)
    assert [(row["where"], row["correct"]) for row in rows] == [("line 2", True), ("line 4", True)]
    product, word, total = done.stderr.splitlines()
    assert "line 3: " in product and "line 5: unknown word 'hello'" in word
    assert total == "2 of 4 cannot be asked; scoring the other 2"


def test_predictions_of_a_file_are_answers_that_can_be_scored(tmp_path):
    (tmp_path / "p.csv").write_text("problem\n12+34\n5+5\n")
    written = tmp_path / "all.jsonl"
    run("calculator", "--problems", tmp_path / "p.csv", "--predictions", written)
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [(row["problem"], row["generated"]) for row in rows] == [("12+34", "46"), ("5+5", "10")]
    words = ["--task", "add", "--digits", "2", "--out", tmp_path / "run", "--json"]
    found = json.loads(run(f"answers:{written}", *words).stdout)
    assert [(row["n"], row["answer_correct"]) for row in found] == [(1, 1), (1, 1)]


def test_reversed_answers_never_lower_a_score_unseen(tmp_path):
    file, text = tmp_path / "r.txt", "$52+159=112$\n$17+25=24$\n$8+905=319$\n$0+7=7$\n"
    file.write_text(text)
    done = run("calculator", "--problems", file, code=2)
    assert "3 of 4 answers are right only when reversed: --answers reversed" in done.stderr
    done = run("calculator", "--problems", file, "--answers", "reversed")
    assert "4 of 4 right" in done.stdout and not done.stderr
    file.write_text("52+159=211\n8+905=913\n17+26=34\n10+20=30\n")
    done = run("calculator", "--problems", file)
    assert "1 of these would be right with --answers reversed" in done.stderr
    assert "3 of 4 right" in done.stdout
    done = run("calculator", "--problems", file, "--answers", "reversed", code=2)
    assert "right only as they stand: --answers normal" in done.stderr


def test_several_files_are_groups(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "[two].txt"
    one.write_text("1+1=2\n95 // 7 = 13\n95 % 7 = 4\n")
    two.write_text("2+2=5\n")
    done = run("calculator", "--problems", one, "--problems", two)
    assert "line 1 answers 5, Python 4; scored by the file" in done.stderr
    lines = [
        line.strip("│ ") for line in done.stdout.splitlines() if ".txt " in line and "│" in line
    ]
    assert [line.split("│")[0].strip() for line in lines] == ["one.txt", "[two].txt"]
    assert [line.split("│")[2].strip() for line in lines] == ["3", "0"]


def test_groups_add_up():
    rows = [{"group": g, "correct": c} for g, c in (("a", True), ("b", False), ("a", False))]
    assert by_group(rows) == {"a": (1, 2), "b": (0, 1)} and by_group(rows[::2]) == {}


def test_problems_for_others_are_held_out_distinct_and_read_back(tmp_path):
    file = tmp_path / "mul.csv"
    words = ["problems", "--task", "mul", "--digits", "4", "--n", "300", "--out", str(file)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    task, rows = load_task("mul", {"digits": 4}), [*csv.DictReader(file.open())]
    problems = [task.parse(row["problem"]) for row in rows]
    assert len({frozenset(p.operands) | {len(p.operands)} for p in problems}) >= 299
    assert not any(task.in_train(problem) for problem in problems)
    assert all(int(row["answer"]) == np.prod(p.operands, dtype=object)
               for row, p in zip(rows, problems, strict=True))  # fmt: skip
    lines = "".join(f"{row['problem']}={row['answer']}\n" for row in rows)
    assert hashlib.sha256(lines.encode()).hexdigest() in done.stderr
    found = read_problems(file)
    assert [one.groups for one in found] == [(row["group"],) for row in rows]
    again = CliRunner().invoke(main, [*words[:-2], "--format", "jsonl"])
    assert [json.loads(line) for line in again.stdout.splitlines()] == rows
    done = CliRunner().invoke(main, ["problems", "--task", "add", "--digits", "1"])
    assert done.exit_code == 2 and "hold no problems out" in done.stderr


def test_drawing_goes_on_while_there_are_new_problems(monkeypatch):
    monkeypatch.setattr(export, "ENOUGH_ROUNDS", 1)
    many = export.draw(load_task("add", {"digits": 9}), "test", 9_000)
    assert len(set(many)) == 9_000
    with pytest.raises(UsageError, match="only 4.. distinct problems were found, not 9,000"):
        export.draw(load_task("add", {"digits": 2}), "test", 9_000)


def test_lm_eval_gets_a_task_and_its_problems(tmp_path):
    yaml = pytest.importorskip("yaml")
    words = ["problems", "--task", "add", "--n", "20", "--format", "lm-eval"]
    assert CliRunner().invoke(main, words).exit_code == 2
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "add")])
    assert done.exit_code == 0, done.output
    task = yaml.safe_load((tmp_path / "add" / "add_test.yaml").read_text())
    assert (task["task"], task["doc_to_text"]) == ("add_test", "{{problem}}=")
    assert task["metadata"]["sha256"] in done.stderr
    data = (tmp_path / "add" / task["dataset_kwargs"]["data_files"]["test"]).read_text()
    rows = [json.loads(line) for line in data.splitlines()]
    assert len(rows) == 20 and all(eval(r["problem"]) == int(r["answer"]) for r in rows)


def test_predictions_are_every_problem_and_what_was_scored(half_trained, tmp_path):
    """Probabilities of the pass over right traces are those of decoding, token by token."""
    task, model = half_trained
    batch = task.batch(np.random.default_rng(3), 60, "test")
    fast, slow = (score(model, task, batch, fast=way, chances=True) for way in (True, False))
    assert 0 < fast.trace_correct.sum() < len(batch)
    np.testing.assert_allclose(fast.chances, slow.chances, rtol=1e-3)


def test_predictions_of_a_run_have_the_counts_of_its_score(trained, tmp_path):
    file = tmp_path / "all.csv"
    done = run(trained.path, "--per-cell", 30, "--predictions", file, "--json")
    rows, cells = [*csv.DictReader(file.open())], json.loads(done.stdout)
    assert len(rows) == sum(cell["n"] for cell in cells)
    assert sum(row["correct"] == "True" for row in rows) == sum(c["answer_correct"] for c in cells)
    for row in rows:
        assert row["answer"] == str(eval(row["problem"]))
        assert (row["correct"] == "True") == (row["generated"] == row["answer"])
        assert 0 <= float(row["confidence"]) <= 1
    assert "takes a .csv or .jsonl" in run(trained.path, "--predictions", "x.txt", code=2).stderr
