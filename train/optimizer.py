"""The optimizer: Muon for the transformer's matrices, AdamW for all else."""

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration brings even small singular values near 1 in few steps (Jordan et al.)."""
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024), its step scaled to AdamW's (Liu et al., arXiv 2502.16982), on matrices in stacks.

    Computes what torch.optim.Muon does with adjust_lr_fn="match_rms_adamw", and keeps the same state. That one goes
    matrix by matrix: at 12 layers of width 256 its some 1400 small kernels took 28 ms of a step of 120 ms, nearly all
    of it for launching them. Here all matrices of one shape are one batch.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            if not matrices:  # which _foreach operations refuse
                continue
            torch._foreach_lerp_([self._momentum(p) for p in matrices], [p.grad for p in matrices], 1 - MOMENTUM)
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            for shape in dict.fromkeys(p.shape for p in matrices):
                self._move([p for p in matrices if p.shape == shape], group["lr"])

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]

    def _move(self, matrices: list[nn.Parameter], lr: float) -> None:
        """Nesterov's step, orthogonalized, on matrices of one shape."""
        momenta = [self._momentum(p) for p in matrices]
        updates = orthogonalize(torch.stack(torch._foreach_lerp([p.grad for p in matrices], momenta, MOMENTUM)))
        # In another type or order of strides than the weights, _foreach_add_ too would go matrix by matrix.
        updates = updates.to(matrices[0].dtype, memory_format=torch.contiguous_format)
        torch._foreach_add_(matrices, updates.unbind(), alpha=-0.2 * lr * max(matrices[0].shape) ** 0.5)


def orthogonalize(stack: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T of a [matrix, row, column] stack, in bfloat16: Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).bfloat16()  # x x^T is to be the smaller square
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        square = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on the blocks' matrices, AdamW on embeddings, heads and vectors; one learning rate serves both."""

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float):
        hidden = {id(p) for p in model.transformer.blocks.parameters() if p.dim() == 2}
        matrices = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in hidden]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        self.muon = Muon([p for p in model.parameters() if id(p) in hidden], learning_rate, weight_decay)
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)
        super().__init__(model.parameters(), {"lr": learning_rate})
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of both."""
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both by name."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Both states."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


def make_optimizer(name: str, model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """ "adamw" or "muon"; weights decay on matrices only (4D-LRM: betas .9, .95)."""
    if name == "muon":
        return MuonWithAdamW(model, learning_rate, weight_decay)
    if name != "adamw":
        raise ValueError(f"optimizer {name!r} is not adamw or muon.")
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)
