"""Camera paths from and to files: which format a file has, and what else a --trajectory may be.

A path that was read is placed as it is: its world is ours, in the file's units and with its origin; only the axes of
its cameras are turned into OpenCV's (and ReCamMaster's left-handed world into a right-handed one).
"""

import os
from collections.abc import Callable
from pathlib import Path as FilePath

from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_json
from lrm4d.trajectories.banks import BANKS, parse_bank
from lrm4d.trajectories.formats import colmap, nerfstudio, recammaster, trajectorycrafter, transforms, vista4d
from lrm4d.trajectories.moves import MOVES
from lrm4d.trajectories.path import CameraPath
from lrm4d.trajectories.text import parse_path

Writer = Callable[[FilePath, Cameras, Tensor, float], None]
WRITERS: dict[str, Writer] = {
    "nerfstudio": nerfstudio.write,
    "transforms": transforms.write,
    "recammaster": recammaster.write,
    "vista4d": vista4d.write,
    "trajectorycrafter": trajectorycrafter.write,
    "colmap": colmap.write,
    "colmap-binary": colmap.write_binary,
}
SUFFIXES = {
    "nerfstudio": ".json",
    "transforms": ".json",
    "recammaster": ".json",
    "vista4d": ".npz",
    "trajectorycrafter": ".txt",
    "colmap": "",
    "colmap-binary": "",
}
"""What a file of each format is called at its end (COLMAP's is a folder); a suffix means the first with it."""


def read_path(text: str) -> CameraPath:
    """The path of a file or folder of that name (FILE#PART for one of several in it), else of the text; or a bank.

    A move's own name is the move, also where there is a folder called so (write ./orbit for that).
    """
    if text.strip().partition(":")[0] in BANKS:
        return parse_bank(text)
    name, _, part = text.partition("#")
    file = FilePath(name)
    if name not in MOVES and os.path.exists(name):
        return load_path(file, part)
    if file.suffix in set(SUFFIXES.values()) - {""}:
        raise ValueError(f"trajectory '{text}': there is no file {file}.")
    return parse_path(text)


def load_path(file: str | FilePath, part: str = "") -> CameraPath:
    """The path in a file or folder; ValueError names the file and what was expected of it.

    A folder or a file in it named images.* is COLMAP's; .npz Vista4D's; .txt TrajectoryCrafter's; .json nerfstudio's
    camera path, a transforms.json, or ReCamMaster's, by its contents.
    """
    file = FilePath(file)
    if file.is_dir():
        return colmap.read(file, part)
    if not file.is_file():
        raise ValueError(f"{file}: no such file.")
    if file.name in ("images.txt", "images.bin", "cameras.txt", "cameras.bin"):
        return colmap.read(file.parent, part)
    if file.suffix == ".npz":
        return vista4d.read(file, part)
    if file.suffix == ".txt":
        return trajectorycrafter.read(file, part)
    if file.suffix != ".json":
        raise ValueError(f"{file}: '{file.suffix}' holds no camera path; expected .json, .npz, .txt or a folder.")
    content = read_json(file)
    keys = content.keys() if isinstance(content, dict) else ()
    formats = {"camera_path": nerfstudio, "frames": transforms, "frame0": recammaster}
    found = next((kind for key, kind in formats.items() if key in keys), None)
    if found is None:
        raise ValueError(
            f"{file}: has none of {', '.join(formats)}; expected nerfstudio's camera path, a transforms.json or "
            "ReCamMaster's extrinsics."
        )
    return found.read(file, part)


def save_path(
    file: str | FilePath,
    cameras: Cameras,
    times: Float[Tensor, "camera"],
    frames_per_second: float = 24.0,
    form: str | None = None,
) -> str:
    """Write cameras [camera] and their times; returns the format's name. form: one of WRITERS, else by the suffix."""
    file = FilePath(file)
    form = form or next((name for name, suffix in SUFFIXES.items() if suffix == file.suffix), None)
    if form not in WRITERS:
        raise ValueError(f"{file}: format '{form or file.suffix}'; expected one of {', '.join(WRITERS)}.")
    if SUFFIXES[form] != file.suffix:
        expected = f"a name that ends in {SUFFIXES[form]}" if SUFFIXES[form] else "a folder"
        raise ValueError(f"{file}: {form} is written to {expected}.")
    WRITERS[form](file, cameras, times, frames_per_second)
    return form
