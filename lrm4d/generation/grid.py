"""ViewGrid: the pictures of several cameras at the same moments, of which a video gave one column."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrm4d.cameras import Cameras, convert_opengl_opencv, join_cameras
from lrm4d.checkpoint import read_json, write_text
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.warping import warp
from lrm4d.scenes.pictures import load_pictures, save_pictures
from lrm4d.trajectories import load_path
from lrm4d.trajectories.recording import Recording
from lrm4d.video import write_video
from lrm4d.views import Views


@dataclass(frozen=True)
class ViewGrid:
    """Synchronized videos, view 0 being the one that was given.

    images: [time, view, 3, height, width] in [0, 1]. known: [time, view, 1, height, width], True where the given video
    tells the pixel; the others are black until they are made up. cameras: [time, view], of the pictures' size.
    times: [time] in [0, 1]. Raises ValueError where they do not fit each other.
    """

    images: Float[Tensor, "time view 3 height width"]
    known: Bool[Tensor, "time view 1 height width"]
    cameras: Cameras
    times: Float[Tensor, "time"]

    def __post_init__(self) -> None:
        height, width = self.images.shape[-2:]
        cells = tuple(self.images.shape[:2])
        got = (tuple(self.known.shape), tuple(self.cameras.shape), self.cameras.width, self.cameras.height)
        if got != ((*cells, 1, height, width), cells, width, height) or self.times.shape != cells[:1]:
            raise ValueError(
                f"grid: images of shape {tuple(self.images.shape)} with known of shape {got[0]}, cameras of shape "
                f"{got[1]} and {got[2]} x {got[3]} pixels, {len(self.times)} times; expected one of each a picture."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The number of moments and of views."""
        return self.images.shape[0], self.images.shape[1]

    def __getitem__(self, index: slice | Tensor) -> "ViewGrid":
        """Moments chosen by a slice, a mask or indices."""
        return ViewGrid(self.images[index], self.known[index], self.cameras[index], self.times[index])

    def to_views(self) -> Views:
        """All pictures as opaque views [time * view], moment by moment."""
        images = self.images.flatten(0, 1)
        times = self.times[:, None].expand(self.shape).flatten()
        return Views(images, torch.ones_like(images[:, :1]), self.cameras.reshape(-1), times)


def start_grid(
    video: Float[Tensor, "time 3 height width"],
    geometry: Geometry,
    cameras: Cameras,
    times: Float[Tensor, "time"],
) -> ViewGrid:
    """The grid of a video with what it shows to other cameras [view] at rest, or [time, view]; holes stay black.

    View 0 is the video itself, seen from its own cameras.
    """
    if len(cameras.shape) == 1:
        cameras = cameras.expand(len(video), len(cameras))
    warped = warp(video, geometry, cameras)
    return ViewGrid(
        torch.cat([video[:, None], warped.images], dim=1),
        torch.cat([torch.ones_like(warped.visibility[:, :1]), warped.visibility], dim=1),
        join_cameras([geometry.cameras.reshape(-1, 1), cameras], dim=1),
        times,
    )


def load_target_cameras(file: str | Path, count: int, width: int, height: int) -> Cameras:
    """Cameras [time, view] of a file, for a video of so many frames; pictures of this size.

    A transforms.json whose frames name their `view` (as save_grid writes them) has a camera that moves for each view:
    its frames, by `time` where they have one, lie evenly over the video. In any other file (load_path) each camera is
    a view, at rest. ValueError where only some frames name one.
    """
    path = load_path(file)
    names = _views_of(Path(file)) if isinstance(path, Recording) else []
    if not names:
        rest = path.cameras(path.natural_count or 1, width, height)
        return rest.expand(count, len(rest))
    views = []
    for name in dict.fromkeys(names):
        chosen = torch.tensor([index for index, other in enumerate(names) if other == name])
        if path.moments is not None:
            chosen = chosen[path.moments[chosen].argsort(stable=True)]
        lenses = None if path.lenses is None else path.lenses[chosen]
        views.append(Recording(path.camera_to_world[chosen], lenses).cameras(count, width, height).reshape(-1, 1))
    return join_cameras(views, dim=1)


