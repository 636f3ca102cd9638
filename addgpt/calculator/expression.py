"""Arithmetic expressions, parsed into a flat list of nodes.

    line     = [name "="] sum
    sum      = product {("+" | "-") product}
    product  = signed {("*" | "/" | "//" | "%" | "mod") signed | power}     2(3+4) is 2*(3+4)
    signed   = {"+" | "-"} power
    power    = percent ["^" signed]                                        2^3^2 is 2^9
    percent  = operand {"%"}
    operand  = number | name | "(" sum ")"

>>> for node in parse("12*(34-5)").nodes:
...     print(node)
Literal(value=Number(units=12, places=0, rounded=False))
Literal(value=Number(units=34, places=0, rounded=False))
Literal(value=Number(units=5, places=0, rounded=False))
Chain(op='+', terms=[(1, 1), (-1, 2)])
Chain(op='*', terms=[(1, 0), (1, 3)])

Nodes come after those that they refer to, by index; the last one is the result. Nothing here
recurses, so that deep nesting cannot exhaust the stack, and nothing calls `eval`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from addgpt.calculator.numbers import Number, brief
from addgpt.calculator.typed import NUMERALS, VALID, WORDS, Token, level, tokens
from addgpt.config.errors import UsageError

MAX_CHARACTERS = 100_000
MAX_DEPTH = 1000
MAX_BITS = 1_000_000  # of an exact value's numerator or denominator: 301,030 digits
NEGATE = "negate"
PRECEDENCE = {
    "(": 0, "+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "mod": 2, NEGATE: 3, "^": 4,
}  # fmt: skip
OPEN, CLOSE = "([{", ")]}"
NO_NAMES = "names have values only at the prompt that `addgpt calc` opens"
ASSIGNED = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(?=.*[^\s=?])")
TIMES = re.compile("[xX][0-9]*")
EXAMPLE = "type an expression such as 12*(34-5)"


class Literal(NamedTuple):
    """A number as typed."""

    value: Number


class Name(NamedTuple):
    """A name that stands for an earlier value."""

    name: str


class Negation(NamedTuple):
    """Minus the result of an earlier node."""

    of: int


class Percent(NamedTuple):
    """A hundredth of the result of an earlier node."""

    of: int


class Operation(NamedTuple):
    """One of / // % ^ on the results of two earlier nodes."""

    op: str
    left: int
    right: int


class Chain(NamedTuple):
    """The sum of earlier results with a sign each, the first one's being 1, or their product."""

    op: str
    terms: list[tuple[int, int]]


Node = Literal | Name | Negation | Percent | Operation | Chain


@dataclass(frozen=True)
class Expression:
    """A parsed line.

    nodes  each after those that it refers to; None where one became part of another
    spans  the places in the text where each begins and ends
    name   what the result is to be called
    notes  what in it might have been meant otherwise
    """

    text: str
    nodes: list[Node | None]
    spans: list[tuple[int, int]]
    name: str | None = None
    notes: tuple[str, ...] = ()

    def shown(self, node: int) -> str:
        """A part of the expression as it was typed."""
        start, end = self.spans[node]
        return brief(self.text[start:end], "characters")


def operands(node: Node) -> tuple[int, ...]:
    """The indexes of the nodes whose results a node needs."""
    if isinstance(node, Negation | Percent):
        return (node.of,)
    if isinstance(node, Operation):
        return node.left, node.right
    return tuple(index for _, index in node.terms) if isinstance(node, Chain) else ()


def parse(text: str, names: Iterable[str] | None = None) -> Expression:
    """A line as an expression. `names` are those that have a value; None where there can be none.

    Raises UsageError, in one line, for anything that is not an expression.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"too long: {len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    text = level(text)
    name, match = None, ASSIGNED.match(text) if "=" in text else None
    if match:
        name = match[1]
        _check_name(name, names)
        text = " " * match.end() + text[match.end() :]
    parser = _Parser(text, names)
    parser.read(list(tokens(text)))
    return Expression(text, parser.nodes, parser.spans, name, tuple(parser.notes))


def exact(expression: Expression, names: Mapping[str, Fraction]) -> Fraction:
    """The exact value of an expression.

    `names` are the exact values of names. Raises ZeroDivisionError, OverflowError where a value on
    the way has more than MAX_BITS bits, which would take minutes, or for ever, and ArithmeticError
    where an exponent is not whole.
    """
    values: list[Fraction] = []
    for node in expression.nodes:
        found = Fraction(0)
        if isinstance(node, Literal):
            found = Fraction(node.value.value)
        elif isinstance(node, Name):
            found = names[node.name]
        elif isinstance(node, Negation):
            found = -values[node.of]
        elif isinstance(node, Percent):
            found = values[node.of] / 100
        elif isinstance(node, Chain):
            parts = [sign * values[index] for sign, index in node.terms]
            while len(parts) > 1:  # in pairs, which keeps large fractions few
                rest = parts[-1:] if len(parts) % 2 else []
                pairs = zip(parts[::2], parts[1::2], strict=False)
                parts = [_small(a + b if node.op == "+" else a * b) for a, b in pairs] + rest
            (found,) = parts
        elif node is not None:
            a, b = values[node.left], values[node.right]
            if node.op == "/":
                found = a / b
            elif node.op == "^":
                if b.denominator != 1:
                    raise ArithmeticError("no exact value: an exponent is whole by rounding alone")
                if _bits(a) * abs(int(b)) > MAX_BITS:  # before the power is computed
                    raise OverflowError
                found = a ** int(b)
            else:
                found = Fraction(a // b) if node.op == "//" else a % b
        values.append(_small(found))
    return values[-1]


def _bits(value: Fraction) -> int:
    """The bits of the longer one of a fraction's two numbers."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _small(value: Fraction) -> Fraction:
    """A value of at most MAX_BITS bits. Raises OverflowError."""
    if _bits(value) > MAX_BITS:
        raise OverflowError
    return value


