"""The .splatv of splaTV (github.com/antimatter15/splaTV): moving 3D Gaussians as a texture for WebGL2.

It holds a 4D scene sliced in closed form, as MovingGaussians are: straight motion, a Gaussian fading, one covariance.
Layout: u32 magic 0x674b, u32 length of a JSON text; the text, a list with one chunk {"type": "splat", "size": bytes
of the texture, "texwidth": 4096, "texheight": rows, "cameras": [...]}; then the texture, four texels of RGBA32UI (64
bytes, little endian) a Gaussian, 1024 Gaussians a row. Per Gaussian, and every transform that is applied:
- bytes 0..11: mean at its own time t0, float32; our world (z up) is not turned.
- 12..19: unit quaternion w, x, y, z; 20..25: standard deviations, half precision; 26..27: zero.
- 28..31: RGB clamped into [0, 1] and peak opacity, 8 bits each.
- 32..49: nine halves: what the position gains by dt, dt^2, dt^3; the first three are the velocity, the others zero.
  50..51: zero; 52..59: the quaternion's rates, zero.
- 60..63: t0 and s, half precision, on the clip's time in [0, 1]: opacity exp(-((t - t0) / s)^2). With the model's
  time tau = 2 t - 1: t0 = (tau mean + 1) / 2, s = sqrt(2) sigma / 2 (within SPREADS), velocity = 2 velocity by tau.
Lost: colors above 1, what halves and bytes round, low_pass and compensate (splaTV adds no low-pass). splaTV hides a
Gaussian whose fading is below 0.02, sways time to and fro between 0 and 1 by itself, and takes fx and fy from the
first camera; the keys 0 to 9 stand in one. Rows are filled up with Gaussians of opacity 0, far away in time.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import atomic_path
from lrm4d.gaussians3d import compose_covariances, decompose_covariances
from lrm4d.gaussians4d import MovingGaussians

MAGIC, ROW = 0x674B, 1024
"""The first word of a file, and Gaussians in a row of its texture."""
SPREADS = (1e-4, 6e4)
"""What s is clamped to, so that a half can hold it."""
RECORD = np.dtype(
    [
        ("mean", "<f4", 3),
        ("quaternion", "<f2", 4),
        ("scale", "<f2", 3),
        ("zero", "<f2"),
        ("rgba", "u1", 4),
        ("motion", "<f2", 9),
        ("zero_too", "<f2"),
        ("rates", "<f2", 4),
        ("time", "<f2"),
        ("spread", "<f2"),
    ]
)
"""The 64 bytes of a Gaussian."""


def write_splatv(path: str | Path, gaussians: MovingGaussians, cameras: Cameras) -> None:
    """Write one scene (Gaussians4D.to_moving().visible()) and cameras [view], at least one, to look through."""
    if gaussians.means.dim() != 2 or not len(gaussians.means) or len(cameras.shape) != 1 or not len(cameras):
        raise ValueError(
            f"write_splatv: got Gaussians of shape {tuple(gaussians.means.shape[:-1])} and cameras of "
            f"{tuple(cameras.shape)}, expected one scene [n] and cameras [view], at least one of each."
        )
    scales, quaternions = decompose_covariances(gaussians.covariances)
    rows = -(-len(scales) // ROW)
    table = np.zeros(rows * ROW, RECORD)
    table["time"], table["spread"] = 60000.0, 1.0
    filled = table[: len(scales)]
    filled["mean"] = _numbers(gaussians.means)
    filled["quaternion"], filled["scale"] = _numbers(quaternions), _numbers(scales)
    rgba = torch.cat([gaussians.colors, gaussians.opacities[:, None]], dim=-1)
    filled["rgba"] = _numbers((rgba.clamp(0, 1) * 255).round())
    filled["motion"][:, :3] = _numbers(2 * gaussians.velocities)
    filled["time"] = _numbers((gaussians.time_means + 1) / 2)
    filled["spread"] = _numbers((gaussians.time_deviations / math.sqrt(2)).clamp(*SPREADS))
    chunk = {"type": "splat", "size": table.nbytes, "texwidth": 4 * ROW, "texheight": rows}
    text = json.dumps([{**chunk, "cameras": _cameras_to_json(cameras)}]).encode("ascii")
    with atomic_path(path) as temporary:
        temporary.write_bytes(np.array([MAGIC, len(text)], "<u4").tobytes() + text + table.tobytes())


def read_splatv(path: str | Path) -> MovingGaussians:
    """The Gaussians of a .splatv whose opacity is not 0; ValueError names the file when it is broken.

    Motion that is not linear and turning Gaussians are refused, because MovingGaussians cannot hold them.
    """
    content = Path(path).read_bytes()
    table = np.frombuffer(content, RECORD, offset=_read_header(content, path))
    table = table[table["rgba"][:, 3] > 0]
    if table["motion"][:, 3:].any() or table["rates"].any():
        raise ValueError(f"{path}: Gaussians move along curves or turn; only straight motion can be read here.")

    def take(name: str) -> Tensor:
        return torch.from_numpy(table[name].astype(np.float32))

    rgba = take("rgba") / 255
    gaussians = MovingGaussians(
        means=take("mean"),
        velocities=take("motion")[:, :3] / 2,
        covariances=compose_covariances(take("scale"), take("quaternion")),
        time_means=2 * take("time") - 1,
        time_deviations=take("spread") * math.sqrt(2),
        opacities=rgba[:, 3],
        colors=rgba[:, :3],
    )
    sound = all(bool(value.isfinite().all()) for value in vars(gaussians).values())
    if not sound or not bool((gaussians.time_deviations > 0).all()):
        raise ValueError(f"{path}: holds numbers that are not finite or fade in no time. Write the file again.")
    return gaussians


def _read_header(content: bytes, path: str | Path) -> int:
    """Where the bytes of the Gaussians start, once all sizes agree."""
    if len(content) < 8 or int.from_bytes(content[:4], "little") != MAGIC:
        raise ValueError(f"{path}: not a .splatv file: it starts with {content[:4]!r}, expected b'Kg\\x00\\x00'.")
    start = 8 + int.from_bytes(content[4:8], "little")
    if len(content) < start:
        raise ValueError(
            f"{path}: {len(content)} bytes, expected a header up to byte {start}; was it cut off while copying?"
        )
    try:
        chunks = json.loads(content[8:start])
        chunk = chunks[0]
        found = (len(chunks), chunk["type"], chunk["size"], chunk["texwidth"] * chunk["texheight"] * 16)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"{path}: the header is not a list of one chunk of Gaussians ({error!r}).") from error
    size = len(content) - start
    if found != (1, "splat", size, size) or size % RECORD.itemsize:
        raise ValueError(
            f"{path}: the header gives (chunks, type, bytes, bytes of the texture) as {found}, expected "
            f"{(1, 'splat', size, size)} by the file's size; was it cut off while copying?"
        )
    return start


def _cameras_to_json(cameras: Cameras) -> list[dict[str, Any]]:
    """INRIA's cameras.json: position and rotation of camera_to_world with OpenCV axes, fx and fy in pixels."""
    return [
        {
            "id": index,
            "img_name": f"{index:03}",
            "width": cameras.width,
            "height": cameras.height,
            "position": camera.camera_to_world[:3, 3].tolist(),
            "rotation": camera.camera_to_world[:3, :3].tolist(),
            "fx": float(camera.intrinsics[0, 0]),
            "fy": float(camera.intrinsics[1, 1]),
        }
        for index, camera in enumerate(cameras[i] for i in range(len(cameras)))
    ]


def _numbers(values: Float[Tensor, "*shape"]) -> np.ndarray:
    return values.detach().cpu().numpy()
