"""A scene folder in memory: its frames and protocols; pictures are decoded when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePosixPath

import torch

from lrm4d.cameras import Cameras
from lrm4d.scenes.pictures import alpha_from_white, load_pictures
from lrm4d.views import Views


@dataclass(frozen=True)
class Frame:
    """One picture's entry. file_path: its name in the scene, relative to the folder, with extension.

    time in [0, 1]. camera: batch shape [], OpenCV axes. view: the name of the camera it belongs to ("" if none).
    index: its place among the scene's moments, from 0. split: "train", "test" or "val" of a D-NeRF folder, or "".
    """

    file_path: str
    time: float
    camera: Cameras
    view: str = ""
    index: int = 0
    split: str = ""


@dataclass(frozen=True)
class Scene:
    """Frames of one moving thing in a folder, and the named protocols (inputs, targets) to judge by."""

    folder: Path
    frames: tuple[Frame, ...]
    protocols: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    @property
    def file_paths(self) -> tuple[str, ...]:
        """Every frame's file_path, in the file's order."""
        return tuple(frame.file_path for frame in self.frames)

    @cached_property
    def _by_path(self) -> dict[str, Frame]:
        return {frame.file_path: frame for frame in self.frames}

    def frame(self, file_path: str) -> Frame:
        """The frame of a file_path; "./" in front and a missing extension are forgiven (D-NeRF's spelling)."""
        wanted = tidy_path(file_path)
        if wanted in self._by_path:
            return self._by_path[wanted]
        same_stem = [frame for frame in self.frames if without_suffix(frame.file_path) == wanted]
        if len(same_stem) == 1:
            return same_stem[0]
        close = get_close_matches(wanted, self._by_path, n=3) or list(self._by_path)[:3]
        raise ValueError(
            f"{self.folder}: no frame has the file_path '{file_path}'; the scene has {len(self.frames)} frames, "
            f"near to it: {', '.join(close)}. Name a frame as transforms.json does."
        )

    def cameras(self, file_paths: Sequence[str]) -> Cameras:
        """The frames' cameras, batch shape [view]."""
        cameras = [self.frame(path).camera for path in file_paths]
        if not cameras:
            raise ValueError(f"{self.folder}: no frame was named; expected at least one file_path.")
        matrices = torch.stack([camera.camera_to_world for camera in cameras])
        return replace(
            cameras[0], camera_to_world=matrices, intrinsics=torch.stack([camera.intrinsics for camera in cameras])
        )

    def views(self, file_paths: Sequence[str], white_background: bool = False) -> Views:
        """The frames as Views, batch shape [view], in the order asked for.

        Pictures with alpha keep it; pictures without have alpha 1 everywhere, unless white_background says that
        they were taken on white: then white is transparent (pictures.alpha_from_white).
        """
        cameras = self.cameras(file_paths)
        frames = [self.frame(path) for path in file_paths]
        images, alphas = load_pictures([self.folder / frame.file_path for frame in frames]).split([3, 1], dim=1)
        if white_background:
            alphas = alphas * alpha_from_white(images)
        times = torch.tensor([frame.time for frame in frames])
        return Views(images=images, alphas=alphas, cameras=cameras, times=times)

    def protocol(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The file_paths of a protocol's inputs and targets."""
        if name not in self.protocols:
            known = ", ".join(self.protocols) or "none"
            raise ValueError(
                f"{self.folder}: no protocol '{name}'; this scene has: {known}. Add it to protocols.json as "
                '{"NAME": {"inputs": [file_path, ...], "targets": [...]}}, or name the inputs yourself.'
            )
        return self.protocols[name]


def tidy_path(file_path: str) -> str:
    """A file_path with forward slashes and nothing needless ("./train/r_000" -> "train/r_000")."""
    return str(PurePosixPath(file_path.replace("\\", "/")))


def without_suffix(file_path: str) -> str:
    """A file_path without its extension."""
    return str(PurePosixPath(file_path).with_suffix(""))


def render_path(folder: Path, file_path: str) -> Path:
    """Where the render of a frame is written: folder / file_path, ending in .png, never outside of the folder."""
    tidy = PurePosixPath(tidy_path(file_path))
    if tidy.is_absolute() or ".." in tidy.parts or ":" in tidy.parts[0]:
        raise ValueError(
            f"file_path '{file_path}' leaves the scene's folder, so nothing is written for it under {folder}; "
            "use paths relative to the scene and without '..' in transforms.json."
        )
    return folder / tidy.with_suffix(".png")
