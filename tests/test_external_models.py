"""External models on our grid: asked, read, kept, resumed, scored; against real parts, offline."""

import itertools
import json
import re

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.compare.runs import find_runs, score_together
from addgpt.evaluation.external.made_elsewhere import MadeElsewhere
from addgpt.evaluation.external.openai_client import OpenAIClient
from addgpt.evaluation.external.questions import ask_missing, asked_cells
from addgpt.evaluation.external.reading import digit_match, length_error, read_reply
from addgpt.evaluation.external.replies import Replies, Reply
from addgpt.evaluation.external.settings import external_config, open_folder
from addgpt.evaluation.schema import read_eval
from addgpt.evaluation.scorecard import score_run
from addgpt.runs.files import RunError
from addgpt.runs.run import Run
from addgpt.task import Answer, Problem
from addgpt.task_lookup import load_task

ADD, DIV, SUB = (load_task(name, {"digits": 3}) for name in ("add", "div", "sub"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "reply", "first", "last"),
    [
        ("12+34", "46", 46, 46),
        ("12+34", " 46\n13+5=18", 46, 18),
        ("12+34", "12 + 34 = 46", 46, 46),
        ("12+34", "The sum of 12 and 34 is **46**.", 12, 46),
        ("999+1", "1,000", 1000, 1000),
        ("999+1", "1000.0 exactly", 1000, 1000),
        ("12+34", "46.5", None, None),
        ("12+34", "no idea", None, None),
        ("12+34", "", None, None),
        ("12+34", "1,00", 1, 0),
        ("12-34", "-22", -22, -22),
        ("12-34", "12 \u2212 34 = \u221222", -22, -22),
        ("17/5", "3 remainder 2", (3, 2), (3, 2)),
        ("17/5", "3 R2", (3, 2), (3, 2)),
        ("17/5", "17 ÷ 5 = 3, with a remainder of 2.", (3, 2), (3, 2)),
        ("17/5", "3", 3, 3),
        ("15/5", "3 rem 0", 3, 3),
        ("15/5", "3 red apples", 3, 3),
    ],
)
def test_the_answer_is_found_by_the_stated_rule(text, reply, first, last):
    task = {"+": ADD, "-": SUB, "/": DIV}[re.search(r"[-+/]", text)[0]]
    for rule, wanted in (("first", first), ("last", last)):
        if wanted is not None:
            wanted = Answer(*wanted) if isinstance(wanted, tuple) else Answer(wanted)
        assert read_reply(task, task.parse(text), reply, rule) == wanted


def test_a_number_that_the_limit_cut_off_is_no_answer():
    problem = ADD.parse("99+1")
    assert read_reply(ADD, problem, "10", "first", finished=False) is None
    assert read_reply(ADD, problem, "100 ", "first", finished=False) == Answer(100)


def test_a_trace_is_read_as_that_of_our_own_models():
    assert read_reply(ADD, ADD.parse("128+367"), "594", "trace") == Answer(495)
    assert read_reply(ADD, ADD.parse("128+367"), "594", "trace", finished=False) is None


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_digit_match_and_length_error_are_those_of_nupa(right, given):
    one, other = str(right)[::-1], str(given)[::-1]
    same = [place for place in range(len(one)) if other[place : place + 1] == one[place]]
    assert digit_match(Answer(right), Answer(given)) == len(same) / len(one)
    assert length_error(Answer(right), Answer(given)) == abs(len(one) - len(other))
    assert digit_match(Answer(right), None) == 0 and length_error(Answer(right), None) == len(one)


def test_a_template_changes_no_character_but_its_own():
    how = ExternalConfig(source="hf:x", template="Q:  {problem} =\t", shots=2)
    (asked,) = asked_cells(
        ADD, how, [c for c in ADD.cells() if c[1:] == (3, 3, "all")], 20, "test", 0
    )
    for problem, question in zip(asked.batch.problems, asked.questions, strict=True):
        *shots, own = re.findall(r"Q:  (\d+)\+(\d+) =\t(\d*)(?:\n|$)", question.prompt)
        assert own == (*map(str, problem.operands), "")
        assert question.prompt.endswith(" =\t") and len(shots) == 2
        for a, b, total in shots:
            assert int(a) + int(b) == int(total)
            assert ADD.in_train(Problem("+", (int(a), int(b))))  # and so not what is asked


