"""The optimizer: Muon for the transformer's matrices, AdamW for all else."""

from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024; torch.optim.Muon) on the blocks' matrices, AdamW on embeddings, heads and vectors.

    Muon's step is scaled to AdamW's (Liu et al., arXiv 2502.16982), so that one learning rate serves both.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float):
        hidden = {id(p) for p in model.transformer.blocks.parameters() if p.dim() == 2}
        matrices = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in hidden]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        self.muon = torch.optim.Muon(
            [p for p in model.parameters() if id(p) in hidden],
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
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