class _Parser:
    """Operator precedence by two stacks (Dijkstra's shunting yard)."""

    def __init__(self, text: str, names: Iterable[str] | None) -> None:
        self.text, self.names = text, names
        self.nodes: list[Node | None] = []
        self.spans: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.unused: list[int] = []  # nodes that no operation has taken yet
        self.waiting: list[Token] = []  # operators, and brackets not yet closed
        self.depth = 0

    def read(self, line: list[Token]) -> None:
        """Read all tokens of a line. The nodes are complete afterwards."""
        if not line:
            raise UsageError(f"empty: {EXAMPLE}")
        complete = False  # whether an operand ends here
        for place, token in enumerate(line):
            then = line[place + 1] if place + 1 < len(line) else None
            if complete:
                complete = self._after_operand(token, then, line[place - 1])
            else:
                complete = self._operand(token, line[place - 1] if place else None)
        if not complete:
            raise UsageError(f"missing number after {self._typed(line[-1])!r}, at the end")
        self._reduce(1)
        if self.waiting:
            raise UsageError(f"unbalanced: {self._typed(self.waiting[-1])!r} is not closed")

    def _operand(self, token: Token, before: Token | None) -> bool:
        """A token where a number must come: whether it is one."""
        if token.value is not None:
            self._push(Literal(token.value), token.start, token.end)
            return True
        if token.kind == "name":
            self._push(Name(self._known(token)), token.start, token.end)
            return True
        if token.text == "-":
            self.waiting.append(token._replace(text=NEGATE))
        elif token.text in OPEN:
            self.waiting.append(token)
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise UsageError(f"too deep: more than {MAX_DEPTH:,} brackets inside one another")
        elif token.text in CLOSE and before is not None and before.text in OPEN:
            raise UsageError("empty brackets: ()")
        elif token.text == "=":
            raise UsageError(f"'=' may only stand at the beginning or the end; {EXAMPLE}")
        elif token.text != "+":  # a plus sign changes nothing
            raise UsageError(f"missing number before {self._typed(token)!r}")
        return False

    def _after_operand(self, token: Token, then: Token | None, before: Token) -> bool:
        """A token after a complete operand: whether one is complete after it, too."""
        op = token.text
        if token.kind == "name" and TIMES.fullmatch(op) and self._is_times(op, then):
            if then and (before.text, before.end, token.end) == ("0", token.start, then.start):
                raise UsageError("'0x' may begin a hexadecimal number: type 0 * 10 for a product")
            op = "*"
        elif op in ("%", "percent"):
            op = "mod" if op == "%" and self._is_mod(token, then, before) else "percent"
        if op == "percent":
            of = self.unused.pop()
            self._note_percent(token, then, of)
            self._push(Percent(of), self.spans[of][0], token.end)
            return True
        if op in CLOSE and token.kind == "op":
            self._close(token)
            return True
        if op in PRECEDENCE and op not in OPEN:
            # A power waits for what stands to its right: 2^3^2 is 2^9.
            self._reduce(PRECEDENCE[op] + (op == "^"))
            self.waiting.append(token._replace(text=op))
            return False
        if op == "=":
            raise UsageError(f"'=' may only stand at the beginning or the end; {EXAMPLE}")
        if token.value is not None and before.text not in CLOSE:
            shown = brief(self._typed(token), "characters")
            raise UsageError(f"missing operator before {shown!r}; separators group by three: 1 234")
        self._implied(token, before)
        return self._operand(token, before)

    def _implied(self, token: Token, before: Token) -> None:
        """A product without its sign, 2(3+4)."""
        if token.kind == "name":
            self._known(token)
        left = before if before.text not in CLOSE else None
        divided = any(x.text in ("/", "//", "mod") for x in self.waiting[-1:])
        self._reduce(PRECEDENCE["*"])
        if divided and left is not None and not self.notes:
            self.notes.append("a product without * counts like one with it: 6/2(3) is 6/2*3")
        self.waiting.append(Token("op", "*", token.start, token.start))

    def _close(self, token: Token) -> None:
        self._reduce(1)
        if not self.waiting:
            raise UsageError(f"unbalanced: {token.text!r} was never opened")
        opened = self.waiting.pop()
        if OPEN.index(opened.text) != CLOSE.index(token.text):
            raise UsageError(f"unbalanced: {opened.text!r} is closed by {token.text!r}")
        self.depth -= 1
        self.spans[self.unused[-1]] = (opened.start, token.end)

    def _is_times(self, word: str, then: Token | None) -> bool:
        """Whether an x after an operand is a multiplication sign, not a name."""
        begins = then is not None and (then.kind != "op" or then.text in OPEN)
        return begins or word not in (self.names or ())

    def _is_mod(self, token: Token, then: Token | None, before: Token) -> bool:
        """Whether % is the remainder of a division, not a percent sign.

        Before a number it is; before a minus sign, only the spaces tell.
        """
        if then is None:
            return False
        if then.text == "-" and then.kind == "op":
            apart = (token.start > before.end, then.start > token.end)
            glued = self.text[then.end : then.end + 1] != " "  # 10 % -3
            if apart[0] == apart[1] and not (apart[0] and glued):
                raise UsageError(
                    "'%-' may be a percentage less something, or a remainder: type (10%) - 3, or "
                    "10 mod -3"
                )
            return apart[0]
        return then.kind != "op" or then.text in OPEN

    def _note_percent(self, token: Token, then: Token | None, of: int) -> None:
        """200+15% might have been meant as 15 % more."""
        alone = then is None or then.text in ("+", "-", *CLOSE)
        if alone and self.waiting and self.waiting[-1].text in ("+", "-") and not self.notes:
            shown = brief(self.text[self.spans[of][0] : token.end].strip(), "characters")
            if isinstance(self.nodes[of], Literal):
                op = self.waiting[-1].text
                self.notes.append(
                    f"{shown} stands for a hundredth of it; for a change by that much: "
                    f"200*(100{op}15)%"
                )

    def _reduce(self, least: int) -> None:
        """Turn waiting operators that bind at least so tightly into nodes."""
        while self.waiting and PRECEDENCE.get(self.waiting[-1].text, 0) >= least:
            token = self.waiting.pop()
            right = self.unused.pop()
            end = self.spans[right][1]
            if token.text == NEGATE:
                self._push(Negation(right), token.start, end)
                continue
            left = self.unused.pop()
            start = self.spans[left][0]
            if token.text in "+-*":
                self._push(self._chain(token.text, left, right), start, end)
            else:
                self._push(Operation(token.text, left, right), start, end)

    def _chain(self, op: str, left: int, right: int) -> Chain:
        """A sum or product, as one with the sum or product on its left."""
        kind, sign = ("*", 1) if op == "*" else ("+", 1 if op == "+" else -1)
        node = self.nodes[left]
        if isinstance(node, Chain) and node.op == kind:
            self.nodes[left] = None
            node.terms.append((sign, right))
            return node
        return Chain(kind, [(1, left), (sign, right)])

    def _push(self, node: Node, start: int, end: int) -> None:
        self.unused.append(len(self.nodes))
        self.nodes.append(node)
        self.spans.append((start, end))

    def _typed(self, token: Token) -> str:
        return self.text[token.start : token.end] or token.text

    def _known(self, token: Token) -> str:
        """A name that has a value, which may be asked for by another case."""
        word = token.text
        if self.names is not None and word in self.names:
            return word
        if word.lower() in NUMERALS:
            raise UsageError(f"{word!r}: numbers are typed in digits, {NUMERALS[word.lower()]}")
        if self.text[token.end :].lstrip()[:1] in OPEN and self.text[token.end :].strip():
            raise UsageError(f"there is no function {brief(word, 'characters')!r}; valid: {VALID}")
        if self.names is None:
            if word == "ans":
                raise UsageError(NO_NAMES)
            raise UsageError(f"unknown word {brief(word, 'characters')!r}; valid: {VALID}")
        close = difflib.get_close_matches(word, list(self.names), 3)
        shown = brief(word, "characters")
        hint = f"did you mean {' or '.join(close)}?" if close else f"{shown} = 12*3 gives one"
        raise UsageError(f"{shown!r} has no value; {hint}")


def _check_name(name: str, names: Iterable[str] | None) -> None:
    """Raise UsageError for a name that cannot be given a value."""
    if names is None:
        raise UsageError(NO_NAMES)
    if name == "ans":
        raise UsageError("'ans' is the last answer; choose another name")
    if TIMES.fullmatch(name) and name.lower() != "x":
        raise UsageError(f"{name!r} reads as times {name[1:]}; choose another name")
    if name.lower() in WORDS or name.lower() in NUMERALS:
        raise UsageError(f"{name!r} is a word of the calculator; choose another name")