def test_what_is_asked_is_the_evaluation_set_of_our_runs(toy_run):
    run = toy_run(digits=2)
    task, cells = run.task(), run.task().cells()
    how = ExternalConfig(source="hf:x")
    from addgpt.evaluation.exact_match import evaluation_problems

    for one in asked_cells(task, how, cells, 30, "test", 5):
        batch, source = evaluation_problems(task, one.cell, 30, "test", 5)
        assert one.source == source
        assert [q.problem for q in one.questions] == list(map(task.text, batch.problems))


# Replies are kept.


class Scripted:
    """A client that knows the answers; it fails after so many batches."""

    def __init__(self, fails_after=None, wrong=()):
        self.fails_after, self.wrong, self.asked = fails_after, wrong, []

    def ask(self, questions):
        for start in range(0, len(questions), 10):
            if start == self.fails_after:
                raise RunError("the line was cut")
            batch = questions[start : start + 10]
            self.asked += [question.prompt for question in batch]
            yield [(question, self.reply(question.problem)) for question in batch]

    def reply(self, problem):
        a, b = map(int, problem.split("+"))
        return Reply(f" {a + b + (problem in self.wrong)}", True, 5, 3)


def folder(tmp_path, **settings):
    how = external_config("hf:somewhere/tiny", ADD, settings)
    return open_folder(how, "add", ADD, tmp_path / "run"), how


def test_a_stopped_evaluation_goes_on_and_asks_nothing_twice(tmp_path):
    run, how = folder(tmp_path)
    cells = [cell for cell in ADD.cells() if cell.stratum == "all"]
    questions = [q for one in asked_cells(ADD, how, cells, 10, "test", 0) for q in one.questions]
    first = Scripted(fails_after=30)
    with pytest.raises(RunError, match="cut"):
        ask_missing(first, questions, Replies(run.path))
    with open(run.path / "answers.jsonl", "a") as file:
        file.write('{"problem": "1+1", "pro')  # as a crash leaves it
    second = Scripted()
    ask_missing(second, questions, Replies(run.path))
    assert sorted(first.asked + second.asked) == sorted({q.prompt for q in questions})
    lines = (run.path / "answers.jsonl").read_text().splitlines()
    assert len(lines) == len({q.prompt for q in questions}) and all(map(json.loads, lines))


def test_a_run_of_replies_is_scored_as_any_run(tmp_path, toy_run):
    run, how = folder(tmp_path)
    task = run.task()
    with pytest.raises(RunError, match="no reply to"):
        score_run(run, 10)
    asked = list(asked_cells(task, how, task.cells(), 10, "test", 0))
    wrong = {q.problem for one in asked for q in one.questions[:2]}
    ask_missing(
        Scripted(wrong=wrong), [q for one in asked for q in one.questions], Replies(run.path)
    )
    card = score_run(run, 10)
    card.write()
    rows = read_eval(run.path / "eval.csv")
    for one, row in zip(asked, rows, strict=True):
        right = sum(q.problem not in wrong for q in one.questions)
        assert (row["n"], row["answer_correct"]) == (len(one.questions), right)
        assert row["step"] is None and row["seed"] is None
    assert {m["kind"] for m in card.mistakes.counts()} <= {"carry", "digit", "length"}
    facts = json.loads((run.path / "eval.json").read_text())
    assert 0.5 < facts["replies"]["digit_match"] < 1 and facts["replies"]["tokens_written"]
    assert "not known" in facts["contamination"]["summary"]
    # Against one of ours: the same problems, marked one by one.
    from addgpt.training.loop import train

    ours = toy_run("ours", digits=3, steps=2)
    train(ours)
    (_, theirs), (_, mine) = score_together([run, ours], per_cell=10)
    assert theirs.marks.keys() == mine.marks.keys()
    assert all(theirs.marks[cell].problems == mine.marks[cell].problems for cell in mine.marks)


