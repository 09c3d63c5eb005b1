"""What a saved scene, a network or a scene folder is, as plain data."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lrm4d.checkpoint import read_json
from lrm4d.gaussians4d import Gaussians4D, load_extra
from lrm4d.reconstruction.pretrained import SHIPPED, find_weight_files, list_pretrained
from lrm4d.scenes import load_scene


def describe(name: str) -> dict[str, Any]:
    """A .safetensors scene, a scene folder, or a network by folder or shipped name. ValueError for anything else."""
    path = Path(name)
    for folder in (SHIPPED / name, path):
        if (folder / "config.json").is_file():
            return describe_model(folder)
    if path.is_file():
        return describe_gaussians(path)
    if path.is_dir():
        return describe_scene(path)
    raise ValueError(
        f"{name}: no such file or folder, and no shipped network of that name (there are: "
        f"{', '.join(list_pretrained()) or 'none'})."
    )


def describe_gaussians(path: Path) -> dict[str, Any]:
    """A file that `lrm4d reconstruct` wrote. Extent and times are where 98 % of the Gaussians are."""
    gaussians = Gaussians4D.load(path)
    moving = gaussians.to_moving()
    return {
        "kind": "4D scene",
        "file": str(path),
        "bytes": path.stat().st_size,
        "gaussians": len(gaussians),
        "low": [_percentile(axis, 0.01) for axis in gaussians.means.unbind(-1)],
        "high": [_percentile(axis, 0.99) for axis in gaussians.means.unbind(-1)],
        "times": [_percentile((gaussians.time_means + 1) / 2, at) for at in (0.01, 0.99)],
        "median_opacity": _percentile(gaussians.opacities, 0.5),
        "median_speed": _percentile(2 * moving.velocities.norm(dim=-1), 0.5),
        "low_pass": gaussians.low_pass,
        "compensate": gaussians.compensate,
        "origin": load_extra(path),
    }


def describe_model(folder: Path) -> dict[str, Any]:
    """A folder with config.json and the weights."""
    files = find_weight_files(folder)
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"{folder}: has a config.json and no {', '.join(missing)}; copy the weights there.")
    parameters, types = 0, set()
    for path in files:
        with safe_open(path, framework="pt") as file:
            slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (no mapping)
            parameters += sum(math.prod(piece.get_shape()) for piece in slices)
            types |= {piece.get_dtype() for piece in slices}
    return {
        "kind": "network",
        "folder": str(folder),
        "bytes": sum(path.stat().st_size for path in files),
        "parameters": parameters,
        "types": sorted(types),
        "config": read_json(folder / "config.json"),
        "card": str(folder / "README.md") if (folder / "README.md").is_file() else None,
    }


def describe_scene(folder: Path) -> dict[str, Any]:
    """A scene folder, read and checked in full."""
    scene = load_scene(folder)
    cameras = scene.cameras(scene.file_paths)
    times = sorted({frame.time for frame in scene.frames})
    distances = cameras.origins.norm(dim=-1)
    return {
        "kind": "scene folder",
        "folder": str(folder),
        "frames": len(scene.frames),
        "width": cameras.width,
        "height": cameras.height,
        "fov": math.degrees(2 * math.atan(0.5 * cameras.width / cameras.intrinsics[0, 0, 0].item())),
        "distances": [distances.min().item(), distances.max().item()],
        "moments": len(times),
        "times": [times[0], times[-1]],
        "views": _unique(frame.view for frame in scene.frames),
        "protocols": {
            name: f"{len(inputs)} inputs, {len(targets)} targets"
            for name, (inputs, targets) in scene.protocols.items()
        },
    }


def _percentile(values: torch.Tensor, at: float) -> float | None:
    """The value below which a share of them lies; None of nothing. (torch.quantile refuses 16 million.)"""
    if not len(values):
        return None
    return round(values.flatten().kthvalue(1 + round(at * (len(values) - 1))).values.item(), 4)


def _unique(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]
