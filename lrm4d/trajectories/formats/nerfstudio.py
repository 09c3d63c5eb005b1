"""nerfstudio's camera path: `camera_path`, a list of every picture's camera; `keyframes`, what its viewer edits.

Poses are camera-to-world, 16 numbers row after row, in OpenGL axes (x right, y up, z back). `fov` is vertical, in
degrees; `render_time` in [0, 1]. The world is the one that a nerfstudio model was trained in: its data parsers centre,
turn and scale a scene (dataparser_transforms.json) unless told not to; nothing of that is undone here.
"""

import json
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, convert_opengl_opencv
from lrm4d.checkpoint import read_json, write_text
from lrm4d.trajectories.formats.reading import check_plain_lens, get, get_list, read_numbers, read_times
from lrm4d.trajectories.recording import Recording, check_poses, lenses_of


def read(path: Path, part: str) -> Recording:
    """The cameras of `camera_path`."""
    content = read_json(path)
    kind = content.get("camera_type", "perspective")
    if str(kind).lower() not in ("perspective", "pinhole"):
        raise ValueError(f"{path}: camera_type is '{kind}'; expected perspective.")
    entries = get_list(path, "the file", content, "camera_path")
    name = lambda index: f"camera_path[{index}]"  # noqa: E731
    poses = torch.stack(
        [
            read_numbers(path, f"camera_to_world of {name(i)}", get(path, name(i), entry, "camera_to_world"), 16)
            for i, entry in enumerate(entries)
        ]
    ).reshape(-1, 4, 4)
    lenses = [_read_lens(path, name(i), entry) for i, entry in enumerate(entries)]
    poses = check_poses(str(path), convert_opengl_opencv(poses))
    times = read_times(path, [entry.get("render_time") for entry in entries])
    return Recording(poses, torch.tensor(lenses, dtype=torch.float64), times)


def _read_lens(path: Path, where: str, entry: dict) -> tuple[float, float, float, float]:
    fov = read_numbers(path, f"fov of {where}", get(path, where, entry, "fov")).item()
    aspect = read_numbers(path, f"aspect of {where}", entry.get("aspect", 1.0)).item()
    if not 0 < fov < 180 or aspect <= 0:
        raise ValueError(f"{path}: {where} has fov {fov:g} and aspect {aspect:g}; expected 0 < fov < 180, aspect > 0.")
    focal = 0.5 / math.tan(math.radians(fov) / 2) / aspect
    return focal, focal, 0.0, 0.0


def write(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera]; each is a keyframe too, so that the viewer loads the very path."""
    check_plain_lens(path, cameras, "nerfstudio's camera path")
    aspect = cameras.width / cameras.height
    matrices = convert_opengl_opencv(cameras.camera_to_world.double()).flatten(1).tolist()
    fovs = [2 * math.degrees(math.atan(0.5 / aspect / focal)) for focal in lenses_of(cameras)[:, 0].tolist()]
    moments, step = times.double().tolist(), 1 / frames_per_second
    rows = list(zip(matrices, fovs, moments, strict=True))
    content = {
        "camera_type": "perspective",
        "render_width": cameras.width,
        "render_height": cameras.height,
        "fps": frames_per_second,
        "seconds": len(rows) / frames_per_second,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "default_fov": fovs[0],
        "default_transition_sec": step,
        "keyframes": [
            {
                "matrix": matrix,
                "fov": fov,
                "aspect": aspect,
                "override_time_enabled": True,
                "render_time": moment,
                "override_transition_enabled": False,
                "override_transition_sec": None,
            }
            for matrix, fov, moment in rows
        ],
        "camera_path": [
            {"camera_to_world": matrix, "fov": fov, "aspect": aspect, "render_time": moment}
            for matrix, fov, moment in rows
        ],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
