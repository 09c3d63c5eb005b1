"""INRIA's .ply of 3D Gaussians (Kerbl et al. 2023): what nearly every viewer, editor and trainer reads; no time.

A file holds one moment. Every transform that is applied, and there is no other:
- x, y, z: the means, as they are. Our world (z up, the object within the unit sphere) is not turned. Files of INRIA
  and gsplat have the world of their capture, often y down; nerfstudio's have z up and say so in a comment, as ours do.
- nx, ny, nz: zeros, which nobody uses.
- f_dc_0..2 = (color - 0.5) / C0, C0 = 1 / (2 sqrt(pi)): the constant band of the spherical harmonics. No f_rest: our
  colors are the same from everywhere.
- opacity: logit(opacity), the opacity first clamped into [1e-7, 1 - 1e-7], because the logit of 1 is infinite. One of
  .99 or .999 is kept; what alpha is clamped to is the viewer's affair (ours .99, gsplat's .999).
- scale_0..2: log(standard deviation), at least log(1e-8) where a Gaussian is flat.
- rot_0..3: unit quaternion w, x, y, z, for which R S S^T R^T is the covariance.
A scene's low_pass and compensate are no part of the format: viewers add 0.3 pixels squared to every footprint, most
without compensation, so that a scene fitted with a smaller low_pass looks softer in them than in ours.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.checkpoint import atomic_path, write_text
from lrm4d.gaussians3d import Gaussians3D, compose_covariances, decompose_covariances
from lrm4d.gaussians4d import MovingGaussians

SH_C0 = 0.5 / math.sqrt(math.pi)
"""The constant spherical harmonic: color = 0.5 + C0 f_dc."""
OPACITY_MARGIN, SMALLEST_SCALE = 1e-7, 1e-8
"""How near to 0 and 1 an opacity goes, and the smallest standard deviation (world units): logarithms are finite."""
COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2"},
    **{"int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8"},
}
"""PLY's names of scalar types, as numpy's."""
LONGEST_HEADER = 1 << 16
"""Bytes in which a header must end."""


def write_ply(path: str | Path, gaussians: Gaussians3D) -> None:
    """Write Gaussians of batch shape [] (MovingGaussians.visible_at(time) leaves out those below 1/255) atomically."""
    scales, quaternions = decompose_covariances(gaussians.covariances)
    opacities = gaussians.opacities.double().clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    columns = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        colors_to_sh(gaussians.colors),
        torch.logit(opacities)[:, None],
        scales.clamp(min=SMALLEST_SCALE).log(),
        quaternions,
    ]
    rows = torch.cat([column.detach().cpu().float() for column in columns], dim=-1)
    lines = ["ply", "format binary_little_endian 1.0", "comment Vertical Axis: z", f"element vertex {len(rows)}"]
    lines += [f"property float {name}" for name in COLUMNS]
    header = "\n".join([*lines, "end_header", ""]).encode("ascii")
    with atomic_path(path) as temporary:
        temporary.write_bytes(header + rows.numpy().astype("<f4").tobytes())


def write_ply_frames(
    folder: str | Path,
    gaussians: MovingGaussians,
    times: Float[Tensor, "time"],
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[Path, int]:
    """Write frame_000.ply ... of what is visible of one scene at times in [0, 1]; returns their Gaussians by path.

    frames.json, written last, lists {"file", "time", "gaussians"} in order. ValueError where the folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; expected a folder for {len(times)} files, or a new name.")
    digits = max(3, len(str(len(times) - 1)))
    frames = []
    for index, time in enumerate(times.tolist()):
        moment = gaussians.visible_at(time)
        name = f"frame_{index:0{digits}}.ply"
        write_ply(folder / name, moment)
        frames.append({"file": name, "time": time, "gaussians": len(moment.means)})
        if progress:
            progress("frames", index + 1, len(times))
    write_text(folder / "frames.json", json.dumps({"frames": frames}, indent=2))
    return {folder / frame["file"]: frame["gaussians"] for frame in frames}


