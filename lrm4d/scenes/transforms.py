"""transforms.json: nerfstudio's form (fl_x, fl_y, cx, cy, w, h) and D-NeRF's (camera_angle_x, transforms_train.json).

Both hold camera-to-world matrices in OpenGL axes (x right, y up, z back); they become OpenCV's here. Every frame needs
`file_path`, `transform_matrix` and `time` in [0, 1]; `view` (a camera's name) and `frame` (a moment's number) may be
there. Distorted and fisheye pictures are refused: undistort them first.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from lrm4d.cameras import Cameras, convert_opengl_opencv
from lrm4d.checkpoint import write_text
from lrm4d.scenes.pictures import THREADS, picture_size, save_pictures
from lrm4d.scenes.protocols import Protocol, make_protocols, read_protocols, split_protocol
from lrm4d.scenes.scene import Frame, Scene, render_path, tidy_path
from lrm4d.scenes.validation import SceneError, check_placement, check_times, check_transform, is_positive, read_json
from lrm4d.views import Views

INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
SAME_LENS = 1e-4
"""How much intrinsics may differ between frames, relative to their size: a tenth of a pixel in a thousand."""
SPLITS = ("train", "val", "test")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")


def load_scene(folder: str | Path, object_in_unit_sphere: bool = True, pictures_required: bool = True) -> Scene:
    """Read and check a scene folder: transforms.json, or transforms_train / _val / _test.json, and protocols.json.

    Everything but the pixels is checked here (SceneError names file, frame, value and remedy); pixels are decoded by
    Scene.views. object_in_unit_sphere: whether to check that the cameras stand around the unit sphere and see it.
    pictures_required: whether every frame must have its picture; one without can still be rendered.
    """
    folder = Path(folder)
    frames: list[Frame] = []
    for path, split in _transforms_files(folder):
        frames += _read_file(path, split, object_in_unit_sphere, pictures_required)
    _check_together(folder, frames)
    frames = _number_moments(frames)
    protocols = make_protocols(frames) | split_protocol(frames)
    if (folder / "protocols.json").exists():
        protocols |= read_protocols(folder / "protocols.json", [frame.file_path for frame in frames])
    return Scene(folder=folder, frames=tuple(frames), protocols=protocols)


def save_scene(
    folder: str | Path,
    views: Views,
    file_paths: Sequence[str],
    protocols: Mapping[str, Protocol] | None = None,
) -> None:
    """Write Views [view] as a scene folder: RGBA PNG files at file_paths (ending in .png) and transforms.json.

    The cameras must share their intrinsics. protocols, if given, become protocols.json. transforms.json comes last,
    so that a folder that has it is whole.
    """
    folder = Path(folder)
    paths = [render_path(folder, file_path) for file_path in file_paths]
    if len(views) != len(paths) or len(set(paths)) != len(paths):
        raise ValueError(
            f"save_scene: {len(views)} views and {len(set(paths))} different file_paths; expected as many."
        )
    intrinsics = views.cameras.intrinsics
    if not torch.allclose(intrinsics, intrinsics[:1].expand_as(intrinsics)):
        raise ValueError("save_scene: mixed intrinsics; transforms.json holds one set: write one folder for each.")
    save_pictures(paths, torch.cat([views.images, views.alphas], dim=1))
    if protocols:
        sides = {name: {"inputs": list(pair[0]), "targets": list(pair[1])} for name, pair in protocols.items()}
        write_text(folder / "protocols.json", json.dumps(sides, indent=1) + "\n")
    matrices = convert_opengl_opencv(views.cameras.camera_to_world.double()).tolist()
    frames = [
        {"file_path": path.relative_to(folder).as_posix(), "time": time, "transform_matrix": matrix}
        for path, time, matrix in zip(paths, views.times.double().tolist(), matrices, strict=True)
    ]
    k = intrinsics[0].double().tolist()
    header = {"w": views.cameras.width, "h": views.cameras.height}
    header |= {"fl_x": k[0][0], "fl_y": k[1][1], "cx": k[0][2], "cy": k[1][2]}
    content = header | {"camera_model": "OPENCV", "frames": frames}
    write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")


def _transforms_files(folder: Path) -> list[tuple[Path, str]]:
    if (folder / "transforms.json").exists():
        return [(folder / "transforms.json", "")]
    files = [(folder / f"transforms_{split}.json", split) for split in SPLITS]
    found = [(path, split) for path, split in files if path.exists()]
    if not found:
        raise ValueError(
            f"{folder}: holds no transforms.json and no transforms_train.json"
            + ("" if folder.is_dir() else " (there is no such folder)")
            + "; expected a scene folder in nerfstudio's or D-NeRF's form."
        )
    return found


def _read_file(path: Path, split: str, object_in_unit_sphere: bool, pictures_required: bool) -> list[Frame]:
    content = read_json(path)
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SceneError(path, [f"'frames' is {str(entries)[:60]}; expected a list of at least one frame."])
    problems = _check_lens(content, entries) + _check_entries(entries)
    problems += check_times([entry.get("time", "") for entry in entries])
    if problems:
        raise SceneError(path, problems)
    names = [_find_picture(path.parent, entry["file_path"]) for entry in entries]
    lens = {**content, **entries[0]}
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing and (pictures_required or len(missing) == len(names)):
        remedy = f"no such file in {path.parent}. Put it there or drop the frame."
        raise SceneError(path, [f"missing image '{name}': {remedy}" for name in missing])
    size = _check_sizes(path, [name for name in names if name not in missing], lens)
    cameras = _make_cameras(lens, [entry["transform_matrix"] for entry in entries], size)
    if object_in_unit_sphere:
        problems = check_placement(cameras, names)
        if problems:
            raise SceneError(path, problems)
    return [
        Frame(name, float(entry["time"]), cameras[i], str(entry.get("view", "")), split=split)
        for i, (name, entry) in enumerate(zip(names, entries, strict=True))
    ]


def _check_lens(content: dict[str, Any], entries: list[dict[str, Any]]) -> list[str]:
    """Problems of the intrinsics: missing, mixed, distorted, of another camera model."""
    lens = {**content, **entries[0]}
    problems = []
    for key in INTRINSICS:
        values = [entry.get(key, content.get(key)) for entry in entries]
        wrong = [i for i, value in enumerate(values) if value is not None and not is_positive(value)]
        if wrong:
            problems.append(f"'{key}' of frames[{wrong[0]}] is {values[wrong[0]]!r}; expected a number above 0.")
        elif any(values) and (not all(values) or max(values) - min(values) > SAME_LENS * max(values)):
            other = next(i for i, value in enumerate(values) if value != values[0])
            problems.append(
                f"mixed intrinsics: '{key}' is {values[0]} in frames[0] and {values[other]} in frames[{other}]; a "
                "scene has one lens. Resize and crop the pictures to one field of view, or make a folder a lens."
            )
    if lens.get("fl_x") is None and lens.get("camera_angle_x") is None:
        problems.append(
            "neither 'fl_x' (pixels) nor 'camera_angle_x' (radians) is there; give one, or nothing can be projected."
        )
    distortion = {key: entry[key] for entry in (content, *entries) for key in DISTORTION if entry.get(key)}
    if distortion:
        problems.append(f"distorted pictures ({distortion}): undistort them, then set the coefficients to 0.")
    model = str(lens.get("camera_model", "OPENCV")).upper()
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE"):
        problems.append(f"camera_model is '{model}'; expected OPENCV or PINHOLE. Resample the pictures to a pinhole.")
    return problems


def _check_entries(entries: list[dict[str, Any]]) -> list[str]:
    problems, seen = [], {}
    for index, entry in enumerate(entries):
        name = entry.get("file_path")
        if not isinstance(name, str) or not name:
            problems.append(f"frames[{index}]: file_path is {name!r}; expected the picture's path.")
            continue
        first = seen.setdefault(tidy_path(name), index)
        if first != index:
            problems.append(
                f"frames[{index}] and frames[{first}]: both have the file_path '{name}'; "
                "give each frame a picture of its own, or drop one."
            )
        wrong = check_transform(entry.get("transform_matrix"))
        if wrong:
            problems.append(f"frames[{index}] ({name}): {wrong}")
    return problems


def _find_picture(folder: Path, file_path: str) -> str:
    """The picture's path with extension, relative to the folder; D-NeRF leaves the extension out."""
    tidy = tidy_path(file_path)
    if PurePosixPath(tidy).suffix.lower() in EXTENSIONS or (folder / tidy).is_file():
        return tidy
    candidates = [tidy + extension for extension in EXTENSIONS]
    return next((name for name in candidates if (folder / name).is_file()), candidates[0])


