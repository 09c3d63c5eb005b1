"""Judge reconstructions of a real capture by several static cameras: all but one are inputs, that one is the truth.

python -m eval.capture --capture DIR -o OUT reads DIR/videos/NAME.mp4, DIR/calibration/*.qca.txt (Qualisys) and, where
there are any, plates DIR/calibration/extrinsics/NAME_ext.png; cuts the moving thing out; writes OUT/scene, a scene
folder with a protocol for each camera that is held back ("without_NAME": `lrm4d reconstruct` takes it as it is), and
scores the nearest view, the network and its scene refined on it: report.json, report.md, a contact sheet and a video
for each camera. An existing OUT/scene is used as it is.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from jaxtyping import Float
from rich.progress import Progress, track
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from eval.foreground import Foreground, Masks, centre_of, find_foreground, overlap, see_hull, triangulate
from eval.novel_view import Predictor, Task, load_predictors, make_predictor
from eval.scores import Scores, mean_scores, score_pictures
from lrm4d.cameras import Cameras, intrinsics_from_fov, join_cameras, look_at, project
from lrm4d.checkpoint import read_json, write_text
from lrm4d.export.contact_sheet import contact_sheet, spread
from lrm4d.pretrained import DEFAULT
from lrm4d.reconstruction.reconstructor import Reconstructor
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.corrector import corrector_of
from lrm4d.refinement.job import Refinement
from lrm4d.scenes import load_scene, save_scene
from lrm4d.scenes.pictures import load_picture, save_picture
from lrm4d.scenes.qualisys import fit_to_video, load_qualisys
from lrm4d.video import write_video
from lrm4d.views import Views

MARGIN = 1.05
"""How much larger than what the cameras agree on the unit sphere is, and the field of view than the sphere."""
FINER = 3
"""The pictures that are cut out are sampled so much finer than they are written, and averaged."""
PLAIN_FOCAL = 2.4
"""Focal length of the frames as they are read, at least, over the width of what is written; that has about half."""


@dataclass(frozen=True)
class Rig:
    """Synchronized videos of static cameras. videos[k]: [time, 3, height, width]; cameras[k]: batch shape [].

    plates: the same places at another time, of the videos' sizes, or None. times: [time] in [0, 1].
    """

    names: tuple[str, ...]
    videos: tuple[Tensor, ...]
    cameras: tuple[Cameras, ...]
    plates: tuple[Tensor | None, ...]
    times: Float[Tensor, "time"]
    rate: float


def read_rig(folder: Path, moments: int, size: int) -> Rig:
    """A capture folder at evenly spread moments, as fine as pictures of `size` pixels need it.

    ValueError names the file that is missing or does not fit.
    """
    files = sorted((folder / "calibration").glob("*.qca.txt"))
    if len(files) != 1:
        raise ValueError(f"{folder / 'calibration'}: {len(files)} files *.qca.txt; expected one calibration.")
    calibration = load_qualisys(files[0])
    videos, cameras, plates, rates = [], [], [], []
    for name, recorded in track(calibration.items(), "reading videos"):
        path = folder / "videos" / f"{name}.mp4"
        factor = max(1, int(float(recorded.intrinsics[0, 0]) / (PLAIN_FOCAL * size)))
        video, rate = read_moments(path, moments, factor)
        camera = fit_to_video(recorded, video.shape[-1] * factor, video.shape[-2] * factor)
        videos.append(video)
        cameras.append(camera.resize(video.shape[-1], video.shape[-2]).to(torch.float32))
        plate = folder / "calibration" / "extrinsics" / f"{name}_ext.png"
        plates.append(_read_plate(plate, recorded, cameras[-1]) if plate.is_file() else None)
        rates.append(rate)
    times = torch.linspace(0, 1, moments)
    return Rig(tuple(calibration), tuple(videos), tuple(cameras), tuple(plates), times, rates[0])


def read_moments(path: Path, moments: int, factor: int) -> tuple[Float[Tensor, "time 3 height width"], float]:
    """Evenly spread frames of a video in [0, 1], averaged over factor x factor pixels, and their number a second.

    Decoded one at a time: hundreds of large frames would not fit into memory.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such video; expected one for each camera of the calibration.")
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            rate = float(container.streams.video[0].average_rate)
            count = sum(1 for _ in container.demux(video=0)) - 1  # the last packet is a flush
        wanted = [round(i * (count - 1) / (moments - 1)) for i in range(moments)]
        kept = []
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    levels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float()
                    kept.append(avg_pool2d(levels, factor) / 255)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}). Convert it to mp4 (h264) and try again.") from error
    if len(kept) < moments:
        raise ValueError(f"{path}: {count} frames; expected at least {moments}, one for each moment.")
    return torch.stack(kept), rate * (moments - 1) / max(1, count - 1)


def _read_plate(path: Path, recorded: Cameras, camera: Cameras) -> Float[Tensor, "3 height width"]:
    """A picture of the recording's size, as the video would show it."""
    picture = load_picture(path)[:3]
    columns, rows = torch.arange(camera.width) + 0.5, torch.arange(camera.height) + 0.5
    scale = recorded.intrinsics.float() @ torch.linalg.inv(camera.intrinsics)
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    pixels = pixels * scale[(0, 1), (0, 1)] + scale[(0, 1), 2]
    return _sample(picture[None], pixels)[0].nan_to_num()


