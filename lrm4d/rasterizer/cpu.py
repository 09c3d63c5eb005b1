"""Our own C++ operator (csrc/): what torch must know of it, and its gradient."""

import functools
import math

import torch
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.operators import load_operators

GROUP_SPLATS = 1 << 18
"""Pictures are drawn in groups of about so many Gaussians (64 bytes each), which stay in the processor's cache."""


@functools.cache
def is_available() -> bool:
    """Whether the operator could be loaded; the first call does it."""
    if not load_operators():
        return False
    register()
    return True


def register() -> None:
    """Tells torch the operator's shapes (for torch.compile) and its gradient."""
    torch.library.register_fake("lrm4d::rasterize_forward", fake_forward)
    torch.library.register_fake("lrm4d::rasterize_backward", fake_backward)
    torch.library.register_autograd("lrm4d::rasterize_forward", differentiate, setup_context=remember)
    torch.library.register_autograd("lrm4d::rasterize_backward", refuse)


def fake_forward(
    means,
    covariances,
    opacities,
    colors,
    world_to_camera,
    intrinsics,
    background,
    width,
    height,
    low_pass,
    compensate,
    group,
    keep,
):
    """The shapes of rasterize_forward's results."""
    views = world_to_camera.shape[:-2]
    image, plane = (means.new_empty(*views, channels, height, width) for channels in (3, 1))
    blocks = 2 * math.ceil(math.prod(views) / group) if keep else 0
    context = torch.library.get_ctx()
    state = [means.new_empty(context.new_dynamic_size(), dtype=torch.uint8) for _ in range(blocks)]
    return image, plane, torch.empty_like(plane), state


def fake_backward(grad_image, grad_alpha, grad_depth, means, covariances, opacities, colors, *rest):
    """The shapes of rasterize_backward's results."""
    return tuple(x.new_empty(x.shape) for x in (means, covariances, opacities, colors))


def remember(ctx, inputs, output) -> None:
    """Keeps what the gradient needs."""
    *tensors, width, height, low_pass, compensate, group, _ = inputs
    _, alpha, depth, state = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, alpha, depth, *state)
    ctx.settings = (width, height, low_pass, compensate, group)


def differentiate(ctx, grad_image, grad_alpha, grad_depth, grad_state):
    """Gradients of Gaussians and background; cameras get none."""
    inputs, (alpha, depth, *state) = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
    gradients = [None] * 4
    if any(ctx.needs_input_grad[:4]):
        gradients = torch.ops.lrm4d.rasterize_backward(
            grad_image, grad_alpha, grad_depth, *inputs, depth, state, *ctx.settings
        )
    grad_background = None
    if ctx.needs_input_grad[6] and grad_image is not None:
        grad_background = (grad_image * (1 - alpha)).movedim(-3, 0).flatten(1).sum(-1)
    return *gradients, None, None, grad_background, *[None] * 6


def refuse(ctx, *gradients):
    """There are no second derivatives."""
    raise RuntimeError(
        "rasterize: backend 'cpu' has first derivatives only; take backend='reference' for second ones."
    )


def rasterize(
    gaussians: Gaussians3D, cameras: Cameras, background: Tensor, low_pass: float, compensate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [*batch, view, 3, h, w], alpha and depth [*batch, view, 1, h, w], float32."""
    inputs = (gaussians.means, gaussians.covariances, gaussians.opacities, gaussians.colors)
    poses = (cameras.world_to_camera.detach(), cameras.intrinsics.detach())
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, background))
    group = max(4, GROUP_SPLATS // max(1, gaussians.means.shape[-2]))
    image, alpha, depth, _ = torch.ops.lrm4d.rasterize_forward(
        *inputs, *poses, background, cameras.width, cameras.height, low_pass, compensate, group, keep
    )
    return image, alpha, depth
