"""Frames <-> video files, through PyAV (mp4) and Pillow (gif); no external program is needed."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lrm4d.checkpoint import atomic_path

MP4_CODECS = ("libx264", "libopenh264", "mpeg4")
"""Encoders, best first: the first two make h264, which every player and browser shows; mpeg4 is always there."""


def to_bytes(images: Float[Tensor, "*batch 3 height width"]) -> UInt8[Tensor, "*batch 3 height width"]:
    """Pictures in [0, 1] (clamped) as 8-bit levels, rounded."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def write_video(
    path: str | Path,
    frames: Float[Tensor, "frame 3 height width"] | UInt8[Tensor, "frame 3 height width"],
    frames_per_second: float = 24.0,
) -> None:
    """Write frames ([0, 1] floats, or 8-bit levels) as .mp4 or .gif, atomically; makes the folder.

    mp4 needs even sides: an odd one gets its last row or column repeated. gif rounds a frame to 1/100 s.
    """
    path = Path(path)
    if len(frames) == 0 or frames_per_second <= 0:
        raise ValueError(
            f"{path}: {len(frames)} frames at {frames_per_second} a second; expected at least one, at a rate above 0."
        )
    levels = frames if frames.dtype == torch.uint8 else to_bytes(frames)
    pictures = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix.lower() not in writers:
        raise ValueError(f"{path}: '{path.suffix}' is not a video this writes; name it .mp4 or .gif.")
    with atomic_path(path) as temporary:
        writers[path.suffix.lower()](temporary, pictures, frames_per_second)


def read_video(
    path: str | Path, most_frames: int | None = None
) -> tuple[UInt8[Tensor, "frame 3 height width"], float]:
    """The frames (8-bit levels) and frames per second of any video that FFmpeg decodes; most_frames stops early."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such video file.")
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                # Phones store pictures lying on their side and say so; the angle is counterclockwise, as rot90's.
                frames.append(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                if len(frames) == most_frames:
                    break
            rate = float(stream.average_rate or stream.guessed_rate or 24)
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}). Convert it to mp4 (h264) and try again.") from error
    if not frames:
        raise ValueError(f"{path}: holds no frames. Convert it to mp4 (h264) and try again.")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), rate


def available_mp4_codec() -> str:
    """The encoder that write_video uses for mp4."""
    return next(name for name in MP4_CODECS if _can_encode(name))


def _can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.FFmpegError:
        return False
    return True


def _write_mp4(path: Path, pictures: np.ndarray, frames_per_second: float) -> None:
    height, width = pictures.shape[1:3]
    pictures = np.pad(pictures, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        codec = available_mp4_codec()
        stream = container.add_stream(codec, rate=Fraction(frames_per_second).limit_denominator(1001))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "16"}
        else:
            stream.bit_rate = max(2_000_000, 8 * pictures.shape[1] * pictures.shape[2])
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_gif(path: Path, pictures: np.ndarray, frames_per_second: float) -> None:
    images = [Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE) for picture in pictures]
    duration = max(20, round(100 / frames_per_second) * 10)
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