def _check_sizes(path: Path, names: Sequence[str], lens: dict[str, Any]) -> tuple[int, int]:
    """The size that all pictures share, from their headers."""
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda name: picture_size(path.parent / name), names))
    usual = Counter(sizes).most_common(1)[0][0]
    declared = (int(lens.get("w") or usual[0]), int(lens.get("h") or usual[1]))
    problems = [
        f"{name}: wrong size: the picture is {size[0]} x {size[1]} pixels, expected {declared[0]} x {declared[1]}. "
        "Resize it, or correct w, h and the intrinsics."
        for name, size in zip(names, sizes, strict=True)
        if size != declared
    ]
    if problems:
        raise SceneError(path, problems)
    return declared


def _make_cameras(lens: dict[str, Any], matrices: list[Any], size: tuple[int, int]) -> Cameras:
    width, height = size
    # nerfstudio's focal length is exact; the angle beside it is often rounded, so the focal length goes first.
    fl_x = lens.get("fl_x") or 0.5 * width / math.tan(lens["camera_angle_x"] / 2)
    fl_y = lens.get("fl_y") or fl_x
    rows = [[fl_x, 0, lens.get("cx") or width / 2], [0, fl_y, lens.get("cy") or height / 2], [0, 0, 1]]
    intrinsics = torch.tensor(rows, dtype=torch.float32)
    upper = torch.tensor([matrix[:3] for matrix in matrices], dtype=torch.float64)
    last = upper.new_tensor([0, 0, 0, 1]).expand(len(upper), 1, 4)
    camera_to_world = convert_opengl_opencv(torch.cat([upper, last], dim=1)).float()
    return Cameras(camera_to_world, intrinsics.expand(len(upper), 3, 3), width, height)


