"""The frames of a video, or of a folder of pictures."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from lrm4d.scenes.pictures import load_pictures
from lrm4d.video import read_video

LONGER_SIDE = 512
"""Pixels: larger videos are made smaller unless a size is said."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FOLDER_RATE = 24.0
"""Pictures a second of a folder, which does not tell."""


@dataclass(frozen=True)
class Clip:
    """Frames in [0, 1]. frames: straight colours. alphas: 1 everywhere for videos. rate: frames a second. indices: the
    frames' places in the file."""

    frames: Float[Tensor, "time 3 height width"]
    alphas: Float[Tensor, "time 1 height width"]
    rate: float
    indices: Int[Tensor, "time"]

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.frames)

    @property
    def on_white(self) -> Float[Tensor, "time 3 height width"]:
        """The frames with white where they are transparent."""
        return self.frames * self.alphas + 1 - self.alphas

    def choose(self, count: int | None) -> "Clip":
        """So many frames, evenly from the first to the last; all if there are no more."""
        last, count = len(self) - 1, min(count or len(self), len(self))
        kept = torch.linspace(0, last, count).round().long()
        rate = self.rate * ((count - 1) / max(1, last) or 1.0)
        return replace(self, frames=self.frames[kept], alphas=self.alphas[kept], rate=rate, indices=self.indices[kept])


def read_clip(
    path: str | Path, size: tuple[int, int] | None = None, start: float = 0.0, seconds: float | None = None
) -> Clip:
    """The frames of a video file, or of a folder's pictures in the order of their names.

    size: width and height; else as they are, with at most LONGER_SIDE pixels. start, seconds: a part of it.
    ValueError where nothing can be read, or nothing lies in that part.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{path}: holds no pictures; expected {', '.join(SUFFIXES)}, or give a video file.")
        pictures, rate = load_pictures(files), FOLDER_RATE
    else:
        rate = read_video(path, 1)[1]
        pictures, _ = read_video(path, None if seconds is None else math.ceil((start + seconds) * rate) + 1)
    begin = round(start * rate)
    end = len(pictures) if seconds is None else min(len(pictures), begin + round(seconds * rate) + 1)
    if not 0 <= begin < end:
        raise ValueError(f"{path}: holds {len(pictures) / rate:.2f} s at most, and the part begins at {start:g} s.")
    pictures = pictures[begin:end]
    resized = torch.cat([_resize(picture, size) for picture in pictures])
    alphas = resized[:, 3:] if resized.shape[1] == 4 else torch.ones_like(resized[:, :1])
    return Clip(resized[:, :3], alphas, rate, torch.arange(begin, end))


def read_masks(path: str | Path, clip: Clip) -> Float[Tensor, "time 1 height width"]:
    """Masks of a clip's frames, white is 1: a video or folder with one for each frame of the clip's file, or one
    picture for all. ValueError for other numbers."""
    height, width = clip.frames.shape[-2:]
    levels = read_clip(path, (width, height)).on_white.mean(dim=1, keepdim=True)
    if len(levels) == 1:
        return levels.expand(len(clip), -1, -1, -1)
    if len(levels) <= int(clip.indices[-1]):
        raise ValueError(
            f"{path}: {len(levels)} masks; expected one for each frame of the video, which has more than "
            f"{int(clip.indices[-1])}, or one picture for all."
        )
    return levels[clip.indices]


def _resize(picture: Tensor, size: tuple[int, int] | None) -> Float[Tensor, "1 channel height width"]:
    """One picture (bytes, or floats with alpha) at a size; premultiplied in between, so that no colour bleeds."""
    height, width = picture.shape[-2:]
    factor = min(1.0, LONGER_SIDE / max(width, height))
    width, height = size or (max(1, round(width * factor)), max(1, round(height * factor)))
    values = (picture / 255.0 if picture.dtype == torch.uint8 else picture)[None]
    if values.shape[1] == 3:
        return interpolate(values, (height, width), mode="area")
    colors, alphas = interpolate(
        torch.cat([values[:, :3] * values[:, 3:], values[:, 3:]], dim=1), (height, width), mode="area"
    ).split([3, 1], dim=1)
    return torch.cat([colors / alphas.clamp(min=1e-6), alphas], dim=1)