def read_ply(path: str | Path) -> Gaussians3D:
    """Gaussians of batch shape [], float32, of a .ply of 3D Gaussians; columns may come in any order.

    ValueError names the file when it is no such file, is cut off, holds numbers that are not finite, or colors that
    depend on the direction (f_rest), which Gaussians3D cannot hold.
    """
    content = Path(path).read_bytes()
    header = _read_header(content, path)
    size = header.count * header.row.itemsize
    rest = len(content) - header.length
    if rest < size or (rest > size and not header.more):
        raise ValueError(
            f"{path}: {rest} bytes follow the header, expected {size} for {header.count} Gaussians of "
            f"{header.row.itemsize} bytes; was it cut off while copying?"
        )
    table = np.frombuffer(content, header.row, header.count, header.length)

    def take(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([table[name].astype(np.float64) for name in names], axis=-1))

    directional = [name for name in header.row.names or () if name.startswith("f_rest_")]
    if directional and bool(take(*directional).any()):
        raise ValueError(
            f"{path}: its colors change with the direction ({len(directional)} f_rest columns), which is not read "
            "here. Save it without spherical harmonics (degree 0)."
        )
    values = (
        take("x", "y", "z"),
        compose_covariances(take("scale_0", "scale_1", "scale_2").exp(), take("rot_0", "rot_1", "rot_2", "rot_3")),
        take("opacity").sigmoid()[:, 0],
        sh_to_colors(take("f_dc_0", "f_dc_1", "f_dc_2")),
    )
    if not all(bool(value.isfinite().all()) for value in values):
        raise ValueError(f"{path}: holds numbers that are not finite; expected finite ones. Write the file again.")
    return Gaussians3D(*(value.float() for value in values))


def colors_to_sh(colors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """RGB as coefficients of the constant spherical harmonic."""
    return (colors - 0.5) / SH_C0


def sh_to_colors(coefficients: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The inverse of colors_to_sh, never below 0, as every renderer clamps it."""
    return (0.5 + SH_C0 * coefficients).clamp(min=0)


@dataclass(frozen=True)
class _Header:
    """length: bytes. count: of Gaussians. row: one's columns. more: whether other elements follow the Gaussians."""

    length: int
    count: int
    row: np.dtype
    more: bool


def _read_header(content: bytes, path: str | Path) -> _Header:
    if not content.startswith((b"ply\n", b"ply\r\n")):
        raise ValueError(f"{path}: not a .ply file: it starts with {content[:4]!r}, expected b'ply\\n'.")
    end = content.find(b"end_header", 0, LONGEST_HEADER)
    newline = content.find(b"\n", end)
    if end < 0 or newline < 0:
        raise ValueError(f"{path}: the header has no end_header; was it cut off while copying?")
    lines = [line.split() for line in content[:end].decode("ascii", "replace").splitlines()]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise ValueError(f"{path}: expected 'format binary_little_endian 1.0'; convert it to that.")
    elements = [index for index, words in enumerate(lines) if words[0] == "element"]
    count = _count(lines[elements[0]]) if elements else None
    if count is None:
        found = " ".join(lines[elements[0]]) if elements else "none"
        raise ValueError(f"{path}: the first element is '{found}', expected 'element vertex COUNT' (uncompressed).")
    fields = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else None]
    return _Header(newline + 1, count, _row_type(fields, path), len(elements) > 1)


def _count(words: Sequence[str]) -> int | None:
    """COUNT of "element vertex COUNT", or None."""
    return int(words[2]) if len(words) == 3 and words[1] == "vertex" and words[2].isdecimal() else None


def _row_type(fields: Sequence[Sequence[str]], path: str | Path) -> np.dtype:
    for words in fields:
        if len(words) != 3 or words[0] != "property" or words[1] not in TYPES:
            raise ValueError(f"{path}: cannot read '{' '.join(words)}'; expected 'property float NAME'.")
    names = [words[2] for words in fields]
    missing = [name for name in COLUMNS if name not in names and not name.startswith("n")]
    if missing or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: not a file of 3D Gaussians: columns {', '.join(names)}, missing or twice: "
            f"{', '.join(missing) or 'some'}. Expected the columns of INRIA's format."
        )
    return np.dtype([(words[2], TYPES[words[1]]) for words in fields])
