"""Operands to draw, and right answers."""

from hypothesis import strategies as st


def answer(op: str, a: int, b: int) -> tuple[int, int]:
    """The right answer, and the rest of a quotient."""
    return (a // b, a % b) if op == "/" else ({"+": a + b, "-": a - b, "*": a * b}[op], 0)


def operands(digits: int):
    """Numbers of 1 to `digits` digits, lengths as likely as one another, edge cases often."""
    lengths = st.integers(1, digits)
    plain = lengths.flatmap(lambda n: st.integers(10 ** (n - 1) if n > 1 else 0, 10**n - 1))
    edge = lengths.map(lambda n: 10**n - 1) | lengths.map(lambda n: 10 ** (n - 1))
    return plain | edge