def test_a_folder_keeps_to_what_it_was_asked(tmp_path):
    run, _ = folder(tmp_path)
    assert folder(tmp_path, answer="last")[0].config.model.answer == "last"  # judged anew
    with pytest.raises(RunError, match="replies of template"):
        folder(tmp_path, template="{problem} =")
    other = load_task("add", {"digits": 2})
    with pytest.raises(RunError, match="other problems"):
        open_folder(external_config("hf:somewhere/tiny", other, {}), "add", other, run.path)
    assert "train" not in json.loads((run.path / "config.json").read_text())
    with pytest.raises(UsageError, match="external model"):
        Run(run.path).model()


@pytest.mark.parametrize(
    ("source", "settings", "what"),
    [
        ("hf:", {}, "names nothing"),
        ("api:localhost", {"model": "m"}, "begins with http"),
        ("api:http://localhost/v1", {}, "--model"),
        ("hf:x", {"model": "m"}, "--model does not apply"),
        ("answers:x.csv", {"shots": 1}, "--shots does not apply"),
        ("hf:x", {"template": "What?"}, r"\{problem\}"),
    ],
)
def test_what_does_not_go_together_is_said(source, settings, what):
    with pytest.raises(UsageError, match=what):
        external_config(source, ADD, settings)


# answers:FILE


def test_answers_made_elsewhere_are_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["problem,generated", "12+34,46", '99+1,"1,00"', "5+5,10"]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    command = ["eval", "answers:mine.csv", "--task", "add", "--digits", "2"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "those of the file" in result.output
    rows = {
        (r["len_a"], r["len_b"]): r for r in read_eval(tmp_path / "results/mine-add-2/eval.csv")
    }
    assert {cell: (r["answer_correct"], r["n"]) for cell, r in rows.items()} == {
        (1, 1): (1, 1), (2, 1): (0, 1), (2, 2): (1, 1),
    }  # fmt: skip
    (tmp_path / "bad.jsonl").write_text('{"problem": "1+1"}\n')
    result = CliRunner().invoke(main, ["eval", "answers:bad.jsonl", "--task", "add"])
    assert result.exit_code and "line 1" in str(result.exception) + result.output


def test_answers_are_read_from_any_file_of_problems(tmp_path):
    """Semicolons, other names, a worked answer below a comment sign, equations, words."""
    (tmp_path / "a.csv").write_text('Question;Generated\n12+34;"So:\n#### 46"\n5+5;10\n')
    (tmp_path / "a.json").write_text('[{"problem": "12+34", "generated": 46}]')
    (tmp_path / "c.csv").write_text("problem,generated\n12+34=46,46\nWhat is 5 plus 5?,10\n")
    names = ("a.csv", "a.json", "c.csv")
    found = [MadeElsewhere(tmp_path / name, ADD).answers for name in names]
    one, other = ADD.parse("12+34"), ADD.parse("5+5")
    assert found == [{one: "So:\n#### 46", other: "10"}, {one: "46"}, {one: "46", other: "10"}]
    assert read_reply(ADD, one, found[0][one], "last") == Answer(46)
    (tmp_path / "b.csv").write_text("problem,answer\n1+1,2\n")
    with pytest.raises(UsageError, match="line 2: found: problem, answer; valid: problem, gen"):
        MadeElsewhere(tmp_path / "b.csv", ADD)


def test_stored_scores_are_read_and_no_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["eval", "hf:nowhere/tiny", "--task", "add", "--digits", "3", "--stored"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code and not list(tmp_path.iterdir())


def test_options_are_checked_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OpenAIClient, "ask", lambda *about: pytest.fail("asked"))
    asked = ["eval", "api:http://127.0.0.1:9/v1", "--model", "m", "--task", "add"]
    for more in (["--columns", "problem=q"], ["--predictions", "all.txt"]):
        assert CliRunner().invoke(main, [*asked, *more]).exit_code == 2


def test_a_damaged_model_of_transformers_is_one_line(tmp_path):
    transformers = pytest.importorskip("transformers")
    from addgpt.evaluation.external.huggingface import HuggingFace

    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 9, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    model.save_pretrained(tmp_path / "bad")
    tokenizer = {"model": {"type": "WordLevel", "vocab": {"1": 0}, "unk_token": "?"}}
    (tmp_path / "bad" / "tokenizer.json").write_text(json.dumps({"version": "1.0"} | tokenizer))
    weights = tmp_path / "bad" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:60])
    with pytest.raises(RunError, match="bad cannot be loaded: [^\n]+$"):
        HuggingFace(str(tmp_path / "bad"))


