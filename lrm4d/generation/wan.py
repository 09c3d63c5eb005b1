"""The `wan` backend: masked video inpainting with public VACE checkpoints of Wan 2.1 and 2.2 in diffusers' layout.

A layout's targets are completed view by view: a view's pictures in the order of their times are one video, its holes
are what VACE generates, and clean pictures of other views are its reference pictures.
"""

import json
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel, WanVACEPipeline
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_json
from lrm4d.generation.budget import Budget, estimate_budget
from lrm4d.generation.flow import Progress, make_scheduler
from lrm4d.generation.inpainter import Sampling, check_pictures, pad_pictures
from lrm4d.generation.layout import TokenLayout
from lrm4d.generation.masks import to_inpainting_mask
from lrm4d.generation.network import CAMERA_CHANNELS
from lrm4d.generation.transformer import ViewTransformer, load_lora, widen_input

MULTIPLE = 16
"""Sides of pictures that Wan takes are multiples of this: 8 of the autoencoder, times a patch of 2."""
CHUNK = 4
"""Frames that the causal autoencoder makes one latent frame of, after a first frame of its own."""
GREY = 0.5
"""What holes show, as when VACE was trained."""
OFFLOADS = ("none", "model", "group")


class WanInpainter:
    """A VACE pipeline on a device, ready to use. See `Inpainter` for how it is called.

    references: clean pictures of other views that are packed beside the video, at most; VACE was trained with a few.
    """

    usual = Sampling(steps=30, guidance=5.0)

    def __init__(self, pipeline: WanVACEPipeline, references: int = 3):
        self.pipeline = pipeline
        self.references = references
        pipeline.set_progress_bar_config(disable=True)

    @staticmethod
    def from_pretrained(
        name_or_folder: str | Path,
        device: str = "cuda",
        dtype: torch.dtype = torch.bfloat16,
        offload: str = "none",
        sampler: str | None = None,
        shift: float = 3.0,
        references: int = 3,
        lora: str | Path | None = None,
        lora_weight: float = 1.0,
    ) -> "WanInpainter":
        """A checkpoint in diffusers' layout: a folder with model_index.json, or a hub id "owner/name".

        offload: what waits in the computer's memory: "none", "model" (all parts but the one at work) or "group" (all
        blocks but those at work, the slowest). The autoencoder always works in tiles and slices. sampler, shift:
        instead of the checkpoint's scheduler, see `make_scheduler`. lora: low-rank layers of the transformer, as
        safetensors in diffusers' naming, at a weight. Only safetensors are read, never pickles.
        """
        if offload not in OFFLOADS:
            raise ValueError(f"offload {offload!r}: expected one of {', '.join(OFFLOADS)}.")
        source = _find_checkpoint(str(name_or_folder), "WanVACEPipeline")
        pipeline = WanVACEPipeline.from_pretrained(source, dtype=dtype, use_safetensors=True)
        if lora is not None:
            load_lora(pipeline.transformer, lora, lora_weight)
        if sampler is not None:
            pipeline.scheduler = make_scheduler(sampler, shift)
        pipeline.vae.enable_tiling()
        pipeline.vae.enable_slicing()
        _place(pipeline, torch.device(device), offload)
        return WanInpainter(pipeline, references)

    def budget(self, height: int, width: int, frames: int, guidance: float = 5.0) -> Budget:
        """What one view's video of this size will take; print its `describe` before a long run."""
        height, width = (size + -size % MULTIPLE for size in (height, width))
        frames = frames + _missing_frames(frames) + CHUNK * self.references
        parts = ("transformer", "transformer_2", "vae", "text_encoder")
        loaded = {name: getattr(self.pipeline, name, None) for name in parts}
        return estimate_budget(
            {name: part for name, part in loaded.items() if part is not None}, height, width, frames, guidance > 1
        )

    def __call__(
        self,
        layout: TokenLayout,
        images: Float[Tensor, "batch picture 3 height width"],
        visibility: Bool[Tensor, "batch picture 1 height width"],
        cameras: Cameras,
        *,
        text: str | None = None,
        seed: int = 0,
        steps: int = 30,
        guidance: float = 5.0,
        keep_known: bool = False,
        progress: Progress | None = None,
    ) -> Float[Tensor, "batch target 3 height width"]:
        """See `Inpainter`. The cameras are known to VACE through the warps alone."""
        check_pictures(layout, images, visibility, cameras)
        views = sorted({slot.view for slot in layout.shown if slot.target})
        made = images.clone()
        for entry in range(len(images)):
            for view in views:
                frames, beside = videos_of(layout, view, self.references)
                made[entry, frames] = self._complete(
                    images[entry, frames],
                    visibility[entry, frames],
                    images[entry, beside],
                    options={"prompt": text or "", "num_inference_steps": steps, "guidance_scale": guidance},
                    seed=seed,
                    progress=progress,
                )
        if keep_known:
            made = torch.where(visibility, images, made)
        return made[:, [index for index, slot in enumerate(layout.shown) if slot.target]]

    def _complete(
        self,
        images: Tensor,
        visibility: Tensor,
        references: Tensor,
        options: dict,
        seed: int,
        progress: Progress | None,
    ) -> Tensor:
        """One video [time, 3, height, width], completed."""
        height, width = images.shape[-2:]
        video, holes = fit_video(images, visibility)
        total = options["num_inference_steps"]

        def report(pipeline: WanVACEPipeline, step: int, timestep: Tensor, state: dict) -> dict:
            if progress is not None:
                progress("generate", step + 1, total)
            return state

        made = self.pipeline(
            video=video[None],
            mask=holes.expand_as(video)[None],
            reference_images=[to_picture(image) for image in references] or None,
            height=video.shape[-2],
            width=video.shape[-1],
            num_frames=len(video),
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            callback_on_step_end=report,
            **options,
        ).frames[0]
        return made[: len(images), :, :height, :width].to(images).clamp(0, 1)


