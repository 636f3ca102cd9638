"""Arithmetic expressions of whole numbers: parsed into a flat list of operations and evaluated.

`12*(34-5)` becomes numbers and operations in the order in which they can be evaluated; each refers
to earlier ones by index and the last one is the result:

>>> for node in parse("12*(34-5)"):
...     print(node)
Number(value=12)
Number(value=34)
Number(value=5)
Operation(op='-', left=1, right=2)
Operation(op='*', left=0, right=3)
>>> print(evaluate(parse("12*(34-5)"))[-1], "|", evaluate(parse("-17/5"))[-1])
348 | -3 remainder -2

Nothing here recurses, so that deep nesting cannot exhaust the stack, and nothing calls `eval`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from addgpt.config.errors import UsageError
from addgpt.task import MAX_DIGITS, TOO_LARGE, Answer, Problem

MAX_CHARACTERS = 10_000
MAX_DEPTH = 1000
OPERATORS = "+-*/"
TOKEN = re.compile(r"[0-9]+|\*\*|//|[-+*/()]")
EXPONENT = re.compile(r"[eE][-+]?[0-9]")
SPACE = " \t\r\n\f\v"
NEGATE = "negate"
PRECEDENCE = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2, NEGATE: 3}
LOOKALIKES = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", ":": "/", "[": "(", "]": ")"}

# An operation, and which of its operands are negative -> the problem on their absolute values:
# the operation, whether they change places, and the sign of the result.
SIGNS = {
    ("+", False, False): ("+", False, 1),
    ("+", False, True): ("-", False, 1),
    ("+", True, False): ("-", True, 1),
    ("+", True, True): ("+", False, -1),
    ("-", False, False): ("-", False, 1),
    ("-", False, True): ("+", False, 1),
    ("-", True, False): ("+", False, -1),
    ("-", True, True): ("-", True, 1),
}


class Number(NamedTuple):
    """A number as typed."""

    value: int


class Negation(NamedTuple):
    """Minus the result of an earlier node."""

    of: int


class Operation(NamedTuple):
    """One of + - * / on the results of two earlier nodes."""

    op: str
    left: int
    right: int

    @property
    def operands(self) -> tuple[int, ...]:
        return self.left, self.right


class Addition(NamedTuple):
    """The sum of more than two earlier results, none of which is negative."""

    operands: tuple[int, ...]

    @property
    def op(self) -> str:
        return "+"


Node = Number | Negation | Operation | Addition
Expression = tuple[Node, ...]


class Question(NamedTuple):
    """A problem without signs, and the signs of its result and of its rest."""

    problem: Problem
    sign: int
    rest_sign: int
    reduction: str  # the operation with its signs

    def signed(self, answer: Answer) -> Answer:
        """The result that an answer to the problem stands for."""
        return Answer(self.sign * answer.whole, self.rest_sign * answer.rest)


def parse(text: str) -> Expression:
    """The nodes of an expression with + - * /, parentheses and signs.

    As in Python, a sign binds more tightly than * and /. One `=` at the end is let pass. Raises
    ValueError, in one line, for anything else.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"too long: {len(text):,} characters; the most is {MAX_CHARACTERS:,}")
    parser = _Parser()
    for token in _tokens(_without_equals(text)):
        parser.read(token)
    return parser.finish()


def evaluate(expression: Expression) -> list[Answer]:
    """The exact value of every node, by Python integers; the last one is the result.

    Division truncates toward zero and the remainder has the sign of the dividend, so that
    dividend = quotient * divisor + remainder. Raises UsageError for a division by zero, for an
    inexact division whose result is used further and for numbers that grow beyond all bounds.
    """
    values: list[Answer] = []
    for node in expression:
        if isinstance(node, Number):
            values.append(Answer(node.value))
        elif isinstance(node, Negation):
            values.append(negative(values[node.of]))
        else:
            operands = [whole(values[place]) for place in node.operands]
            if max(map(abs, operands)) >= TOO_LARGE:
                raise UsageError(f"an intermediate result has more than {MAX_DIGITS:,} digits")
            values.append(apply(node.op, *operands))
    return values


