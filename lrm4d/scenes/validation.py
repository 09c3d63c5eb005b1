"""What can be wrong with a scene folder, each said with file, frame, value and remedy."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from lrm4d.cameras import Cameras, convert_opengl_opencv, nearest_points_to_world_origin, project, unproject

ROTATION_TOLERANCE = 1e-3
SHOWN_PROBLEMS = 8
SMALLEST_SPHERE = 4.0
"""Pixels that the unit sphere must span in a picture; below, the units are not what they should be."""


class SceneError(ValueError):
    """Everything found wrong with one file of a scene."""

    def __init__(self, path: Path, problems: Sequence[str]):
        self.path, self.problems = path, tuple(problems)
        shown = [f"  - {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            shown.append(f"  ... and {len(problems) - SHOWN_PROBLEMS} more of this kind or another")
        super().__init__("\n".join([f"{path}: {len(problems)} problem(s)", *shown]))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; broken JSON is an error with its line and column."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SceneError(
            path, [f"broken JSON at line {error.lineno}, column {error.colno}: {error.msg}. Write the file again."]
        ) from error
    except UnicodeDecodeError as error:
        raise SceneError(
            path, [f"not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."]
        ) from error
    if not isinstance(content, dict):
        raise SceneError(path, [f"holds a {type(content).__name__}; expected a JSON object {{...}}."])
    return content


def check_transform(matrix: Any) -> str | None:
    """What is wrong with one 4x4 (or 3x4) camera-to-world matrix as it came from a file, or None."""
    rows = matrix if isinstance(matrix, list) else []
    shape_is_right = len(rows) in (3, 4) and all(isinstance(row, list) and len(row) == 4 for row in rows)
    if not shape_is_right or not all(_is_number(value) for row in rows for value in row):
        return f"transform_matrix is {str(matrix)[:60]}; expected 4 rows of 4 numbers, camera to world."
    values = torch.tensor(rows, dtype=torch.float64)
    if not bool(values.isfinite().all()):
        return f"transform_matrix holds {_first_not_finite(values)}; its pose was never estimated: drop the frame."
    if len(rows) == 4 and not torch.equal(values[3], values.new_tensor([0, 0, 0, 1])):
        return f"transform_matrix ends with the row {rows[3]}; expected [0, 0, 0, 1] (is it transposed?)."
    return _check_rotation(values[:3, :3])


def _check_rotation(rotation: Float[Tensor, "3 3"]) -> str | None:
    lengths = rotation.norm(dim=0)
    if bool((lengths - 1).abs().max() > ROTATION_TOLERANCE):
        shown = ", ".join(f"{length:.4g}" for length in lengths.tolist())
        return (
            f"not a rotation: the columns of transform_matrix have lengths {shown}, expected 1. Divide each by its "
            "length; a scale of the scene belongs into the translation alone."
        )
    error = (rotation.mT @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().max().item()
    if error > ROTATION_TOLERANCE:
        return (
            f"not a rotation: the axes in transform_matrix are {error:.2g} away from square to each other "
            f"(at most {ROTATION_TOLERANCE:g}). Export the pose again, or take the nearest rotation (SVD)."
        )
    if torch.linalg.det(rotation) < 0:
        return (
            "not a rotation: transform_matrix has determinant -1, a mirror image. One axis was negated, or two were "
            "swapped, without another: negate one more axis of the camera or of the world."
        )
    return None


def check_times(times: Sequence[Any]) -> list[str]:
    """Problems of all frames' times together ("" where the file had none): missing, not numbers, outside [0, 1]."""
    missing = [index for index, time in enumerate(times) if time == ""]
    remedy = 'Give every frame a "time" from 0 (first moment) to 1 (last); 0 everywhere if nothing moves.'
    if len(missing) == len(times):
        return [f"no times: none of the {len(times)} frames has a 'time'. {remedy}"]
    if missing:
        return [f"frames[{missing[0]}] and {len(missing) - 1} others have no 'time'. {remedy}"]
    odd = [(index, t) for index, t in enumerate(times) if not _is_number(t) or not math.isfinite(t)]
    if odd:
        return [f"frames[{index}]: time is {value!r}; expected a number from 0 to 1." for index, value in odd]
    low, high = min(times), max(times)
    if low >= 0 and high <= 1:
        return []
    worst = next(index for index, t in enumerate(times) if t < 0 or t > 1)
    return [
        f"frames[{worst}]: time is {times[worst]:g}, outside [0, 1] (the scene's run from {low:g} to {high:g}). "
        f"Rescale them: time = (time - {low:g}) / {(high - low) or 1:g}."
    ]


