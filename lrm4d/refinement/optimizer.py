"""Adam over named tensors whose first dimension may grow and shrink: all its state is tensors that can be saved."""

from collections.abc import Mapping

import torch
from torch import Tensor

BETAS = (0.9, 0.99)
EPSILON = 1e-15


class Adam:
    """Kingma and Ba, ICLR 2015. parameters: leaf tensors by name; they are changed in place.

    counts: the updates that each tensor has had, for the correction of the moments' start.
    """

    def __init__(self, parameters: dict[str, Tensor]):
        self.parameters = parameters
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.counts = dict.fromkeys(parameters, 0)

    @torch.no_grad()
    def step(self, rates: Mapping[str, float]) -> None:
        """Move every tensor that has a gradient by about its rate, and forget the gradients."""
        for name, value in self.parameters.items():
            gradient, value.grad = value.grad, None
            if gradient is None or rates[name] == 0:
                continue
            self.counts[name] += 1
            first, second, count = self.first[name], self.second[name], self.counts[name]
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            scale = (second / (1 - BETAS[1] ** count)).sqrt_().add_(EPSILON)
            value.addcdiv_(first, scale, value=-rates[name] / (1 - BETAS[0] ** count))

    def replace(self, name: str, value: Tensor, first: Tensor, second: Tensor) -> None:
        """Put another tensor, with its moments, in the place of one."""
        self.parameters[name] = value.detach().requires_grad_()
        self.first[name], self.second[name] = first, second