def _views_of(file: Path) -> list[str]:
    """The view that each frame of a transforms.json names; none where it has no such names, or is another file."""
    content = read_json(file) if file.suffix == ".json" else None
    frames = content.get("frames") if isinstance(content, dict) else None
    names = [str(frame["view"]) for frame in frames or [] if isinstance(frame, dict) and "view" in frame]
    if names and len(names) < len(frames):
        raise ValueError(
            f"{file}: {len(names)} of {len(frames)} frames name their view; expected all of them, or none."
        )
    return names


def picture_path(folder: Path, view: int, time: int) -> Path:
    """Where a grid's picture lies: images/view02_0007.png."""
    return folder / f"view{view:02}_{time:04}.png"


def save_grid(folder: str | Path, grid: ViewGrid, frames_per_second: float = 24.0) -> None:
    """Write a folder: images/ and known/ (8-bit PNG, white is known), a video of each view, and transforms.json.

    transforms.json is that of a scene (lrm4d.scenes.load_scene and other tools read it); it comes last, so that a
    folder that has it is whole. Files are written atomically.
    """
    folder = Path(folder)
    count, views = grid.shape
    for view in range(views):
        pictures, known = grid.images[:, view], grid.known[:, view].float()
        save_pictures([picture_path(folder / "images", view, time) for time in range(count)], pictures)
        save_pictures(
            [picture_path(folder / "known", view, time) for time in range(count)], known.expand(-1, 3, -1, -1)
        )
        write_video(folder / f"view{view:02}.mp4", pictures, frames_per_second)
    frames = [_describe(grid, view, time) for view in range(views) for time in range(count)]
    content = {"camera_model": "OPENCV", "w": grid.cameras.width, "h": grid.cameras.height, "frames": frames}
    write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")


def _describe(grid: ViewGrid, view: int, time: int) -> dict:
    """A picture's entry in transforms.json."""
    camera = grid.cameras[time, view]
    k = camera.intrinsics.double().tolist()
    return {
        "file_path": picture_path(Path("images"), view, time).as_posix(),
        "known_path": picture_path(Path("known"), view, time).as_posix(),
        "view": f"view{view:02}",
        "frame": time,
        "time": float(grid.times[time]),
        **{"fl_x": k[0][0], "fl_y": k[1][1], "cx": k[0][2], "cy": k[1][2]},
        "transform_matrix": convert_opengl_opencv(camera.camera_to_world.double()).tolist(),
    }


def load_grid(folder: str | Path) -> ViewGrid:
    """Read what save_grid wrote; ValueError names the file and what is wrong with it."""
    folder = Path(folder)
    file = folder / "transforms.json"
    frames = read_json(file).get("frames")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"{file}: holds no frames; expected a grid, as `lrm4d generate` writes it.")
    try:
        places = [(frame["view"], frame["frame"]) for frame in frames]
        names = [(folder / frame["file_path"], folder / frame["known_path"]) for frame in frames]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: a frame without {error}; expected a grid, as `lrm4d generate` writes it, and not any scene."
        ) from error
    views, moments = sorted({view for view, _ in places}), sorted({frame for _, frame in places})
    if places != [(view, moment) for view in views for moment in moments]:
        raise ValueError(f"{file}: {len(places)} pictures; expected each of {len(views)} views at each moment, once.")
    images, known = (load_pictures(paths) for paths in zip(*names, strict=True))
    recorded = load_path(file)
    cells = (len(views), len(moments))
    cameras = recorded.cameras(len(places), images.shape[3], images.shape[2]).reshape(*cells)
    times = recorded.times(len(places)).reshape(cells)[0]
    order = lambda values: values.unflatten(0, cells).transpose(0, 1)  # noqa: E731
    poses, intrinsics = cameras.camera_to_world.transpose(0, 1), cameras.intrinsics.transpose(0, 1)
    return ViewGrid(
        order(images[:, :3]),
        order(known[:, :1] > 0.5),
        Cameras(poses, intrinsics, cameras.width, cameras.height),
        times,
    )
