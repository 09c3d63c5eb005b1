"""COLMAP's model folder: cameras and images, as text or binary; the path goes through the images by name.

Poses are world-to-camera (QW QX QY QZ, TX TY TZ) in OpenCV axes, the world and its units COLMAP's own. Lenses with
distortion are refused. No times are in the files. `sparse/0` or `sparse` below the folder is looked into.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, from_colmap, to_colmap
from lrm4d.checkpoint import atomic_path, write_text
from lrm4d.trajectories.formats.reading import read_numbers
from lrm4d.trajectories.recording import Recording, check_poses
from lrm4d.trajectories.state import Number

MODELS = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
}
"""Id and number of parameters; f, cx, cy or fx, fy, cx, cy come first, what follows is distortion."""
TWO_FOCALS = ("PINHOLE", "OPENCV")
POINT_BYTES = 24


@dataclass(frozen=True)
class _Image:
    name: str
    pose: tuple[float, ...]
    camera: int


def find_model(folder: Path) -> Path | None:
    """The folder itself or the one below it that holds images.txt or images.bin."""
    places = (folder, folder / "sparse" / "0", folder / "sparse")
    return next((place for place in places for end in ("txt", "bin") if (place / f"images.{end}").is_file()), None)


def read(path: Path, part: str) -> Recording:
    """The cameras of the folder's images, in the order of their names."""
    folder = find_model(path)
    if folder is None:
        raise ValueError(f"{path}: holds no images.txt and no images.bin; expected a COLMAP model.")
    end = "txt" if (folder / "images.txt").is_file() else "bin"
    cameras_file, images_file = folder / f"cameras.{end}", folder / f"images.{end}"
    if not cameras_file.is_file():
        raise ValueError(f"{cameras_file}: no such file; {images_file.name} needs the lenses in it.")
    try:
        if end == "txt":
            lenses, images = _read_cameras_text(cameras_file), list(_read_images_text(images_file))
        else:
            lenses, images = _read_cameras_binary(cameras_file), list(_read_images_binary(images_file))
    except (UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"{folder}: not COLMAP's {end} form ({error}). Was a file cut off?") from error
    unknown = [image for image in images if image.camera not in lenses]
    if unknown:
        raise ValueError(f"{images_file}: '{unknown[0].name}' has camera {unknown[0].camera}, not in {cameras_file}.")
    images.sort(key=lambda image: image.name)
    values = read_numbers(images_file, "the images' poses", [image.pose for image in images] or [[0.0] * 7], -1, 7)
    poses = from_colmap(values[: len(images), :4], values[: len(images), 4:])
    if bool((values[:, :4].norm(dim=-1) < 0.5).any()):
        raise ValueError(f"{images_file}: a quaternion is zero or there are no images; expected unit quaternions.")
    lens = torch.tensor([lenses[image.camera] for image in images], dtype=torch.float64)
    return Recording(check_poses(str(images_file), poses), lens)


def _lens(path: Path, model: str, width: Number, height: Number, values: list[float]) -> tuple[float, ...]:
    """fx, fy and the principal point from the middle, in widths."""
    if model not in MODELS:
        raise ValueError(f"{path}: camera model '{model}'; expected one of {', '.join(MODELS)}. Undistort the images.")
    if len(values) != MODELS[model][1] or width <= 0 or height <= 0:
        raise ValueError(f"{path}: {model} of {width:g} x {height:g} has {len(values)} numbers; {MODELS[model][1]}?")
    read_numbers(path, f"{model}'s parameters", values, len(values))
    focals, rest = (values[:2], values[2:]) if model in TWO_FOCALS else ([values[0]] * 2, values[1:])
    if min(focals) <= 0 or any(rest[2:]):
        raise ValueError(f"{path}: {model} {values}: expected a focal length above 0 and no distortion. Undistort.")
    return focals[0] / width, focals[1] / width, (rest[0] - width / 2) / width, (rest[1] - height / 2) / width


def _read_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]


def _read_cameras_text(path: Path) -> dict[int, tuple[float, ...]]:
    lenses = {}
    for line in filter(str.strip, _read_lines(path)):
        words = line.split()
        try:
            numbers = [float(word) for word in words[2:]]
            lenses[int(words[0])] = _lens(path, words[1], numbers[0], numbers[1], numbers[2:])
        except (IndexError, ValueError) as error:
            if isinstance(error, ValueError) and str(path) in str(error):
                raise
            raise ValueError(f"{path}: '{line[:60]}'; expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS.") from error
    return lenses