def _sample(
    images: Float[Tensor, "time c h w"], pixels: Float[Tensor, "height width 2"]
) -> Float[Tensor, "time c height width"]:
    """Bilinear, at pixel coordinates; 0 outside."""
    size = pixels.new_tensor([images.shape[-1], images.shape[-2]])
    grid = (2 * pixels / size - 1).expand(len(images), *pixels.shape)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def look_at_object(rig: Rig, found: Foreground, size: int) -> list[Views]:
    """Each camera's Views [time], turned (which no picture loses by) upright to the object and cropped to it.

    The object's sphere becomes the unit sphere. All share one lens, in which the nearest camera just sees it whole.
    """
    places = torch.stack([(camera.origins - found.centre) / (found.radius * MARGIN) for camera in found.cameras])
    fov = 2 * math.asin(min(0.95, MARGIN / float(places.norm(dim=-1).min())))
    poses = look_at(places, torch.zeros(3))
    intrinsics = intrinsics_from_fov(fov, size, size)
    views = []
    for video, mask, camera, pose in zip(rig.videos, found.masks, found.cameras, poses, strict=True):
        fine = Cameras(pose, intrinsics, size, size).resize(FINER * size, FINER * size)
        _, directions = fine.rays()
        far = camera.origins + directions  # a turn about the camera's own place: no depth comes into it
        pixels, depths = project(camera, far)
        pixels = torch.where(depths[..., None] > 0, pixels, -1e4)
        alphas = mask.float()
        layers = avg_pool2d(_sample(torch.cat([video * alphas, alphas], dim=1), pixels), FINER)
        images = layers[:, :3] / layers[:, 3:].clamp(min=1e-6)
        cameras = Cameras(pose, intrinsics, size, size).expand(len(video))
        views.append(Views(images.clamp(0, 1), layers[:, 3:].clamp(0, 1), cameras, rig.times))
    return views


def check_calibration(found: Foreground, before: Sequence[Cameras]) -> list[dict[str, float | list[float]]]:
    """For each camera, what the others predict of it, medians over time; as calibrated ("before") and as shifted.

    middle: the distance of its mask's middle from the point triangulated from the others' middles, as a share of the
    width. iou: of its mask and the silhouette of the others' hull. shift: of its principal point, shares of the width.
    """
    numbers = []
    for k, camera in enumerate(before):
        one: dict[str, float | list[float]] = {"shift": (found.shifts[k] / camera.width).tolist()}
        for suffix, cameras in (("_before", before), ("", found.cameras)):
            distances = _miss_middles(found.masks, cameras, k) / camera.width
            hull = see_hull(k, found.masks, cameras, found.centre, found.radius * MARGIN, missing=0)
            one[f"middle{suffix}"] = round(float(distances.nanmedian()), 5)
            one[f"iou{suffix}"] = round(float(overlap(hull, found.masks[k]).nanmedian()), 4)
        numbers.append(one)
    return numbers


def _miss_middles(masks: Sequence[Masks], cameras: Sequence[Cameras], k: int) -> Float[Tensor, "time"]:
    others = [i for i in range(len(cameras)) if i != k]
    distances = []
    for moment in range(len(masks[k])):
        point = triangulate([centre_of(masks[i][moment]) for i in others], [cameras[i] for i in others])
        distances.append((project(cameras[k], point)[0] - centre_of(masks[k][moment])).norm())
    return torch.stack(distances)


def write_capture(capture: Path, folder: Path, moments: int, size: int) -> dict:
    """Read, cut out and write a capture as a scene folder; what is known of its quality, also in capture.json."""
    rig = read_rig(capture, moments, size)
    with Progress() as progress:
        task = progress.add_task("finding what moves", total=None)
        found = find_foreground(rig.videos, rig.cameras, rig.plates)
        progress.update(task, description="checking the calibration")
        quality = dict(zip(rig.names, check_calibration(found, rig.cameras), strict=True))
    views = look_at_object(rig, found, size)
    paths = {name: [f"images/{name}_{t:03}.png" for t in range(moments)] for name in rig.names}
    protocols = {
        f"without_{held}": (tuple(p for n in rig.names if n != held for p in paths[n][::2]), tuple(paths[held]))
        for held in rig.names
    }
    everything = Views(
        torch.cat([v.images for v in views]),
        torch.cat([v.alphas for v in views]),
        join_cameras([v.cameras for v in views]),
        torch.cat([v.times for v in views]),
    )
    distances = {name: round(float(v.cameras.origins[0].norm()), 3) for name, v in zip(rig.names, views, strict=True)}
    about = {
        "centre": found.centre.tolist(),
        "radius": found.radius * MARGIN,
        "fov_degrees": math.degrees(2 * math.atan(size / 2 / float(everything.cameras.intrinsics[0, 0, 0]))),
        "distances": distances,
        "frames_per_second": rig.rate,
        "calibration": quality,
    }
    write_text(folder / "capture.json", json.dumps(about, indent=1) + "\n")
    save_scene(folder, everything, [path for name in rig.names for path in paths[name]], protocols)
    return about


