"""Gaussians that nodes carry along and turn: linear blend skinning (Magnenat-Thalmann et al., 1988), with covariances.

A node's transform (R | b) takes y to R y + b. A Gaussian's frame (F | x) is its place x and a factor F of its
covariance F F^T. With the mean (M | c) of its nodes' transforms, a Gaussian's frame becomes (M F | M x + c).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm4d.gaussians3d import pack_square
from lrm4d.operators import load_operators

Carried = tuple[Float[Tensor, "time point 3"], Float[Tensor, "time point 6"]]


def carry(
    transforms: Float[Tensor, "time node 3 4"],
    frames: Float[Tensor, "point 3 4"],
    owners: Int[Tensor, "point k"],
    weights: Float[Tensor, "point k"],
) -> Carried:
    """Means and packed covariances at each time of Gaussians that hang on the nodes `owners` by `weights`.

    Differentiable (first derivatives) by transforms and frames.
    """
    if transforms.device.type == "cpu" and transforms.dtype == torch.float32 and load_operators():
        return _Carry.apply(transforms, frames, owners, weights)
    carried = carry_frames(transforms, frames, owners, weights)
    return carried[..., 3], pack_square(carried[..., :3])


def carry_frames(
    transforms: Float[Tensor, "time node 3 4"],
    frames: Float[Tensor, "point 3 4"],
    owners: Int[Tensor, "point k"],
    weights: Float[Tensor, "point k"],
) -> Float[Tensor, "time point 3 4"]:
    """Their frames, in plain PyTorch and any float type: the oracle of the operator, and the way on CUDA."""
    # A product with a dense matrix is quicker than gathers, whose gradients must be scattered.
    shares = transforms.new_zeros(len(owners), transforms.shape[1]).scatter_add(1, owners, weights)
    blended = (shares @ transforms.transpose(0, 1).flatten(1)).unflatten(1, (len(transforms), 3, 4)).transpose(0, 1)
    carried = blended[..., :3] @ frames
    return torch.cat([carried[..., :3], carried[..., 3:] + blended[..., 3:]], dim=-1)


class _Carry(torch.autograd.Function):
    """The C++ operator with its gradient."""

    @staticmethod
    def forward(ctx, transforms, frames, owners, weights):
        inputs = [x.contiguous() for x in (transforms, frames, owners, weights)]
        means, covariances = (transforms.new_empty(len(transforms), len(frames), size) for size in (3, 6))
        torch.ops.lrm4d.carry_forward(means, covariances, *inputs)
        ctx.save_for_backward(*inputs)
        return means, covariances

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_means, grad_covariances):
        transforms, frames = ctx.saved_tensors[:2]
        gradients = torch.empty_like(transforms), torch.empty_like(frames)
        given = grad_means.contiguous(), grad_covariances.contiguous()
        torch.ops.lrm4d.carry_backward(*gradients, *given, *ctx.saved_tensors)
        return *gradients, None, None
