"""A network ready to use: views to a 4D scene, a 4D scene to pictures, within the memory there is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.rasterizer import Rendering
from lrm4d.rasterizer.rendering import MIN_ALPHA
from lrm4d.reconstruction.model import ReconstructionModel
from lrm4d.reconstruction.pretrained import load_pretrained
from lrm4d.views import Views

Progress = Callable[[str, int, int], None]
"""Told (stage, done, total) while something takes long."""

CHUNK_BYTES = 256 * 2**20
"""About the memory that rendering takes, however many frames there are."""


class Reconstructor:
    """A network on a device, ready to use."""

    def __init__(self, model: ReconstructionModel, device: torch.device):
        self.model = model.eval().to(device)
        self.model.bf16 = has_fast_bf16(device)
        self.device = device

    @staticmethod
    def from_pretrained(name_or_folder: str | Path, device: str = "auto") -> "Reconstructor":
        """Shipped weights by name ("nano"), a folder with config.json and model.safetensors, or a hub id.

        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1". ValueError if there is no such thing.
        """
        return Reconstructor(load_pretrained(name_or_folder), choose_device(device))

    def reconstruct(self, views: Views, progress: Progress | None = None) -> Gaussians4D:
        """One scene of views [view]: any number from 1 on, of a size that the network's patch divides.

        Gaussians too faint to be seen (opacity below 1 / 255) are left out. On this object's device.
        """
        check_views(views, self.model.config.patch)
        with torch.no_grad(), _watch_layers(self.model, progress):
            gaussians = self.model(views[None].to(self.device)).gaussians[0]
        return gaussians.select(gaussians.opacities >= MIN_ALPHA)

    def render(
        self,
        gaussians: Gaussians4D,
        cameras: Cameras,
        times: Float[Tensor, "view"],
        background: Float[Tensor, "3"] | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "view 3 height width"]:
        """Pictures on the CPU from cameras [view] at times in [0, 1], on white unless a background (RGB) is given.

        See render_frames for more pictures than memory holds.
        """
        frames = render_frames(gaussians.to(self.device), cameras, times, background, progress)
        return torch.cat([frame.image.cpu() for frame in frames])


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32: CUDA, and CPUs with instructions for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    queries = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(query() for query in queries if query is not None)


def choose_device(name: str) -> torch.device:
    """The device of a name; ValueError says what there is."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device '{name}': expected auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device '{name}': expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device '{name}': this machine shows {torch.cuda.device_count()} CUDA devices; take cpu.")
    return device


def check_views(views: Views, patch: int) -> None:
    """Raises ValueError for views that no scene can come from."""
    if len(views.shape) != 1 or len(views) < 1:
        raise ValueError(f"views have batch shape {tuple(views.shape)}; expected [view] with at least one view.")
    height, width = views.images.shape[-2:]
    if (views.cameras.width, views.cameras.height) != (width, height):
        raise ValueError(
            f"the pictures are {width} x {height} pixels and their cameras' {views.cameras.width} x "
            f"{views.cameras.height}; use Views.resize, which changes both."
        )
    if height % patch or width % patch:
        raise ValueError(
            f"pictures of {width} x {height} pixels: both sides must be multiples of {patch}. Resize them, for "
            f"example to {max(1, width // patch) * patch} x {max(1, height // patch) * patch} (--size)."
        )
    tensors = {
        "images": views.images,
        "alphas": views.alphas,
        "times": views.times,
        "camera_to_world": views.cameras.camera_to_world,
        "intrinsics": views.cameras.intrinsics,
    }
    for name, values in tensors.items():
        if not bool(values.isfinite().all()):
            view = int((~values.isfinite()).flatten(1).any(1).nonzero()[0]) if values.ndim > 1 else 0
            raise ValueError(f"{name} of view {view} hold NaN or infinity; expected finite numbers.")
    for name in ("images", "alphas", "times"):
        low, high = tensors[name].min().item(), tensors[name].max().item()
        if low < 0 or high > 1:
            raise ValueError(f"{name} run from {low:g} to {high:g}; expected [0, 1].")
    if not bool((views.alphas > 0).any()):
        raise ValueError("alpha is 0 everywhere in every view: there is nothing to reconstruct.")


def render_frames(
    gaussians: Gaussians4D,
    cameras: Cameras,
    times: Float[Tensor, "view"],
    background: Float[Tensor, "3"] | None = None,
    progress: Progress | None = None,
    stage: str = "render",
) -> Iterator[Rendering]:
    """Renderings of runs of consecutive frames, [run, ...], on the Gaussians' device; memory stays bounded."""
    device = gaussians.means.device
    background = None if background is None else background.to(gaussians.means)
    # A sliced Gaussian is 13 numbers, sorted and copied about once; a picture is 5 planes, about twice.
    bytes_a_frame = 4 * (26 * len(gaussians) + 10 * cameras.width * cameras.height)
    run = max(1, min(16, CHUNK_BYTES // bytes_a_frame))
    for start in range(0, len(times), run):
        part = slice(start, start + run)
        with torch.no_grad():
            yield gaussians.render(cameras[part].to(device), times[part].to(device), background)
        if progress:
            progress(stage, min(start + run, len(times)), len(times))


@contextmanager
def _watch_layers(model: ReconstructionModel, progress: Progress | None) -> Iterator[None]:
    """Report each layer of the transformer that is done."""
    blocks = model.transformer.blocks
    if progress is None:
        yield
        return
    progress("reconstruct", 0, len(blocks))
    handles = [
        block.register_forward_hook(lambda *_, done=index + 1: progress("reconstruct", done, len(blocks)))
        for index, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
