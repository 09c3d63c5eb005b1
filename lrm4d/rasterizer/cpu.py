"""Our own C++ operator (csrc/): found beside this file or compiled once into the user's cache; its gradient."""

import functools
import math
import os
import platform
import warnings
from pathlib import Path

import torch
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.rasterizer import build

GROUP_SPLATS = 1 << 18
"""Pictures are drawn in groups of about so many Gaussians (64 bytes each), which stay in the processor's cache."""


def cache_folder() -> Path:
    """Where a compiled operator is kept: $LRM4D_CACHE, else lrm4d in $XDG_CACHE_HOME or ~/.cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrm4d"
    return Path(os.environ.get("LRM4D_CACHE") or default)


def find_operator() -> Path:
    """The compiled operator, compiling it if need be. Raises RuntimeError or OSError where it cannot be had."""
    packaged = Path(__file__).with_name(build.packaged_name())
    if packaged.exists():
        return packaged
    name = f"operator-{build.fingerprint()}-torch{torch.__version__}-{platform.machine()}.so"
    cached = cache_folder() / name
    return cached if cached.exists() else build.compile_operator(cached)


@functools.cache
def is_available() -> bool:
    """Whether the operator could be loaded. The first call loads it, or warns once and names the remedy."""
    try:
        torch.ops.load_library(str(find_operator()))
    except (RuntimeError, OSError) as error:
        warnings.warn(
            f"lrm4d: no fast CPU rasterizer, the PyTorch reference (about 100 times slower) stands in: {error}\n"
            "Remedy: install a C++20 compiler (Debian, Ubuntu: apt install g++) and PyTorch 2.10 or later.",
            stacklevel=2,
        )
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