def _check_together(folder: Path, frames: list[Frame]) -> None:
    """What only the splits of a D-NeRF folder together can have wrong."""
    first = frames[0]
    for frame in frames:
        same_size = (frame.camera.width, frame.camera.height) == (first.camera.width, first.camera.height)
        if not same_size or not torch.equal(frame.camera.intrinsics, first.camera.intrinsics):
            raise SceneError(
                folder,
                [
                    f"mixed intrinsics: {frame.file_path} and {first.file_path} differ in size or focal length "
                    "between the splits; resize them to one size and field of view."
                ],
            )
    repeated = [name for name, count in Counter(frame.file_path for frame in frames).items() if count > 1]
    if repeated:
        raise SceneError(folder, [f"'{name}' is in two splits; a picture belongs to one." for name in repeated])


def _number_moments(frames: list[Frame]) -> list[Frame]:
    """Fill in each frame's index (rank of its time) and view name ("front" of "images/front_007.png")."""
    moments = {time: index for index, time in enumerate(sorted({frame.time for frame in frames}))}
    named = []
    for frame in frames:
        match = re.fullmatch(r"(.+)_\d+", PurePosixPath(frame.file_path).stem)
        view = frame.view or (match.group(1) if match else "")
        named.append(replace(frame, index=moments[frame.time], view=view))
    return named
