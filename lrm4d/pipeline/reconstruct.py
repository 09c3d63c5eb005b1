"""The main job: a scene folder in, a 4D scene with its renderings, scores and pictures to look at out."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.export.contact_sheet import contact_sheet, reconstruction_sheet, spread
from lrm4d.export.html import write_html
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import masked_psnr, object_mask, psnr
from lrm4d.reconstruction.reconstructor import Progress, Reconstructor, render_frames
from lrm4d.scenes import Scene, load_scene, render_path
from lrm4d.scenes.pictures import cut_out_of_white, save_picture, save_pictures
from lrm4d.trajectories import Rig, orbit
from lrm4d.video import to_bytes, write_video
from lrm4d.views import Views

Refine = Callable[[Gaussians4D, Views, Progress | None], Gaussians4D]
"""What makes a scene better by its inputs, before anything is made of it."""
SHEET_COLUMNS = 8
VIDEO_FRAMES, VIDEO_SIZE = 48, 256
"""Of the orbit that is written beside a reconstruction: two seconds, the longer side at least so many pixels."""


@dataclass(frozen=True)
class Choice:
    """Which frames of a scene are inputs and which are targets (file_paths), and in words why."""

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    reason: str
    protocol: str | None = None


def choose_frames(
    scene: Scene,
    protocol: str | None = None,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
) -> Choice:
    """Inputs and targets by a protocol's name or by file_paths; the targets may be named in either case.

    With neither: the protocol "random" if the scene has it, else its first one, else all frames are inputs. Inputs
    without targets are judged by all other frames, or by themselves where there are no others.
    """
    if protocol is not None and inputs:
        raise ValueError("a protocol and inputs were given; a protocol names its own inputs: give one of the two.")
    if inputs:
        chosen = tuple(dict.fromkeys(_resolve(scene, path) for path in inputs))
        choice = Choice(chosen, (), "inputs as named")
    elif protocol is not None or scene.protocols:
        name = protocol or ("random" if "random" in scene.protocols else next(iter(scene.protocols)))
        rest = ", ".join(other for other in scene.protocols if other != name) or "none"
        reason = f"protocol {name}" + ("" if protocol else f", by default (also there: {rest})")
        choice = Choice(*scene.protocol(name), reason, name)
    else:
        choice = Choice(scene.file_paths, (), "no protocols.json and no inputs named: all frames are inputs")
    if targets:
        named = tuple(dict.fromkeys(_resolve(scene, path) for path in targets))
        return replace(choice, targets=named, reason=f"{choice.reason}, targets as named")
    if choice.targets:
        return choice
    others = tuple(path for path in scene.file_paths if path not in set(choice.inputs))
    if others:
        return replace(choice, targets=others, reason=f"{choice.reason}, all other frames are targets")
    return replace(choice, targets=choice.inputs, reason=f"{choice.reason}, the same frames are targets")


def _resolve(scene: Scene, path: str) -> str:
    """A frame's file_path as the scene writes it, also from the path of its file (what a shell completes)."""
    try:
        return scene.frame(path).file_path
    except ValueError:
        folder, file = scene.folder.resolve(), Path(path).resolve()
        if file.is_relative_to(folder):
            return scene.frame(file.relative_to(folder).as_posix()).file_path
        raise


def read_inputs(scene: Scene, file_paths: Sequence[str], size: int | None = None) -> Views:
    """The input pictures [view], the longer side resized to `size` pixels if given.

    Pictures without alpha are taken to be on white if most of their rims are; otherwise it is an error.
    """
    for file_path in file_paths:
        if not (scene.folder / file_path).is_file():
            raise ValueError(f"missing image '{file_path}': no such file in {scene.folder}; it is one of the inputs.")
    views = _cut_out(scene, scene.views(file_paths))
    if size is None:
        return views
    if size < 1:
        raise ValueError(f"size {size}: expected pixels, a multiple of the network's patch.")
    return views.resize_longer_side(size)


def load_inputs(folder: str | Path, protocol: str | None = None) -> Views:
    """The input pictures [view] of a scene folder as they are, for showing."""
    scene = load_scene(folder, pictures_required=False)
    return scene.views(choose_frames(scene, protocol).inputs)