def joined(expression: Expression, values: list[Answer]) -> Expression:
    """The same, sums of sums as one `Addition` each, where no number in them is negative.

    `values` are those of its nodes.

    >>> for node in joined(parse("1+2+3"), evaluate(parse("1+2+3"))):
    ...     print(node)
    Number(value=1)
    Number(value=2)
    Number(value=3)
    Addition(operands=(0, 1, 2))
    """
    terms: dict[int, tuple[int, ...]] = {}  # what a sum is the sum of
    inner: set[int] = set()  # sums that are part of another
    for index, node in enumerate(expression):
        if isinstance(node, Operation) and node.op == "+":
            found = sum((terms.get(place, (place,)) for place in node.operands), ())
            if all(values[place].whole >= 0 for place in found):
                terms[index] = found
                inner.update(place for place in node.operands if place in terms)
    out: list[Node] = []
    new: dict[int, int] = {}
    for index, node in enumerate(expression):
        if index in inner:
            continue
        if isinstance(node, Negation):
            node = Negation(new[node.of])
        elif len(terms.get(index, ())) > 2:
            node = Addition(tuple(new[place] for place in terms[index]))
        elif isinstance(node, Operation):
            node = Operation(node.op, new[node.left], new[node.right])
        new[index] = len(out)
        out.append(node)
    return tuple(out)


def problems(expression: Expression, values: Sequence[Answer]) -> tuple[Problem, ...]:
    """What its operations ask without signs (-3+5 is 5-3), given the `values` of its nodes."""
    asked = (node for node in expression if isinstance(node, Operation | Addition))
    sides = ((node.op, [values[place].whole for place in node.operands]) for node in asked)
    return tuple(unsigned(op, *numbers).problem for op, numbers in sides)


def negative(value: Answer) -> Answer:
    return Answer(-value.whole, -value.rest)


def apply(op: str, *operands: int) -> Answer:
    """One exact operation. Raises UsageError for a division by zero."""
    if op == "+":
        return Answer(sum(operands))
    left, right = operands
    if op == "-":
        return Answer(left - right)
    if op == "*":
        return Answer(left * right)
    if right == 0:
        raise UsageError("division by zero")
    quotient, rest = divmod(abs(left), abs(right))
    return Answer(
        quotient if (left < 0) == (right < 0) else -quotient, rest if left >= 0 else -rest
    )


def whole(value: Answer) -> int:
    """A value that an operation may use. Raises UsageError where it has a rest."""
    if value.rest:
        raise UsageError(
            f"a division inside a longer expression must be exact, but one leaves "
            f"{brief(abs(value.whole))} remainder {brief(abs(value.rest))}"
        )
    return value.whole


def rounds(expression: Expression) -> list[list[int]]:
    """Indexes of the nodes that can be evaluated together, each round after the one before.

    Round 0 holds what needs no operation. A negation is in the round of what it negates.
    """
    level: list[int] = []
    for node in expression:
        if isinstance(node, Number):
            level.append(0)
        elif isinstance(node, Negation):
            level.append(level[node.of])
        else:
            level.append(1 + max(level[place] for place in node.operands))
    out: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for index, turn in enumerate(level):
        out[turn].append(index)
    return out


def brief(number: int | str, of: str = "digits", most: int = 24) -> str:
    """A number or other text, its middle left out where it is long."""
    text = str(number)
    return text if len(text) <= most else f"{text[:8]}...{text[-8:]} ({len(text):,} {of})"


def unsigned(op: str, *numbers: int) -> Question:
    """An operation on signed numbers as one on non-negative numbers.

    Of a sum of more than two none may be negative.

    >>> unsigned("+", -3, 5)
    Question(problem=Problem(op='-', operands=(5, 3)), sign=1, rest_sign=1, reduction='-3 + 5')
    """
    first, *others = numbers
    reduction = f" {op} ".join([str(first), *(str(x) if x >= 0 else f"({x})" for x in others)])
    if len(numbers) > 2:
        assert min(numbers) >= 0, numbers
        return Question(Problem(op, numbers), 1, 1, reduction)
    a, b = numbers
    x, y = abs(a), abs(b)
    if op in "*/":
        sign = 1 if (a < 0) == (b < 0) else -1
        return Question(Problem(op, (x, y)), sign, 1 if a >= 0 else -1, reduction)
    asked, swap, sign = SIGNS[op, a < 0, b < 0]
    return Question(Problem(asked, (y, x) if swap else (x, y)), sign, 1, reduction)


