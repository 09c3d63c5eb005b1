"""Calibrations of Qualisys camera systems (.qca.txt, an XML file): several cameras that film one place.

Each camera: M, the rows r11..r33 as written, turns world axes into the camera's with y up and z back; its place is
x, y, z in millimetres; focal lengths and the centre are in 64ths of a pixel, from the corner of the sensor, of which
`fov_video` is the part that was recorded. The world is z up. Lens distortion is not read: these lenses have little.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from lrm4d.cameras import Cameras, invert_rigid

SUBPIXELS = 64
MILLIMETRES = 1000


def load_qualisys(path: str | Path) -> dict[str, Cameras]:
    """Cameras by their serial names, batch shape [], in metres; each of its recording's size.

    Raises ValueError naming the file, and what is missing or cannot be, for anything that is no such calibration.
    """
    path = Path(path)
    try:
        root = ET.fromstring(path.read_bytes())
    except (OSError, ET.ParseError) as error:
        raise ValueError(f"{path}: cannot be read as XML ({error}); expected a Qualisys calibration.") from error
    elements = root.findall("cameras/camera")
    if not elements:
        raise ValueError(f"{path}: holds no <cameras><camera> elements; expected a Qualisys calibration.")
    cameras = {element.get("serial", ""): _read_camera(path, element) for element in elements}
    if len(cameras) < len(elements) or "" in cameras:
        raise ValueError(f"{path}: {len(elements)} cameras and {len(cameras)} names; expected a serial each.")
    return cameras


def fit_to_video(camera: Cameras, width: int, height: int) -> Cameras:
    """The camera of a video that shows the whole recording in another size (pixels), with bars where shapes differ."""
    scale = min(width / camera.width, height / camera.height)
    intrinsics = camera.intrinsics * scale
    intrinsics[..., 0, 2] += (width - camera.width * scale) / 2
    intrinsics[..., 1, 2] += (height - camera.height * scale) / 2
    intrinsics[..., 2, 2] = 1
    return Cameras(camera.camera_to_world, intrinsics, width, height)


def _read_camera(path: Path, element: ET.Element) -> Cameras:
    """One <camera>."""
    name = element.get("serial", "")

    def number(tag: str, key: str) -> float:
        value = getattr(element.find(tag), "attrib", {}).get(key)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{path}: camera {name!r}: {tag} {key} is {value!r}; expected a number.") from None

    rows = [[number("transform", f"r{i}{j}") for j in (1, 2, 3)] for i in (1, 2, 3)]
    rotation = torch.tensor(rows, dtype=torch.float64)
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-3) or rotation.det() < 0:
        raise ValueError(f"{path}: camera {name!r}: r11..r33 are no rotation; is the file damaged?")
    world_to_camera = torch.eye(4, dtype=torch.float64)
    world_to_camera[:3, :3] = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)) @ rotation
    place = torch.tensor([number("transform", axis) for axis in "xyz"], dtype=torch.float64) / MILLIMETRES
    world_to_camera[:3, 3] = -world_to_camera[:3, :3] @ place
    left, top, right, bottom = (number("fov_video", side) for side in ("left", "top", "right", "bottom"))
    intrinsics = torch.eye(3, dtype=torch.float64)
    intrinsics[0, 0] = number("intrinsic", "focalLengthU") / SUBPIXELS
    intrinsics[1, 1] = number("intrinsic", "focalLengthV") / SUBPIXELS
    intrinsics[0, 2] = number("intrinsic", "centerPointU") / SUBPIXELS - left
    intrinsics[1, 2] = number("intrinsic", "centerPointV") / SUBPIXELS - top
    width, height = int(right - left) + 1, int(bottom - top) + 1
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0 and width > 1 and height > 1):
        raise ValueError(f"{path}: camera {name!r}: no positive focal length or size; is the file damaged?")
    return Cameras(invert_rigid(world_to_camera), intrinsics, width, height)
