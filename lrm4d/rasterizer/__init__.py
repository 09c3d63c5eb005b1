"""Pictures of 3D Gaussians: one function, three backends that agree."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.rasterizer import cpu, cuda, reference
from lrm4d.rasterizer.rendering import Rendering

__all__ = ["BACKENDS", "Rendering", "choose_backend", "rasterize"]

BACKENDS = {"reference": reference.rasterize, "cpu": cpu.rasterize, "cuda": cuda.rasterize}


def rasterize(
    gaussians: Gaussians3D,
    cameras: Cameras,
    background: Float[Tensor, "3"],
    low_pass: float = 0.3,
    compensate: bool = False,
    backend: str = "auto",
) -> Rendering:
    """Pictures of Gaussians over a background color, differentiable by Gaussians and background.

    gaussians: batch shape [*batch]; cameras: [*batch, view], every scene before its own cameras; the rendering has the
    cameras' batch shape. low_pass: added to the diagonal of the picture's covariance (pixels squared), so that nothing
    is thinner than a pixel. compensate: lower the opacity by what the low-pass adds in area, sqrt(det before / after).
    backend: "reference" (PyTorch, any float type), "cpu" (C++, float32), "cuda" (gsplat, float32), or "auto".

    Gaussians that hold a number that is not finite are not drawn and get no gradient; so are those with z outside
    0.01 ... 1e10 and those whose opacity is below 1/255. Sorted by the z of their means, equal ones by their index.
    Raises ValueError for shapes, devices, types or a backend that do not fit.
    """
    check(gaussians, cameras, background, low_pass)
    if backend == "auto":
        backend = choose_backend(gaussians)
    check_backend(backend, gaussians.means.device)
    dtype = gaussians.means.dtype if backend == "reference" else torch.float32
    if dtype in (torch.float16, torch.bfloat16):
        dtype = torch.float32  # depths would not sort
    values = (gaussians.means, gaussians.covariances, gaussians.opacities, gaussians.colors)
    with torch.autocast(gaussians.means.device.type, enabled=False):  # poses in half precision move the picture
        image, alpha, depth = BACKENDS[backend](
            Gaussians3D(*(value.to(dtype) for value in values)),
            cameras.to(dtype),
            background.to(dtype),
            float(low_pass),
            bool(compensate),
        )
    return Rendering(image, alpha, depth)


def choose_backend(gaussians: Gaussians3D) -> str:
    """What "auto" means for these Gaussians on this machine."""
    if gaussians.means.is_cuda and cuda.is_available():
        return "cuda"
    if gaussians.means.device.type == "cpu" and gaussians.means.dtype != torch.float64 and cpu.is_available():
        return "cpu"
    return "reference"


def check(gaussians: Gaussians3D, cameras: Cameras, background: Tensor, low_pass: float) -> None:
    """Raises ValueError for what no backend could draw."""
    batch, n = gaussians.means.shape[:-2], gaussians.means.shape[-2]
    expected = {"means": (n, 3), "covariances": (n, 6), "opacities": (n,), "colors": (n, 3)}
    for name, shape in expected.items():
        got = tuple(getattr(gaussians, name).shape)
        if got != (*batch, *shape):
            raise ValueError(f"rasterize: {name} have shape {got}, expected {(*batch, *shape)} to fit the means.")
    if len(cameras.shape) != len(batch) + 1 or cameras.shape[:-1] != batch:
        raise ValueError(
            f"rasterize: cameras have batch shape {tuple(cameras.shape)}, expected the Gaussians' {tuple(batch)} and "
            "one more dimension, the views; use cameras.reshape or expand."
        )
    if cameras.width < 1 or cameras.height < 1:
        raise ValueError(
            f"rasterize: the picture is {cameras.width} x {cameras.height} pixels; expected at least 1 x 1."
        )
    if background.shape != (3,):
        raise ValueError(f"rasterize: background has shape {tuple(background.shape)}, expected (3,): one RGB color.")
    if not 0 <= low_pass < float("inf"):
        raise ValueError(
            f"rasterize: low_pass is {low_pass}, expected a finite number of pixels squared, not negative."
        )
    devices = {gaussians.means.device, cameras.camera_to_world.device, cameras.intrinsics.device, background.device}
    if len(devices) != 1:
        raise ValueError(f"rasterize: tensors on several devices {sorted(map(str, devices))}; move them to one.")


def check_backend(backend: str, device: torch.device) -> None:
    """Raises ValueError for a backend that is unknown, not installed, or not for tensors on this device."""
    if backend not in BACKENDS:
        raise ValueError(f"rasterize: backend {backend!r} is unknown; expected 'auto' or one of {sorted(BACKENDS)}.")
    if backend in ("cpu", "cuda") and device.type != backend:
        raise ValueError(f"rasterize: backend {backend!r} got tensors on {device}; move them there or take 'auto'.")
    if backend == "cpu" and not cpu.is_available():
        raise ValueError(
            "rasterize: backend 'cpu' could not be compiled (see the warning); take 'auto' or 'reference'."
        )
    if backend == "cuda" and not cuda.is_available():
        raise ValueError("rasterize: backend 'cuda' needs gsplat: pip install 'lrm4d[cuda]'.")