def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *names, **how: 1 / 0)
    done = CliRunner().invoke(main, ["eval", "hf:./gpt2", "--task", "add"])
    assert done.exit_code == 1
    assert done.stderr == "error: hf:./gpt2 cannot be loaded: there is no such folder\n"


def test_a_gpt2_of_transformers_is_scored_as_it_answers_one_by_one(tmp_path, monkeypatch):
    """Made and trained here; the grid's counts are those of plain calls of `generate`."""
    transformers = pytest.importorskip("transformers")
    from benchmarks.foreign_models import make_gpt2

    monkeypatch.chdir(tmp_path)
    make_gpt2(tmp_path / "gpt2", digits=1, steps=120, width=32, layers=1)
    model = transformers.AutoModelForCausalLM.from_pretrained("gpt2").eval()
    own = {"repetition_penalty": 3.0, "num_beams": 2, "eos_token_id": model.config.eos_token_id}
    (tmp_path / "gpt2" / "generation_config.json").write_text(json.dumps(own))
    command = ["eval", "hf:gpt2", "--task", "add", "--digits", "1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    tokenizer = transformers.AutoTokenizer.from_pretrained("gpt2")
    right = {}
    for a, b in itertools.product(range(10), repeat=2):
        read = tokenizer(f"{a}+{b}=", return_tensors="pt")
        out = model.generate(**{k: read[k] for k in ("input_ids", "attention_mask")},
                             max_new_tokens=8, do_sample=False)  # fmt: skip
        right[a, b] = tokenizer.decode(out[0, 4:]).split("#")[0] == str(a + b)
    row = read_eval(tmp_path / "results/gpt2-add-1/eval.csv")[0]
    assert (row["n"], row["answer_correct"]) == (100, sum(right.values()))
    assert 15 < row["answer_correct"]  # it has learned something
    from analysis import load

    assert load.evals("results")["trained"].isna().all()  # nobody here knows
    (again,) = find_runs(["results/gpt2-add-1"])
    assert again.config.model.params == sum(p.numel() for p in model.parameters())


def test_only_answers_are_there_to_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("problem,generated\n1+2,3\n")
    words = ["eval", "answers:a.csv", "--task", "add", "--digits", "1", "--out", "run"]
    assert CliRunner().invoke(main, words).exit_code == 0
    done = CliRunner().invoke(main, ["export", "run", "--to", "lm-eval", "--out", "task"])
    assert done.stderr == "error: answers:a.csv is an external model: only its answers are here\n"


def test_options_of_models_of_others_go_with_them_alone(tmp_path):
    for command, what in (
        (["eval", "x", "--task", "add"], "--task only goes with"),
        (["eval", "x", "--digits", "0"], "--digits only goes with"),
        (["eval", "answers:x", "--task", "add", "--digits", "0"], "digits must be in 1..1000"),
        (["eval", "hf:x"], "needs --task"),
        (["eval", "hf:x", "--task", "add", "--suite", "gpt3"], "no --problems, --suite"),
        (["eval", "hf:x", "--task", "shakespeare"], ""),
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code and what in result.output + str(result.exception)


def test_predictions_hold_the_raw_replies_and_what_was_read_off_them(tmp_path):
    run, how = folder(tmp_path)
    asked = list(asked_cells(ADD, how, ADD.cells(), 10, "test", 0))
    questions = [question for one in asked for question in one.questions]
    wrong = {question.problem for question in questions[::3]}
    ask_missing(Scripted(wrong=wrong), questions, Replies(run.path))
    file = tmp_path / "all.jsonl"
    command = ["eval", str(run.path), "--per-cell", "10", "--predictions", str(file)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["problem"] for row in rows] == [question.problem for question in questions]
    for row in rows:
        said = sum(map(int, row["problem"].split("+"))) + (row["problem"] in wrong)
        assert (row["completion"], row["generated"]) == (f" {said}", str(said))
        assert row["correct"] == (row["problem"] not in wrong) and row["confidence"] is None
