"""More Gaussians where the pictures ask for them, fewer where nothing is seen, never more than a budget."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.refinement.config import Density
from lrm4d.refinement.deforming import Deforming
from lrm4d.refinement.optimizer import Adam
from lrm4d.rotations import quaternion_to_matrix

OFFSET, NARROWER = 0.5, 0.7
"""Halves of a Gaussian lie so many deviations off, along its longest axis, and are so much narrower there."""


@torch.no_grad()
def densify_and_prune(deforming: Deforming, adam: Adam, gradients: Float[Tensor, "n"], density: Density) -> Deforming:
    """Take away what is too faint or too large, then split those with the largest gradients of their means in two.

    gradients: their sums of norms since the last time. adam's tensors and moments follow; new ones start at rest.
    """
    kept = _keep(deforming, density)
    room = max(0, density.budget - len(kept))
    grown = min(room, int(density.growth * len(kept)))
    parents = kept[gradients[kept].topk(grown).indices] if grown else kept[:0]
    order = torch.cat([kept, parents])
    shifts, narrower = _halves(deforming, parents)
    places = torch.searchsorted(kept, parents)
    for name in deforming.gaussians:
        value = adam.parameters[name].detach()[order]
        if name in ("means", "log_scales"):
            change = shifts if name == "means" else narrower
            value[places] += change
            value[len(kept) :] += -change if name == "means" else change
        moments = [moment[name][order] for moment in (adam.first, adam.second)]
        for moment in moments:
            moment[len(kept) :] = 0
        adam.replace(name, value, *moments)
    skeleton = None if deforming.skeleton is None else deforming.skeleton.select(order)
    groups = None if deforming.groups is None else deforming.groups[order]
    gaussians = {name: adam.parameters[name] for name in deforming.gaussians}
    return replace(deforming, gaussians=gaussians, skeleton=skeleton, groups=groups)


def _keep(deforming: Deforming, density: Density) -> Tensor:
    """Indices, ascending, of those that stay: the most opaque where even they are too many."""
    opacities = torch.sigmoid(deforming.gaussians["opacity_logits"])
    small = deforming.gaussians["log_scales"].exp().amax(dim=1) <= density.largest
    kept = ((opacities >= density.faintest) & small).nonzero()[:, 0]
    if len(kept) > density.budget:
        kept = kept[opacities[kept].topk(density.budget).indices].sort().values
    return kept


def _halves(deforming: Deforming, parents: Tensor) -> tuple[Float[Tensor, "parent 3"], Float[Tensor, "parent 3"]]:
    """How far halves lie off their parents, and the change of the logs of their scales."""
    log_scales = deforming.gaussians["log_scales"][parents]
    longest = torch.nn.functional.one_hot(log_scales.argmax(dim=1), 3).to(log_scales)
    axes = quaternion_to_matrix(deforming.gaussians["quaternions"][parents])
    shifts = OFFSET * (axes @ (longest * log_scales.exp())[..., None])[..., 0]
    return shifts, longest * torch.log(log_scales.new_tensor(NARROWER))