class _Parser:
    """Operator precedence by two stacks (Dijkstra's shunting yard)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.operands: list[int] = []  # nodes not yet used by an operation
        self.waiting: list[str] = []  # operators, and parentheses not yet closed
        self.depth = 0
        self.last = ""

    def read(self, token: str) -> None:
        if self.last.isdigit() or self.last == ")":
            self._after_operand(token)
        else:
            self._operand(token)
        self.last = token

    def finish(self) -> Expression:
        if not self.last:
            raise UsageError("empty: type an expression such as 12*(34-5)")
        if not (self.last.isdigit() or self.last == ")"):
            raise UsageError(f"missing operand after {self.last!r}, at the end")
        self._reduce(1)
        if self.waiting:
            raise UsageError("unbalanced parentheses: '(' is not closed")
        return tuple(self.nodes)

    def _operand(self, token: str) -> None:
        """A token where a number must come."""
        if token.isdigit():
            self._push(Number(int(token)))
        elif token == "-":
            self.waiting.append(NEGATE)
        elif token == "(":
            self.waiting.append("(")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise UsageError(f"too deep: more than {MAX_DEPTH:,} parentheses inside another")
        elif token == ")" and self.last == "(":
            raise UsageError("empty parentheses: ()")
        elif token != "+":  # a plus sign changes nothing
            raise UsageError(f"missing operand before {token!r}")

    def _after_operand(self, token: str) -> None:
        """A token after a complete operand."""
        if token in OPERATORS:
            self._reduce(PRECEDENCE[token])
            self.waiting.append(token)
        elif token == ")":
            self._reduce(1)
            if not self.waiting:
                raise UsageError("unbalanced parentheses: ')' without '('")
            self.waiting.pop()
            self.depth -= 1
        else:
            raise UsageError(f"missing operator before {brief(token)!r}")

    def _reduce(self, least: int) -> None:
        """Turn waiting operators that bind at least so tightly into nodes."""
        while self.waiting and PRECEDENCE[self.waiting[-1]] >= least:
            op = self.waiting.pop()
            if op == NEGATE:
                self._push(Negation(self.operands.pop()))
            else:
                right, left = self.operands.pop(), self.operands.pop()
                self._push(Operation(op, left, right))

    def _push(self, node: Node) -> None:
        self.operands.append(len(self.nodes))
        self.nodes.append(node)


def _without_equals(text: str) -> str:
    """`12+34=` is how people write a question."""
    bare = text.rstrip(SPACE)
    return bare[:-1] if bare.endswith("=") and len(bare) > 1 else bare


def _tokens(text: str) -> Iterator[str]:
    """Numbers, operators and parentheses. Raises UsageError at whatever else there is."""
    place = 0
    while place < len(text):
        if text[place] in SPACE:
            place += 1
            continue
        match = TOKEN.match(text, place)
        if match is None:
            raise UsageError(_complaint(text, place))
        token = match[0]
        if token == "**":
            raise UsageError("powers (**) are not supported; valid: + - * / ( )")
        if token == "//":
            raise UsageError("// is not supported; / gives quotient and remainder")
        if len(token) > MAX_DIGITS:
            raise UsageError(f"a number has {len(token):,} digits; the most is {MAX_DIGITS:,}")
        yield token
        place = match.end()


def _complaint(text: str, place: int) -> str:
    """What is wrong with the character at a place that starts no token."""
    char = text[place]
    if char == ".":
        return "decimal points ('.') are not supported; only whole numbers are"
    if place and text[place - 1] in "0123456789" and EXPONENT.match(text, place):
        return f"exponents ({char!r} as in 1e5) are not supported; write the number in full"
    if char.isnumeric():
        return f"{char!r} is not an ASCII digit; valid: 0-9"
    if char in LOOKALIKES:
        return f"unknown character {char!r}; write {LOOKALIKES[char]}"
    return f"unknown character {char!r}; valid: 0-9 + - * / ( )"
