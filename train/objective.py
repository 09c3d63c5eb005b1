"""What the reconstruction network is trained for: pictures it was not given, and the world's exact geometry."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import l1_loss, smooth_l1_loss

from data_tools.world import WorldViews
from lrm4d.losses import color_loss, psnr_loss, silhouette_loss, ssim_loss
from lrm4d.reconstruction import Reconstruction
from train.config import LossWeights

DIRECT = ("depth", "match", "flow")
"""The terms that only a made world can teach."""


def reconstruction_losses(
    answer: Reconstruction, context: WorldViews, targets: WorldViews, weights: LossWeights, geometry: float
) -> dict[str, Tensor]:
    """The weighted terms of the loss by name; `geometry` scales the direct ones (depth, match, flow)."""
    white = targets.views.images.new_ones(3)
    rendering = answer.gaussians.render(targets.views.cameras, targets.views.times, white)
    truth = targets.views.composite(white)
    losses = {
        "color": weights.color * color_loss(rendering.image, truth),
        "alpha": weights.alpha * silhouette_loss(rendering.alpha, targets.views.alphas),
    }
    if weights.psnr:
        losses["psnr"] = weights.psnr * psnr_loss(rendering.image, truth)
    if weights.ssim:
        losses["ssim"] = weights.ssim * ssim_loss(rendering.image.flatten(0, 1), truth.flatten(0, 1))
    if geometry > 0 and len(answer.tokens):
        wanted = [name for name in DIRECT if getattr(weights, name)]
        direct = geometry_losses(answer, context, wanted)
        losses |= {name: geometry * getattr(weights, name) * value for name, value in direct.items()}
    return losses


def geometry_losses(answer: Reconstruction, context: WorldViews, wanted: Sequence[str] = DIRECT) -> dict[str, Tensor]:
    """Distances, matching and velocity of the Gaussians of context pixels against the world's, as far as wanted.

    depth: Huber on the distances along the ray at which it enters the object and, if the network has exits, leaves it
    (world units, quadratic below 0.05). match: cross-entropy of the distance logits, the true distance shared between
    its two neighbouring steps. flow: L1 on the velocity.
    """
    tokens, pixels, patches = answer.tokens, answer.pixels, answer.patches
    distances = true_distances(answer, context)[:, : answer.distances.shape[1]]
    known = distances > 0  # shards may lack the exits
    hits = known[:, 0]
    if not bool(hits.any()):
        return {}  # pictures without known geometry: a mean over nothing is not a number
    losses = {}
    if "depth" in wanted:
        losses["depth"] = smooth_l1_loss(answer.distances[known], distances[known], beta=0.05)
    if "flow" in wanted:
        # World flow is per clip, model time runs from -1 to 1 over it: twice as far.
        flows = patches.cut(context.flows)[tokens, pixels][hits] / 2
        velocities = answer.gaussians.to_moving().velocities[answer.slots][hits, 0]
        losses["flow"] = l1_loss(velocities, flows)
    if "match" in wanted and answer.distance_logits.shape[-1]:
        near, far = patches.spans[tokens, pixels].split(1, dim=-1)
        fractions = (distances - near) / (far - near).clamp(min=1e-3)
        losses["match"] = _match_loss(answer.distance_logits[known], fractions[known])
    return losses


def true_distances(answer: Reconstruction, context: WorldViews) -> Float[Tensor, "pixel 2"]:
    """The world's distances along the answer's rays at which they enter and leave the object, 0 where not known."""
    tokens, pixels, patches = answer.tokens, answer.pixels, answer.patches
    depths = patches.cut(torch.cat([context.depths, context.exits], dim=2) * context.hits)[tokens, pixels]
    forward = context.views.cameras.camera_to_world[..., :3, 2][patches.scenes[tokens], patches.views[tokens]]
    return depths / (patches.directions[tokens, pixels] * forward).sum(-1, keepdim=True)


def _match_loss(logits: Tensor, fractions: Tensor) -> Tensor:
    steps = logits.shape[-1]
    place = (fractions * steps - 0.5).clamp(0, steps - 1.001)
    lower = place.long()
    share = place - lower
    shares = torch.stack([1 - share, share], dim=-1)
    neighbours = logits.gather(-1, torch.stack([lower, lower + 1], dim=-1))
    return (logits.logsumexp(dim=-1) - (shares * neighbours).sum(dim=-1)).mean()
