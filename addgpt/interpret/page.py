"""What a person sees of attention: the data of the drawing, and a page that holds it.

`attention.js` draws: `drawAttention(element, data)`, where `data` is what `attention_page_data`
returns, as JSON:

    problem  what was asked, or the text
    answer   what the model answered, and `right`, whether that is so (null: not known)
    prompt   how many of the tokens are the prompt
    tokens   of each: char, row, column (on paper), small, kind, place (value, 0: none), step
    rows     of each line on paper: its label
    blocks, heads   how many
    names    [block][head] what the head attends to in this problem, in words
    slots    of each token that the model wrote:
               token    its number
               sure     the model's probability of it
               looks    [block][head] list of [token, weight], largest first, 1 % and more
               names    [block][head] what the head attends to in rows of this kind
               against  the runner-up, of which `parts` gives the lead
               parts    list of [part, logits it adds to the lead of the token over the runner-up]
               lens     list of [place, list of [char, probability]], most likely first
    note     why there are no parts, or ""
"""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.interpret.activations import Activations, read
from addgpt.interpret.attribution import attribution, lens
from addgpt.interpret.heads import head_name
from addgpt.interpret.subject import Subject, Written, subject, written
from addgpt.task import Explained, Graded, Place, Problem, Task

LEAST = 0.01  # share of attention that is drawn
TOP = 3  # tokens that the lens names


def attention_page_data(
    model: Any, problem: Problem | str, task: Task | None = None
) -> dict[str, Any]:
    """What the drawing shows of a problem: see the module's docstring.

    Arguments and errors are those of `activations`.

    Examples:
        >>> data = attention_page_data("calculator", "128+367")
        >>> data["answer"], data["right"], data["heads"], len(data["slots"])
        ('495', True, 4, 7)
    """
    of = subject(model, task)
    work = written(of, problem)
    return page_data(of, work, read(of, work), str(problem).strip())


def page_data(of: Subject, work: Written, found: Activations, asked: str) -> dict[str, Any]:
    """`attention_page_data` of activations that are at hand."""
    config = of.config
    each = [(block, head) for block in range(config.depth) for head in range(config.heads)]
    kinds = {token.kind for token in found.tokens if token.written}
    names: dict[Any, list[list[str]]] = {
        kind: _by_block([head_name(found, *one, kind) for one in each], config.heads)
        for kind in (None, *kinds)
    }
    note, parts = "", None
    try:
        parts = attribution(of.model, found)
    except UsageError as error:
        note = str(error)
    seen = lens(of.model, found)
    slots = [
        _slot(found, place, names[found.tokens[place + 1].kind], parts, seen, each, config.heads)
        for place in range(len(found.tokens) - 1)
        if found.tokens[place + 1].written
    ]
    places = _places(of.task, found.text, work.ids)
    tokens = [
        {
            "char": token.char, "row": place.row, "column": place.column, "small": place.small,
            "kind": token.kind, "place": token.column, "step": token.step,
        }
        for token, place in zip(found.tokens, places, strict=True)
    ]  # fmt: skip
    answer, right = _answer(of.task, work.problem, found.text[work.prompt :])
    return {
        "problem": asked, "answer": answer, "right": right, "prompt": work.prompt,
        "tokens": tokens, "rows": _labels(found, places), "blocks": config.depth,
        "heads": config.heads, "names": names[None], "slots": slots, "note": note,
    }  # fmt: skip


def page(data: dict[str, Any]) -> str:
    """One HTML file that shows the data, with all that it needs in it."""
    files = resources.files("addgpt.interpret") / "static"
    style, script = ((files / f"attention.{kind}").read_text("utf-8") for kind in ("css", "js"))
    told = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    answer = f" = {data['answer']}" if data["answer"] else ""
    title = html.escape(f"{data['problem'][:80]}{answer[:80]}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}: attention</title>\n<style>\n"
        "body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; "
        "background: Canvas; color: CanvasText; font-family: system-ui, sans-serif; }\n"
        "h1 { overflow-wrap: anywhere; font-size: clamp(1.25rem, 5vw, 2rem); }\n"
        f"{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        '<div id="attention"></div>\n</main>\n'
        f'<script type="application/json" id="data">{told}</script>\n<script>\n{script}\n'
        'drawAttention(document.getElementById("attention"), '
        'JSON.parse(document.getElementById("data").textContent));\n'
        "</script>\n</body>\n</html>\n"
    )


def _slot(
    found: Activations,
    place: int,
    names: list[list[str]],
    parts: tuple[list[str], np.ndarray] | None,
    seen: tuple[list[str], np.ndarray],
    each: list[tuple[int, int]],
    heads: int,
) -> dict[str, Any]:
    """What there is to say of the token after `place`."""
    logits, alphabet = found["logits"][place], found.alphabet
    token = alphabet.index(found.tokens[place + 1].char)
    others = logits.copy()
    others[token] = -np.inf
    against = int(others.argmax())
    shown = []
    if parts is not None:
        lead = parts[1][:, place, token] - parts[1][:, place, against]
        shown = [[name, round(float(x), 3)] for name, x in zip(parts[0], lead, strict=True)]
    through = []
    for label, row in zip(seen[0], seen[1][:, place], strict=True):
        chances = _softmax(row)
        best = np.argsort(-chances, kind="stable")[:TOP]
        through.append([label, [[alphabet[i], round(float(chances[i]), 4)] for i in best]])
    return {
        "token": place + 1,
        "sure": round(float(_softmax(logits)[token]), 4),
        "looks": _by_block([_looked(found, place, *one) for one in each], heads),
        "names": names,
        "against": alphabet[against],
        "parts": shown,
        "lens": through,
    }


def _looked(found: Activations, place: int, block: int, head: int) -> list[list[float]]:
    row = found[f"weights.{block}"][head, place]
    keys = [key for key in np.argsort(-row, kind="stable").tolist() if row[key] >= LEAST]
    return [[key, round(float(row[key]), 3)] for key in keys]


def _by_block(values: list[Any], heads: int) -> list[list[Any]]:
    return [values[start : start + heads] for start in range(0, len(values), heads)]


def _places(task: Task, text: str, ids: np.ndarray) -> list[Place]:
    """On paper where the task knows that; else in lines of the text."""
    if isinstance(task, Explained):
        return task.placed(text, ids)
    row, column, out = 0, 0, []
    for char in text:
        out.append(Place(row, column))
        row, column = (row + 1, 0) if char == "\n" or column >= 39 else (row, column + 1)
    return out


def _labels(found: Activations, places: list[Place]) -> list[str]:
    """What each line on paper is, by the first of its digits."""
    labels = [""] * (max(place.row for place in places) + 1)
    for token, place in zip(found.tokens, places, strict=True):
        if token.kind and token.char.isdecimal() and not place.small and not labels[place.row]:
            labels[place.row] = token.kind
    return labels


def _answer(task: Task, problem: Problem | None, completion: str) -> tuple[str, bool | None]:
    if problem is None or not isinstance(task, Graded):
        return "", None
    try:
        answer = task.read(problem, completion)
    except UsageError:
        return "no answer", False
    return str(answer), answer == task.truth(problem)


def _softmax(x: np.ndarray) -> np.ndarray:
    raised = np.exp(x - x.max())
    return raised / raised.sum()
