"""Moving Gaussians back to 4D ones: the inverse of Gaussians4D.to_moving.

Optimization works on the moving form (where a Gaussian is, how fast, when and for how long, how large), because there
each number means one thing and has its own rate; the quaternion pair of the 4D form mixes velocity with shape.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.gaussians3d import unpack_symmetric
from lrm4d.gaussians4d import Gaussians4D, MovingGaussians
from lrm4d.rotations import so4_to_quaternion_pair


def from_moving(moving: MovingGaussians, low_pass: float, compensate: bool = False) -> Gaussians4D:
    """The 4D Gaussians whose to_moving gives these back (to rounding); time means and the rest are kept as they are.

    Sigma = [[C + s^2 v v^T, s^2 v], [s^2 v^T, s^2]] for the covariance C, velocity v and time deviation s of a slice;
    its principal axes are the rotation. Computed in double precision, as a thin Gaussian that lasts long is stiff.
    """
    variances, axes = torch.linalg.eigh(space_time_covariances(moving))
    # An axis may point either way; turning one round makes a rotation of a reflection.
    flips = axes.new_tensor([-1.0, 1.0, 1.0, 1.0])
    axes = torch.where(torch.linalg.det(axes)[..., None, None] < 0, axes * flips, axes)
    # The axis that lies most along time is the fourth one, so that a Gaussian at rest has equal quaternions.
    along_time = axes[..., 3, :].abs().argmax(dim=-1)
    order = _even_order_with_last(along_time)
    axes = torch.take_along_dim(axes, order[..., None, :], dim=-1)
    axes = torch.where(axes[..., 3:, 3:] < 0, -axes, axes)  # all four: still a rotation
    scales = torch.take_along_dim(variances, order, dim=-1).clamp(min=1e-14).sqrt()
    left, right = so4_to_quaternion_pair(axes)
    return Gaussians4D(
        means=moving.means,
        time_means=moving.time_means,
        scales=scales[..., :3].to(moving.means),
        time_scales=scales[..., 3].to(moving.means),
        left_quaternions=left.to(moving.means),
        right_quaternions=right.to(moving.means),
        opacities=moving.opacities,
        colors=moving.colors,
        low_pass=low_pass,
        compensate=compensate,
    )


def space_time_covariances(moving: MovingGaussians) -> Float[Tensor, "*batch n 4 4"]:
    """Sigma over (x, y, z, t), in double precision."""
    velocities = moving.velocities.double()
    line = torch.cat([velocities, torch.ones_like(velocities[..., :1])], dim=-1)
    line = line * moving.time_deviations.double()[..., None]
    sigma = line[..., :, None] * line[..., None, :]
    sigma[..., :3, :3] += unpack_symmetric(moving.covariances.double())
    return sigma


def _even_order_with_last(last: Tensor) -> Tensor:
    """Orders of four columns that end with a given one and are even permutations, so that a rotation stays one."""
    orders = torch.tensor([[1, 3, 2, 0], [0, 2, 3, 1], [1, 0, 3, 2], [0, 1, 2, 3]], device=last.device)
    return orders[last]