def _cut_out(scene: Scene, views: Views) -> Views:
    """Views with an alpha that shows the object."""
    if bool((views.alphas < 1).any()):
        return views
    cut = cut_out_of_white(views)
    alphas = cut.alphas
    rim = torch.cat([alphas[..., (0, -1), :].flatten(), alphas[..., (0, -1)].flatten()])
    if rim.mean() > 0.5:
        raise ValueError(
            f"{scene.folder}: the input pictures have no transparency and no white background, so nothing tells the "
            "object from what is around it. Cut the object out (RGBA PNG, or on white)."
        )
    return cut


@dataclass
class Report:
    """What reconstruct_scene did: files (paths), scores (means over the targets that have pictures), seconds."""

    scene: str
    model: str
    device: str
    choice: str
    protocol: str | None
    inputs: list[str]
    targets: list[str]
    gaussians: int = 0
    files: dict[str, str] = field(default_factory=dict)
    renders: list[str] = field(default_factory=list)
    scores: dict[str, float | int] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain data; numbers that are not finite become null."""
        content = asdict(self)
        if self.scores is not None:
            content["scores"] = {k: v if math.isfinite(v) else None for k, v in self.scores.items()}
        return content

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to a stage's."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 4)


def reconstruct_scene(
    reconstructor: Reconstructor,
    scene: Scene,
    choice: Choice,
    output: str | Path,
    model_name: str = "",
    size: int | None = None,
    video: bool = True,
    progress: Progress | None = None,
    seconds: float = 3.0,
    refine: Refine | None = None,
    title: str | None = None,
) -> Report:
    """Reconstruct a scene from the chosen inputs and write what came of it into a folder.

    scene.safetensors; scene.html, the viewer; renders/<file_path>.png of every target, 8 bits on white;
    contact_sheet.png; orbit.mp4 if `video`. Targets that have pictures are scored, as written. A target whose
    file_path leaves the folder is refused before anything is done.
    size: pixels of the longer side to resize the inputs to. seconds: how long the clip lasts in the page.
    refine: what the network's scene goes through first. title: of the page (the scene's name).
    """
    output = Path(output)
    destinations = _destinations(output / "renders", choice.targets)
    report = Report(
        scene=str(scene.folder),
        model=model_name,
        device=str(reconstructor.device),
        choice=choice.reason,
        protocol=choice.protocol,
        inputs=list(choice.inputs),
        targets=list(choice.targets),
    )
    with report.timed("read"):
        views = read_inputs(scene, choice.inputs, size)
    with report.timed("reconstruct"):
        gaussians = reconstructor.reconstruct(views, progress)
    if refine is not None:
        with report.timed("refine"):
            gaussians = refine(gaussians, views, progress)
    report.gaussians = len(gaussians)
    with report.timed("save"):
        report.files["scene"] = str(output / "scene.safetensors")
        refined = {} if refine is None else {"refined": type(refine).__name__}
        gaussians.save(report.files["scene"], _describe_origin(report, views.cameras) | refined)
    shown = _render_targets(report, gaussians, scene, destinations, progress)
    report.files["renders"] = str(output / "renders")
    report.renders = [str(path) for path in destinations.values()]
    with report.timed("sheet"):
        report.files["contact_sheet"] = str(output / "contact_sheet.png")
        save_picture(output / "contact_sheet.png", _draw_sheet(report, views, shown))
    with report.timed("html"):
        report.files["html"] = str(output / "scene.html")
        write_html(report.files["html"], gaussians.to("cpu"), views, title or scene.name, seconds=seconds)
    if video:
        with report.timed("video"):
            report.files["video"] = str(output / "orbit.mp4")
            write_video(report.files["video"], _film_orbit(gaussians, views.cameras, progress))
    return report


def _destinations(folder: Path, targets: Sequence[str]) -> dict[str, Path]:
    """Where the render of each target goes; two targets that would share a file are an error."""
    destinations = {path: render_path(folder, path) for path in targets}
    taken: dict[Path, str] = {}
    for path, destination in destinations.items():
        if taken.setdefault(destination, path) != path:
            raise ValueError(
                f"targets '{path}' and '{taken[destination]}' would both be written as {destination}; "
                "render them one at a time (--targets) into folders of their own."
            )
    return destinations


def _describe_origin(report: Report, cameras: Cameras) -> dict:
    """What the scene file says of where it came from, and how it is best looked at."""
    return {
        "scene": Path(report.scene).name,
        "model": report.model,
        "inputs": len(report.inputs),
        "width": cameras.width,
        "height": cameras.height,
        "fov": round(_field_of_view(cameras), 4),
        "distance": round(cameras.origins.norm(dim=-1).mean().item(), 4),
    }


def _field_of_view(cameras: Cameras) -> float:
    """Horizontal, in degrees, of the first camera."""
    return math.degrees(2 * math.atan(0.5 * cameras.width / cameras.intrinsics[0, 0, 0].item()))


@dataclass(frozen=True)
class _Shown:
    """The targets that go onto the contact sheet."""

    labels: list[str]
    predictions: Float[Tensor, "target 3 height width"]
    truths: Float[Tensor, "target 3 height width"] | None


def _render_targets(
    report: Report,
    gaussians: Gaussians4D,
    scene: Scene,
    destinations: dict[str, Path],
    progress: Progress | None,
) -> _Shown:
    """Render, write and score the targets, a few at a time."""
    paths = list(destinations)
    judged = [path for path in paths if (scene.folder / path).is_file()]
    on_sheet = {(judged or paths)[i] for i in spread(len(judged or paths), SHEET_COLUMNS)}
    kept: dict[str, list[Tensor]] = {"prediction": [], "truth": []}
    full, inside = [], []
    frames = [scene.frame(path) for path in paths]
    times = torch.tensor([frame.time for frame in frames])
    started = time.perf_counter()
    chunks = render_frames(gaussians, scene.cameras(paths), times, None, progress)
    done = 0
    for chunk in chunks:
        pictures = to_bytes(chunk.image).cpu().float() / 255
        report.seconds["render"] = report.seconds.get("render", 0.0) + time.perf_counter() - started
        members = paths[done : done + len(pictures)]
        done += len(pictures)
        with report.timed("write"):
            save_pictures([destinations[path] for path in members], pictures)
        with report.timed("score"):
            known = [i for i, path in enumerate(members) if path in set(judged)]
            truths = _read_truths(scene, [members[i] for i in known])
            if truths is not None:
                on_white = truths.composite(torch.ones(3))
                full.append(psnr(pictures[known], on_white))
                inside.append(masked_psnr(pictures[known], on_white, object_mask(truths.alphas)))
                kept["truth"] += [on_white[j] for j, i in enumerate(known) if members[i] in on_sheet]
            kept["prediction"] += [pictures[i] for i, path in enumerate(members) if path in on_sheet]
        started = time.perf_counter()
    report.seconds["render"] = round(report.seconds["render"], 4)
    if full:
        report.scores = {
            "psnr": torch.cat(full).mean().item(),
            "psnr_object": torch.cat(inside).nanmean().item(),
            "pictures": len(judged),
        }
    truths_shown = torch.stack(kept["truth"]) if kept["truth"] else None
    labels = [Path(path).stem for path in paths if path in on_sheet]
    return _Shown(labels, torch.stack(kept["prediction"]), truths_shown)


def _read_truths(scene: Scene, file_paths: list[str]) -> Views | None:
    """The targets' own pictures; those without alpha are on white, and white is not the object."""
    if not file_paths:
        return None
    return cut_out_of_white(scene.views(file_paths))


