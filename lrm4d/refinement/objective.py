"""What a refinement minimizes: errors of pictures, each pixel by its confidence, and what keeps a scene plausible."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from lrm4d.losses import SSIM_WINDOW, ssim_map
from lrm4d.refinement.config import Weights
from lrm4d.refinement.deforming import Deforming
from lrm4d.refinement.motion import rigidity_loss, unsteadiness_loss


@dataclass(frozen=True)
class Pictures:
    """Pictures to be like. colors: premultiplied by alpha. confidences: the weight of each pixel, from 0."""

    colors: Float[Tensor, "*batch 3 height width"]
    alphas: Float[Tensor, "*batch 1 height width"]
    confidences: Float[Tensor, "*batch 1 height width"]

    def __getitem__(self, index) -> "Pictures":
        """Some of them, along the batch dimensions."""
        return Pictures(self.colors[index], self.alphas[index], self.confidences[index])

    def halved(self) -> "Pictures":
        """At half the size, means of two by two pixels (an odd last row or column is left out)."""
        batch = self.colors.shape[:-3]
        return Pictures(*(avg_pool2d(x.flatten(0, -4), 2).unflatten(0, batch) for x in vars(self).values()))

    def weighed(self, weights: Sequence[float]) -> "Pictures":
        """With confidences times a weight for each along the last batch dimension."""
        return replace(self, confidences=self.confidences * self.confidences.new_tensor(weights)[:, None, None, None])

    def on(self, backgrounds: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch 3 height width"]:
        """Composited."""
        return self.colors + (1 - self.alphas) * backgrounds[..., None, None]


def join(parts: Sequence[Pictures], dim: int) -> Pictures:
    """Pictures side by side along a batch dimension."""
    return Pictures(*(torch.cat([vars(part)[name] for part in parts], dim) for name in vars(parts[0])))


def picture_loss(
    drawn: Pictures, truth: Pictures, backgrounds: Float[Tensor, "*batch 3"], weights: Weights
) -> Float[Tensor, ""]:
    """Squared errors of the pictures on backgrounds and of their alphas, and 1 - SSIM, each pixel by its confidence.

    On a background of any colour, what floats before the object in the background's colour is seen. A confidence of 1
    everywhere gives plain means.
    """
    told = truth.colors, truth.alphas, truth.confidences
    loss = _SquaredErrors.apply(drawn.colors, drawn.alphas, *told, backgrounds, weights.alpha)
    if weights.ssim and min(drawn.colors.shape[-2:]) >= SSIM_WINDOW:
        ours, theirs = drawn.on(backgrounds), truth.on(backgrounds)
        rim = SSIM_WINDOW // 2
        inner = truth.confidences[..., rim:-rim, rim:-rim]
        loss = loss + weights.ssim * (inner * (1 - ssim_map(ours, theirs))).mean()
    return loss


class _SquaredErrors(torch.autograd.Function):
    """Of colours on backgrounds, and of alphas, as picture_loss has them, with their gradients in the same passes over
    the pixels: composed of single operations, a step takes 6 % longer (two cores)."""

    @staticmethod
    def forward(ctx, colors, alphas, true_colors, true_alphas, confidences, backgrounds, weight):
        gaps = alphas - true_alphas
        errors = torch.addcmul(colors - true_colors, backgrounds[..., None, None], gaps, value=-1)
        of_colors, of_alphas = confidences * errors, confidences * gaps
        loss = torch.dot(of_colors.flatten(), errors.flatten()) / colors.numel()
        loss = loss + weight * torch.dot(of_alphas.flatten(), gaps.flatten()) / alphas.numel()
        of_colors *= 2 / colors.numel()
        through = (backgrounds[..., None, :] @ of_colors.flatten(-2)).view_as(alphas)
        of_alphas = of_alphas.mul_(2 * weight / alphas.numel()).sub_(through)
        ctx.save_for_backward(of_colors, of_alphas)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale):
        return *(scale * gradient for gradient in ctx.saved_tensors), None, None, None, None, None


def expose(drawn: Pictures, gains: Float[Tensor, "moment 3"]) -> Pictures:
    """Pictures [moment, look], the first at each moment as another camera would take it: times exp(gain)."""
    factors = pad(gains[:, None], (0, 0, 0, drawn.colors.shape[1] - 1)).exp()
    return replace(drawn, colors=drawn.colors * factors[..., None, None])


def exposure_loss(gains: Float[Tensor, "view 3"]) -> Float[Tensor, ""]:
    """Squares of the gains: nothing is explained by exposure that needs not be."""
    return gains.square().mean()


def stillness_loss(deforming: Deforming) -> Float[Tensor, ""]:
    """How far Gaussians are from rest: mean speed, in world units per model time.

    A Gaussian at rest is one whose left and right quaternion agree; the speed is what their difference stands for. Not
    squared, so that what stands stays exactly where it is and what moves is not held back more for moving fast.
    """
    speeds = deforming.gaussians["velocities"]
    loss = _length(speeds).mean()
    for steps in deforming.motion.values():
        loss = loss + _length(steps).mean() * (steps.shape[1] - 1) / 2
    return loss


def agreement_loss(velocities: Float[Tensor, "n 3"], groups: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """How much Gaussians move unlike those around them: squares of velocities less their group's mean."""
    members = torch.bincount(groups).to(velocities)[:, None].clamp(min=1)
    means = velocities.new_zeros(len(members), 3).index_add(0, groups, velocities) / members
    return (velocities - means[groups]).square().sum(-1).mean()


def plausibility_loss(
    deforming: Deforming,
    transforms: Float[Tensor, "time node 3 4"] | None,
    weights: Weights,
) -> Float[Tensor, ""]:
    """The weighted terms that need no picture. transforms: of the nodes at the moments that are drawn."""
    loss = deforming.gaussians["means"].new_zeros(())
    if deforming.skeleton is not None and transforms is not None:
        loss = loss + weights.rigidity * rigidity_loss(deforming.skeleton, transforms)
        for name in ("steps", "coarse_steps"):
            loss = loss + weights.steadiness * unsteadiness_loss(deforming.motion[name])
    if weights.stillness:
        loss = loss + weights.stillness * stillness_loss(deforming)
    if weights.agreement and deforming.groups is not None:
        loss = loss + weights.agreement * agreement_loss(deforming.gaussians["velocities"], deforming.groups)
    if weights.opacity:
        loss = loss + weights.opacity * torch.sigmoid(deforming.gaussians["opacity_logits"]).mean()
    return loss


def _length(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    # The root has no gradient at rest.
    return (vectors.square().sum(-1) + 1e-12).sqrt()