def check_placement(cameras: Cameras, names: Sequence[str]) -> list[str]:
    """Problems of cameras [frame] around an object in the unit sphere: inside it, all rays missing it, far too small.

    names: what to call each frame.
    """
    distances = cameras.origins.norm(dim=-1)
    problems = [
        f"{names[i]}: the camera is inside the object's unit sphere, {distances[i]:.3g} from the world's origin "
        "(expected more than 1). Move the object to the origin and scale the translations so that it fits the sphere."
        for i in torch.nonzero(distances <= 1).flatten().tolist()
    ]
    if problems:
        return problems
    blind = ~sees_unit_sphere(cameras)
    if bool(blind.any()):
        first, advice = int(blind.nonzero()[0]), _advise_axes(cameras)
        return [
            f"{names[first]}" + (f" and {int(blind.sum()) - 1} other frames" if blind.sum() > 1 else "") + ": every "
            f"ray misses the unit sphere where the object should be: the camera at {_show(cameras.origins[first])} "
            f"looks along {_show(cameras.camera_to_world[first, :3, 2])}. {advice}"
        ]
    spans = 2 * cameras.intrinsics[:, 0, 0] / distances
    smallest = int(spans.argmin())
    if spans[smallest] < SMALLEST_SPHERE:
        return [
            f"{names[smallest]}: the unit sphere is {spans[smallest]:.2g} pixels wide from a distance of "
            f"{distances[smallest]:.4g}: the units are too small. Divide the translations so that the object fits it."
        ]
    return []


def sees_unit_sphere(cameras: Cameras) -> Bool[Tensor, "*batch"]:
    """Whether any of a camera's rays meets the unit sphere ahead of the camera.

    Tried are a grid of 16 x 16 rays, and the ray towards the sphere's centre, moved into the picture if it is outside.
    """
    origins, directions = cameras.resize(16, 16).rays()
    centre, _ = project(cameras, torch.zeros_like(cameras.origins))
    size = centre.new_tensor([cameras.width, cameras.height])
    centre = torch.minimum(centre.nan_to_num().clamp(min=0), size)
    towards = normalize(unproject(cameras, centre, torch.ones_like(centre[..., 0])) - cameras.origins, dim=-1)
    directions = torch.cat([directions.flatten(-3, -2), towards[..., None, :]], dim=-2)[..., None, :]
    nearest = nearest_points_to_world_origin(origins, directions)
    ahead = -(origins * directions).sum(-1) > 0
    return (ahead & (nearest.norm(dim=-1) < 1)).flatten(-2).any(-1)


def _advise_axes(cameras: Cameras) -> str:
    """Which reading of the matrices would make every camera see the sphere; cameras are as read, from OpenGL axes."""
    in_file = convert_opengl_opencv(cameras.camera_to_world)
    inverse = torch.linalg.inv(in_file)
    candidates = {
        "They look like OpenCV axes (y down, z forward), and this file needs OpenGL axes (y up, z back): negate the "
        "second and third column of every transform_matrix.": in_file,
        "They look like world-to-camera matrices: invert every transform_matrix.": convert_opengl_opencv(inverse),
        "They look like world-to-camera matrices in OpenCV axes: invert every transform_matrix, then negate its "
        "second and third column.": inverse,
    }
    for advice, matrices in candidates.items():
        if bool(sees_unit_sphere(Cameras(matrices, cameras.intrinsics, cameras.width, cameras.height)).all()):
            return f"{advice} Every frame would then see the sphere."
    return "Neither flipped axes nor inverted matrices mend it: move the object to the world's origin."


def is_positive(value: Any) -> bool:
    """Whether a value out of a file is a finite number above 0."""
    return _is_number(value) and math.isfinite(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_not_finite(values: Tensor) -> str:
    row, column = (~values.isfinite()).nonzero()[0].tolist()
    return f"{values[row, column].item()} in row {row}, column {column}"


def _show(vector: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in vector.tolist()) + ")"