def judge(
    folder: Path, protocol: str, predictors: dict[str, Predictor], output: Path, rate: float
) -> dict[str, Scores]:
    """Scores of one held-back camera, with a sheet and a video: the truth, then every method.

    "given": at the moments that the inputs were taken at; "between": at the others; "all".
    """
    scene = load_scene(folder)
    inputs, truth = (scene.views(paths) for paths in scene.protocol(protocol))
    white = truth.composite(torch.ones(3))
    given = torch.isclose(truth.times[:, None], inputs.times).any(dim=1)
    pictures, scores = {"truth": white}, {}
    for method, predict in predictors.items():
        made = predict(inputs, truth.cameras, truth.times)
        pictures[method] = made
        parts = {"all": torch.ones_like(given), "given": given, "between": ~given}
        scores[method] = {
            f"{key} {part}": value
            for part, chosen in parts.items()
            if bool(chosen.any())
            for key, value in score_pictures(made[chosen], truth[chosen]).items()
        }
    shown = spread(len(white), 8)
    labels = [f"t = {float(t):.2f}" for t in truth.times[shown]]
    sheet = contact_sheet(
        {name: values[shown] for name, values in pictures.items()}, labels, f"{scene.name} {protocol}"
    )
    save_picture(output / f"{protocol}.png", sheet)
    write_video(output / f"{protocol}.mp4", torch.cat(list(pictures.values()), dim=-1), rate)
    return scores


def refined(model: str, device: str, steps: int) -> Predictor:
    """The network's scene, refined on the inputs for so many steps."""
    refinement = Refinement(RefinementConfig(corrector=corrector_of(model), steps=steps), seconds=None)
    return make_predictor(Reconstructor.from_pretrained(model, device), refinement)


def write_report(output: Path, about: dict, scores: dict[str, dict[str, Scores]]) -> str:
    """report.json and report.md; returns the Markdown."""
    methods = list(next(iter(scores.values())))
    mean = {method: mean_scores(one[method] for one in scores.values()) for method in methods}
    write_text(output / "report.json", json.dumps({**about, "mean": mean, "scores": scores}, indent=1) + "\n")
    lines = [
        "| held back | method | PSNR | person, given times | person, between | SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in {**scores, "mean": mean}.items():
        for method in methods:
            keys = ("psnr all", "psnr_object given", "psnr_object between")
            cells = [f"{one[method][key]:.2f}" for key in keys] + [f"{one[method]['ssim all']:.3f}"]
            lines.append(f"| {name} | {method} | {' | '.join(cells)} |")
    lines += [
        "",
        "| camera | shifted by | middle, as calibrated | shifted | IoU, as calibrated | shifted |",
        "|" + "---|" * 6,
    ]
    for name, one in about["calibration"].items():
        moved = ", ".join(f"{100 * value:.1f}" for value in one["shift"])
        cells = [f"{100 * one[key]:.1f} %" for key in ("middle_before", "middle")]
        cells += [f"{one[key]:.3f}" for key in ("iou_before", "iou")]
        lines.append(f"| {name} | {moved} % of the width | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    write_text(output / "report.md", text)
    return text


def run(capture: Path, output: Path, model: str, moments: int, size: int, steps: int, device: str) -> str:
    """The whole command; returns the Markdown."""
    folder = output / "scene"
    if (folder / "transforms.json").is_file():
        about = read_json(folder / "capture.json")
    else:
        about = write_capture(capture, folder, moments, size)
    task = Task("", model, "", None, time_ignored_model=False, with_lpips=False)
    predictors = {name: predict for name, predict in load_predictors(task, device).items() if name != "time ignored"}
    if steps and model != "none":
        predictors[f"{Path(model).name}, refined"] = refined(model, device, steps)
    protocols = [name for name in load_scene(folder).protocols if name.startswith("without_")]
    scores = {}
    for protocol in track(protocols, "judging"):
        scores[protocol] = judge(folder, protocol, predictors, output, about["frames_per_second"])
    return write_report(output, about, scores)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.capture", description=__doc__.split("\n")[0])
    parser.add_argument("--capture", type=Path, required=True, help="the capture's folder")
    parser.add_argument("--model", default=DEFAULT, help='weights by name or folder; "none" for none')
    parser.add_argument("--moments", type=int, default=16, help="of the videos; every other one is given (default 16)")
    parser.add_argument("--size", type=int, default=128, help="pixels of what is cut out (default 128)")
    parser.add_argument("--steps", type=int, default=260, help="of each fit, 0 for none (default 260)")
    parser.add_argument("--device", default="auto", help="where the model runs: auto (default), cpu, cuda")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of scene and report")
    options = parser.parse_args(arguments)
    try:
        text = run(
            options.capture,
            options.output,
            options.model,
            options.moments,
            options.size,
            options.steps,
            options.device,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    print(f"written: {options.output / 'report.md'}, report.json, a sheet and a video for each camera, scene/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
