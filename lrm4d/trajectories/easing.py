"""How a move starts and ends: smooth maps of [0, 1] onto itself whose ends are exact."""

from collections.abc import Callable

from torch import Tensor

EASINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda u: u,
    "in": lambda u: u * u,
    "out": lambda u: u * (2 - u),
    "in-out": lambda u: u * u * (3 - 2 * u),
}
"""Closed forms: `in` starts at rest, `out` ends at rest, `in-out` does both (the cubic with level ends)."""