def _read_images_text(path: Path) -> Iterator[_Image]:
    """Every second line: the one after it holds the image's points, and may be empty."""
    for line in _read_lines(path)[::2]:
        words = line.split(maxsplit=9)
        if not words:
            continue
        try:
            yield _Image(words[9], tuple(float(word) for word in words[1:8]), int(words[8]))
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}: '{line[:60]}'; expected ID, QW QX QY QZ, TX TY TZ, CAMERA_ID, NAME.") from error


class _Bytes:
    """Reads little-endian values from the front; the end of the file is an error."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, form: str) -> tuple:
        try:
            values = struct.unpack_from("<" + form, self.data, self.at)
        except struct.error as error:
            raise ValueError(f"{self.path}: ends after {len(self.data)} bytes, in an entry. Copy it again.") from error
        self.at += struct.calcsize("<" + form)
        return values

    def take_name(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError(f"{self.path}: ends after {len(self.data)} bytes, in a name. Copy it again.")
        name, self.at = self.data[self.at : end].decode(), end + 1
        return name


def _read_cameras_binary(path: Path) -> dict[int, tuple[float, ...]]:
    file, lenses = _Bytes(path), {}
    names = {number: name for name, (number, _) in MODELS.items()}
    for _ in range(file.take("Q")[0]):
        camera, model, width, height = file.take("iiQQ")
        name = names.get(model, f"number {model}")
        if model not in names:
            raise ValueError(
                f"{path}: camera model {name}; expected one of {', '.join(MODELS)}. Undistort the images."
            )
        lenses[camera] = _lens(path, name, width, height, list(file.take(f"{MODELS[name][1]}d")))
    return lenses


def _read_images_binary(path: Path) -> Iterator[_Image]:
    file = _Bytes(path)
    for _ in range(file.take("Q")[0]):
        _, *pose, camera = file.take("i7di")
        yield _Image(file.take_name(), tuple(pose), camera)
        points = file.take("Q")[0]
        file.at += POINT_BYTES * points
        if file.at > len(file.data):
            raise ValueError(f"{path}: ends after {len(file.data)} bytes, in an image's points. Copy it again.")


def _rows(cameras: Cameras) -> tuple[list[list[float]], list[list[float]]]:
    """fx, fy, cx, cy and QW QX QY QZ TX TY TZ of every camera."""
    quaternions, translations = to_colmap(cameras.camera_to_world.double())
    k = cameras.intrinsics.double()
    lenses = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], dim=-1)
    return lenses.tolist(), torch.cat([quaternions, translations], dim=-1).tolist()


def write(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera] as text into a folder, a PINHOLE camera for each; the times are lost."""
    lenses, poses = _rows(cameras)
    text = lambda values: " ".join(f"{value:.9g}" for value in values)  # noqa: E731
    size = f"{cameras.width} {cameras.height}"
    write_text(path / "points3D.txt", "# POINT3D_ID X Y Z R G B ERROR TRACK[]\n")
    lines = [f"{i} PINHOLE {size} {text(lens)}" for i, lens in enumerate(lenses, 1)]
    write_text(path / "cameras.txt", "\n".join(["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", *lines]) + "\n")
    lines = [f"{i} {text(pose)} {i} frame_{i - 1:05}.png\n" for i, pose in enumerate(poses, 1)]
    head = "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then POINTS2D[]"
    write_text(path / "images.txt", "\n".join([head, *lines]) + "\n")


def write_binary(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera] as binary into a folder, a PINHOLE camera for each; the times are lost."""
    lenses, poses = _rows(cameras)
    count, size = struct.pack("<Q", len(poses)), (cameras.width, cameras.height)
    entries = {
        "points3D.bin": struct.pack("<Q", 0),
        "cameras.bin": count + b"".join(struct.pack("<iiQQ4d", i, 1, *size, *k) for i, k in enumerate(lenses, 1)),
        "images.bin": count
        + b"".join(
            struct.pack("<i7di", i, *pose, i) + f"frame_{i - 1:05}.png\0".encode() + struct.pack("<Q", 0)
            for i, pose in enumerate(poses, 1)
        ),
    }
    for name, content in entries.items():
        with atomic_path(path / name) as temporary:
            temporary.write_bytes(content)
