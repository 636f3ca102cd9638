"""Which number of a reply is its answer, and how close a wrong answer is.

The rule, in this order:

1.  A reply that begins with the problem and an equals sign (`12 + 34 = 46`) counts from there.
2.  A number is a run of digits, perhaps with a minus sign and with commas between groups of three.
    `46.0` is 46; of `46.5` there is no answer. After a quotient, `remainder 2`, `rem 2` or `r 2`
    may follow, with `,`, `and` or `with` before it; without one the remainder is 0.
3.  The answer is the first number (`first`) or the last one (`last`) of the reply.
4.  A number that the limit of tokens cut off is no answer: it ends the reply, which does not end.

With `trace` a reply is read as the task reads what our own models write.
"""

from __future__ import annotations

import re

from addgpt.evaluation.exact_match import answer_of
from addgpt.task import MAX_CHARACTERS, Answer, Graded, Problem

WHOLE = r"(?:(?<![0-9])[-\u2212])?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
DECIMALS = r"(?:\.[0-9]+)?"
REST = rf"(?:\s*,?\s*(?:and\s+|with\s+)?(?:an?\s+|the\s+)?(?:remainder|rem|r)\.?\s*(?:of\b|is\b|=|:)?\s*({WHOLE}))?"  # noqa: E501
NUMBER = re.compile(f"({WHOLE})({DECIMALS})")
QUOTIENT = re.compile(f"({WHOLE})({DECIMALS}){REST}", re.IGNORECASE)
SYMBOLS = {"*": r"[*×x·]", "/": r"[/÷:]", "-": r"[-\u2212]"}  # as replies write an operator


def read_reply(
    task: Graded, problem: Problem, reply: str, rule: str, finished: bool = True
) -> Answer | None:
    """The answer that a reply gives by a rule, `first`, `last` or `trace`; None: there is none.

    `finished` says whether the reply ended by itself, not at the limit of tokens.
    """
    if rule == "trace":
        ended = reply if reply.endswith(task.end) or not finished else reply + task.end
        return answer_of(task, problem, ended)
    pattern = QUOTIENT if problem.op == "/" else NUMBER
    found = list(pattern.finditer(reply, _restated(task, problem, reply)))
    if not found:
        return None
    match = found[0 if rule == "first" else -1]
    if match.end() == len(reply) and not finished:
        return None
    whole, decimals, *rest = match.groups()
    if decimals.strip(".0") or len(whole) > MAX_CHARACTERS:
        return None
    return Answer(_number(whole), *(_number(part) for part in rest if part))


def digit_match(right: Answer, given: Answer | None) -> float:
    """The share of the right answer's digits that stand at their place, counted from the ones.

    As the digit match of the NUPA test (Yang et al. 2024, arXiv:2411.03766), without the sign. A
    remainder's digits count too; without an answer no digit is right.
    """
    pairs = list(zip(_parts(right), _parts(given), strict=True))
    same = sum(a == b for one, other in pairs for a, b in zip(one[::-1], other[::-1], strict=False))
    return same / sum(len(one) for one, _ in pairs)


def length_error(right: Answer, given: Answer | None) -> int:
    """By how many digits an answer is too long or too short: the `dlength` of the NUPA test."""
    pairs = zip(_parts(right), _parts(given), strict=True)
    return sum(abs(len(one) - len(other)) for one, other in pairs)


def _restated(task: Graded, problem: Problem, reply: str) -> int:
    """Where a reply goes on that begins with the problem and an equals sign; 0 if it does not."""
    words = re.findall(r"[0-9]+|\S", task.text(problem))
    pattern = r"\s*".join(SYMBOLS.get(word, re.escape(word)) for word in words)
    match = re.match(rf"[\s$*`(]*{pattern}[\s)]*=", reply)
    return match.end() if match else 0


def _parts(answer: Answer | None) -> tuple[str, str]:
    """The digits of an answer, and of its remainder if there is one."""
    if answer is None:
        return "", ""
    return str(abs(answer.whole)), str(abs(answer.rest)) if answer.rest else ""


def _number(text: str) -> int:
    return int(text.replace(",", "").replace("\u2212", "-"))
