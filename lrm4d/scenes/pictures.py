"""Picture files <-> tensors: 8-bit files, decoded in parallel, with errors that name the file."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lrm4d.checkpoint import atomic_path
from lrm4d.views import Views

THREADS = min(8, (os.cpu_count() or 1) * 2)
WHITE_TOLERANCE = 6 / 255
"""How far from pure white, in any channel, a background pixel may be; JPEG moves white by a few levels."""


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the file's header alone."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error}). Save it again as PNG.") from error


def load_picture(path: Path) -> Float[Tensor, "4 height width"]:
    """Straight RGB and alpha in [0, 1]; a picture without alpha has alpha 1 everywhere."""
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"it has {picture.mode} pixels and only 8 bits a channel are read")
            pixels = np.array(picture.convert("RGBA"))
    # Pillow raises a dozen types for broken files (OSError, SyntaxError, struct.error, ...); all mean the same.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be decoded ({error}). The file is broken, truncated or not 8-bit; save it again as PNG."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def load_pictures(paths: Sequence[Path]) -> Float[Tensor, "picture 4 height width"]:
    """Pictures of one size, decoded in a pool of threads. Different sizes are an error that names two of the files."""
    with ThreadPoolExecutor(THREADS) as pool:
        pictures = list(pool.map(load_picture, paths))
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise ValueError(
                f"{path}: the picture is {picture.shape[2]} x {picture.shape[1]} pixels and {paths[0]} is "
                f"{pictures[0].shape[2]} x {pictures[0].shape[1]}; resize them to one size."
            )
    return torch.stack(pictures)


def alpha_from_white(images: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 1 height width"]:
    """Alpha of pictures taken on white: 0 where every channel is white within WHITE_TOLERANCE, 1 elsewhere.

    White spots on the object become holes too: only pictures with an alpha channel can tell them from the background.
    """
    return (images.amin(-3, keepdim=True) < 1 - WHITE_TOLERANCE).to(images.dtype)


def cut_out_of_white(views: Views) -> Views:
    """Views that are opaque all over, as taken on white: with alpha_from_white. Others stay as they are."""
    if bool((views.alphas < 1).any()):
        return views
    return replace(views, alphas=alpha_from_white(views.images))


def save_picture(path: Path, image: Float[Tensor, "channel height width"]) -> None:
    """Write RGB or RGBA (3 or 4 channels, clamped to [0, 1]) as an 8-bit PNG, atomically; makes the folder."""
    pixels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=4)


def save_pictures(paths: Sequence[Path], images: Float[Tensor, "picture channel height width"]) -> None:
    """Write many pictures in a pool of threads; see save_picture."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(save_picture, paths, images))