def _draw_sheet(report: Report, views: Views, shown: _Shown) -> Float[Tensor, "3 height width"]:
    height, width = shown.predictions.shape[-2:]
    inputs = views.resize(width, height) if views.images.shape[-2:] != (height, width) else views
    pictures = inputs.composite(torch.ones(3))
    title = f"{Path(report.scene).name}, {len(views)} input views"
    if shown.truths is None or report.scores is None:
        rows = {"input": pictures[spread(len(pictures), SHEET_COLUMNS)], "prediction": shown.predictions}
        return contact_sheet(rows, shown.labels, title)
    scores = f": {report.scores['psnr']:.2f} dB, on the object {report.scores['psnr_object']:.2f} dB"
    return reconstruction_sheet(pictures, shown.predictions, shown.truths, shown.labels, title + scores, SHEET_COLUMNS)


def _film_orbit(gaussians: Gaussians4D, cameras: Cameras, progress: Progress | None) -> Tensor:
    """8-bit frames of a turn around the object while its time runs, seen as the inputs are."""
    distance = cameras.origins.norm(dim=-1).mean().item()
    zoom = max(1, math.ceil(VIDEO_SIZE / max(cameras.width, cameras.height)))
    size = (zoom * cameras.width, zoom * cameras.height)
    path, start = orbit(), Rig(distance=distance, fov=_field_of_view(cameras))
    film = path.cameras(VIDEO_FRAMES, *size, start)
    frames = render_frames(gaussians, film, path.times(VIDEO_FRAMES), None, progress, "video")
    return torch.cat([to_bytes(frame.image).cpu() for frame in frames])
