"""A transforms.json as a path: the cameras of its frames in their order, whether or not their pictures are there.

`transform_matrix` is camera-to-world in OpenGL axes (x right, y up, z back); fl_x, fl_y, cx, cy, w, h in pixels, for
all frames or for each, or camera_angle_x (horizontal, radians); `time` in [0, 1].
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, convert_opengl_opencv
from lrm4d.checkpoint import read_json, write_text
from lrm4d.trajectories.formats.reading import get, get_list, read_numbers, read_times, to_rigid
from lrm4d.trajectories.recording import Recording, check_poses


def read(path: Path, part: str) -> Recording:
    """The cameras of `frames`."""
    content = read_json(path)
    frames = get_list(path, "the file", content, "frames")
    poses, lenses = [], []
    for index, frame in enumerate(frames):
        rows = get(path, f"frames[{index}]", frame, "transform_matrix")
        poses.append(read_numbers(path, f"transform_matrix of frames[{index}]", rows, -1, 4)[:3])
        lenses.append(_read_lens(path, index, {**content, **frame}))
    if any(len(pose) != 3 for pose in poses):
        raise ValueError(f"{path}: a transform_matrix has fewer than 3 rows; expected 4 rows of 4 numbers.")
    camera_to_world = check_poses(str(path), convert_opengl_opencv(to_rigid(torch.stack(poses))))
    times = read_times(path, [frame.get("time") for frame in frames])
    return Recording(camera_to_world, torch.tensor(lenses, dtype=torch.float64), times)


def _read_lens(path: Path, index: int, entry: dict[str, Any]) -> tuple[float, float, float, float]:
    """fx, fy and the principal point from the middle, in widths."""
    number = lambda key: read_numbers(path, f"{key} of frames[{index}]", entry[key]).item()  # noqa: E731
    if entry.get("fl_x") is None:
        angle = read_numbers(path, "camera_angle_x", get(path, f"frames[{index}]", entry, "camera_angle_x")).item()
        if not 0 < angle < math.pi:
            raise ValueError(f"{path}: camera_angle_x is {angle:g}; expected radians between 0 and pi.")
        return 0.5 / math.tan(angle / 2), 0.5 / math.tan(angle / 2), 0.0, 0.0
    width = read_numbers(path, f"w of frames[{index}]", get(path, f"frames[{index}]", entry, "w")).item()
    height = number("h") if entry.get("h") is not None else width
    fx = number("fl_x")
    fy = number("fl_y") if entry.get("fl_y") is not None else fx
    if min(width, height, fx, fy) <= 0:
        raise ValueError(f"{path}: frames[{index}] has w {width:g}, h {height:g}, fl_x {fx:g}, fl_y {fy:g}; all > 0?")
    x = number("cx") - width / 2 if entry.get("cx") is not None else 0.0
    y = number("cy") - height / 2 if entry.get("cy") is not None else 0.0
    return fx / width, fy / width, x / width, y / width


def write(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera], each with its own lens; the file_paths are those that a render would have."""
    matrices = convert_opengl_opencv(cameras.camera_to_world.double()).tolist()
    lenses = cameras.intrinsics.double().tolist()
    frames = [
        {
            "file_path": f"frame_{index:05}.png",
            "time": time,
            "fl_x": k[0][0],
            "fl_y": k[1][1],
            "cx": k[0][2],
            "cy": k[1][2],
            "transform_matrix": matrix,
        }
        for index, (matrix, time, k) in enumerate(zip(matrices, times.double().tolist(), lenses, strict=True))
    ]
    content = {"camera_model": "OPENCV", "w": cameras.width, "h": cameras.height, "frames": frames}
    write_text(path, json.dumps(content, indent=1) + "\n")