def videos_of(layout: TokenLayout, view: int, references: int) -> tuple[list[int], list[int]]:
    """Which of a layout's pictures are a view's video, by time, and which clean pictures of other views go beside it.

    References are spread evenly over those there are, at most so many.
    """
    shown = list(enumerate(layout.shown))
    frames = sorted((index for index, slot in shown if slot.view == view), key=lambda index: layout.shown[index].time)
    clean = [index for index, slot in shown if slot.clean and slot.view != view]
    count = min(references, len(clean))
    return frames, [clean[round(place * (len(clean) - 1) / max(count - 1, 1))] for place in range(count)]


def fit_video(
    images: Float[Tensor, "time 3 height width"], visibility: Bool[Tensor, "time 1 height width"]
) -> tuple[Float[Tensor, "frame 3 rows columns"], Float[Tensor, "frame 1 rows columns"]]:
    """A video and its mask (1 = generate) as Wan takes them: holes grey, 1 + 4k frames (the last one repeated), sides
    that are multiples of 16 (grown at the right and below, where it is left to the model). Cropping undoes it."""
    video = pad_pictures(torch.where(visibility, images, GREY), MULTIPLE)
    seen = ~pad_pictures(~visibility, MULTIPLE, fill=True)
    index = torch.arange(len(images) + _missing_frames(len(images))).clamp(max=len(images) - 1)
    return video[index], to_inpainting_mask(seen[index])


def to_picture(image: Float[Tensor, "3 height width"]) -> Image.Image:
    """A picture in [0, 1] as PIL takes it."""
    return Image.fromarray((image.movedim(0, -1).cpu().float() * 255).round().byte().numpy())


def load_view_transformer(
    name_or_folder: str | Path, cameras: str = "rays", dtype: torch.dtype = torch.bfloat16
) -> ViewTransformer:
    """The transformer of a Wan text- or image-to-video checkpoint, to be tuned on layouts: it takes twice its latent
    channels and one (noisy or given latents, warp, visibility), and cameras; all that is new starts at zero."""
    source = _find_checkpoint(str(name_or_folder), "WanPipeline", "WanImageToVideoPipeline")
    wan = WanTransformer3DModel.from_pretrained(source, subfolder="transformer", dtype=dtype, use_safetensors=True)
    widen_input(wan, wan.config.in_channels + wan.config.out_channels + 1)
    return ViewTransformer(wan, CAMERA_CHANNELS[cameras])


def _missing_frames(frames: int) -> int:
    return (1 - frames) % CHUNK


def _find_checkpoint(name: str, *kinds: str) -> str:
    """The folder, or the hub id; ValueError if a folder is no checkpoint of these pipelines."""
    folder = Path(name)
    if not folder.exists() and name.count("/") == 1:
        return name
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{name}: no model_index.json; give a folder in diffusers' layout or a hub id owner/name.")
    kind = read_json(index).get("_class_name")
    if kind not in kinds:
        raise ValueError(f"{index}: a {json.dumps(kind)}; expected {' or '.join(kinds)}.")
    return name


def _place(pipeline: WanVACEPipeline, device: torch.device, offload: str) -> None:
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "group":
        pipeline.enable_group_offload(device, offload_type="block_level", num_blocks_per_group=1)
    else:
        pipeline.to(device)
