"""Random choices of one scene: plain Python numbers drawn from a torch.Generator, so that a seed fixes a scene."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

Choice = TypeVar("Choice")


class Dice:
    """Draws numbers in chunks (a call of torch a number would be most of the time that a scene takes)."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.numbers: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self.numbers:
            self.numbers = torch.rand(512, generator=self.generator, dtype=torch.float64).tolist()
        return self.numbers.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def log_uniform(self, low: float, high: float) -> float:
        """A number in [low, high), evenly over its logarithm."""
        return low * (high / low) ** self.unit()

    def coin(self, probability: float = 0.5) -> bool:
        """True with a probability."""
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + min(int(self.unit() * (high - low + 1)), high - low)

    def choose(self, choices: Sequence[Choice], weights: Sequence[float] | None = None) -> Choice:
        """One of the choices, by weight where weights are given."""
        if weights is None:
            return choices[self.integer(0, len(choices) - 1)]
        left = self.unit() * sum(weights)
        for choice, weight in zip(choices, weights, strict=True):
            left -= weight
            if left < 0:
                return choice
        return choices[-1]

    def direction(self) -> tuple[float, float, float]:
        """A unit vector, evenly over the sphere."""
        z, angle = self.uniform(-1, 1), self.uniform(0, 2 * math.pi)
        across = math.sqrt(max(1 - z * z, 0.0))
        return across * math.cos(angle), across * math.sin(angle), z

    def sign(self) -> float:
        """1 or -1."""
        return 1.0 if self.coin() else -1.0
