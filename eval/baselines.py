"""What needs no model: predictions that any reconstruction must beat, all on white."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from lrm4d.cameras import Cameras
from lrm4d.views import Views

SAME_CAMERA = 1e-3
"""Radians within which two cameras count as one."""


def predict_white(
    inputs: Views, cameras: Cameras, times: Float[Tensor, "target"]
) -> Float[Tensor, "target 3 height width"]:
    """Nothing but background."""
    return inputs.images.new_ones(len(times), 3, cameras.height, cameras.width)


def predict_nearest_view(
    inputs: Views, cameras: Cameras, times: Float[Tensor, "target"]
) -> Float[Tensor, "target 3 height width"]:
    """The input nearest in camera and time: angle from the world's origin (radians) + difference of times."""
    differences = (times[:, None] - inputs.times).abs()
    nearest = (_angles(cameras, inputs.cameras) + differences).argmin(dim=1)
    return _on_white(inputs)[nearest]


def predict_time_ignored(
    inputs: Views, cameras: Cameras, times: Float[Tensor, "target"]
) -> Float[Tensor, "target 3 height width"]:
    """The mean of all inputs taken by the nearest camera, whenever they were taken."""
    angles = _angles(cameras, inputs.cameras)
    same = (angles <= angles.amin(dim=1, keepdim=True) + SAME_CAMERA).float()
    weights = same / same.sum(dim=1, keepdim=True)
    return torch.einsum("ti,ichw->tchw", weights, _on_white(inputs))


BASELINES = {
    "white": predict_white,
    "nearest view": predict_nearest_view,
    "time ignored": predict_time_ignored,
}


def _angles(targets: Cameras, inputs: Cameras) -> Float[Tensor, "target input"]:
    """Angles between cameras' centres as seen from the world's origin, in radians."""
    cosines = normalize(targets.origins, dim=-1) @ normalize(inputs.origins, dim=-1).mT
    return torch.acos(cosines.clamp(-1, 1))


def _on_white(inputs: Views) -> Float[Tensor, "input 3 height width"]:
    return inputs.composite(inputs.images.new_ones(3))
