"""Depth models of Hugging Face's transformers, from a local folder or the hub: Depth Anything, DPT, Depth Pro.

Their image processors need packages that this project does without (torchvision); what they do is in a few lines here.
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from lrm4d.generation.depth.align import align_over_time, spread_inverse
from lrm4d.generation.depth.provider import Progress
from lrm4d.generation.geometry import DEFAULT_FOV, Geometry, static_cameras

RELATIVE, METRIC, CANONICAL = "relative", "metric", "canonical"
"""What a model's numbers are: inverse depth up to scale and shift; depth; inverse depth times focal length / width."""


class HuggingFaceDepth:
    """A DepthProvider: a depth model on each frame, aligned over time, seen by a camera at rest.

    name: a local folder, or a model's id on the hub. fov: horizontal, degrees; a model that estimates it (Depth Pro)
    overrules it by its median over the clip. near, far: the depths that a relative model's clip spans, any unit (see
    spread_inverse). Raises ValueError where there is no such model, or not one of these kinds.
    """

    def __init__(self, name: str, device: str = "cpu", fov: float = DEFAULT_FOV, near: float = 1.0, far: float = 5.0):
        self.model, self.settings = load_depth_model(name)
        self.kind = depth_kind(self.model.config)
        self.model.to(device)
        self.fov, self.near, self.far = fov, near, far

    @torch.no_grad()
    def __call__(self, frames: Float[Tensor, "time 3 height width"], progress: Progress | None = None) -> Geometry:
        """See DepthProvider."""
        inverse, angles = [], []
        for index in range(len(frames)):
            outputs = self.model(
                pixel_values=prepare_frames(frames[index : index + 1], self.settings).to(self.model.device)
            )
            values = outputs.predicted_depth[:, None].float().cpu()
            values = interpolate(values, frames.shape[-2:], mode="bilinear", align_corners=False)
            inverse.append(1 / values.clamp(min=1e-6) if self.kind == METRIC else values)
            if getattr(outputs, "field_of_view", None) is not None:
                angles.append(outputs.field_of_view.float().cpu().reshape(1))
            if progress:
                progress("depth", index + 1, len(frames))
        fov = float(torch.cat(angles).median()) if angles else self.fov
        return self._to_geometry(torch.cat(inverse).to(frames), fov)

    def _to_geometry(self, inverse: Float[Tensor, "time 1 height width"], fov: float) -> Geometry:
        inverse = align_over_time(inverse, inverse.isfinite())
        count, _, height, width = inverse.shape
        cameras = static_cameras(count, width, height, fov)
        if self.kind == RELATIVE:
            depths = spread_inverse(inverse, self.near, self.far)
        else:
            unit = 2 * math.tan(math.radians(fov) / 2) if self.kind == CANONICAL else 1.0
            depths = 1 / (inverse * unit).clamp(1e-4, 1e4)
        return Geometry(depths, cameras, depths.isfinite() & (depths > 0))


def load_depth_model(name: str) -> tuple[Any, dict]:
    """A model in evaluation mode and its preprocessor_config.json; ValueError says what is missing."""
    try:
        from transformers import AutoModelForDepthEstimation
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise ValueError(f"depth model '{name}': needs transformers: pip install 'lrm4d[generate]'.") from error
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name}: holds no config.json; expected a model's folder as save_pretrained writes it.")
    try:
        model = AutoModelForDepthEstimation.from_pretrained(name, use_safetensors=True).eval()
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"depth model '{name}': cannot be loaded ({str(error).splitlines()[0]}). Give a folder or a hub id (as "
            "depth-anything/Depth-Anything-V2-Small-hf) with config.json, model.safetensors, preprocessor_config.json."
        ) from error
    return model, settings


def depth_kind(config: Any) -> str:
    """What a model of this configuration predicts."""
    kinds = {"depth_pro": CANONICAL, "dpt": RELATIVE, "depth_anything": getattr(config, "depth_estimation_type", "")}
    if config.model_type not in kinds:
        raise ValueError(f"depth model of type {config.model_type!r}; expected one of {', '.join(kinds)}.")
    return kinds[config.model_type]


def prepare_frames(
    frames: Float[Tensor, "time 3 height width"], settings: dict
) -> Float[Tensor, "time 3 resized_height resized_width"]:
    """Frames resized and normalized as preprocessor_config.json says."""
    mean, deviation = (
        frames.new_tensor(settings.get(key, default))[:, None, None]
        for key, default in (("image_mean", [0.485, 0.456, 0.406]), ("image_std", [0.229, 0.224, 0.225]))
    )
    height, width = fit_size(frames.shape[2], frames.shape[3], settings)
    resized = interpolate(frames, (height, width), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    return (resized - mean) / deviation


def fit_size(height: int, width: int, settings: dict) -> tuple[int, int]:
    """The size that a model wants for pictures of this size: its own, or one of their shape and of whole patches."""
    wanted = settings["size"]
    factors = wanted["height"] / height, wanted["width"] / width
    if settings.get("keep_aspect_ratio"):
        factors = (min(factors, key=lambda factor: abs(1 - factor)),) * 2
    step = settings.get("ensure_multiple_of") or 1
    return tuple(
        max(step, round(side * factor / step) * step) for side, factor in zip((height, width), factors, strict=True)
    )
