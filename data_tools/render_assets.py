"""Render animated glTF assets, in Blender, into scene folders with a fan of cameras and true depth.

Runs in an environment of its own, because bpy pins other packages than the rest of the project wants:

    python3.11 -m venv BPY && BPY/bin/pip install bpy==5.0.1
    BPY/bin/python data_tools/render_assets.py ASSETS/manifest.json -o SCENES

So it imports nothing but bpy and numpy. Each scene folder has RGBA pictures of the views `front` (at (0, -2.7, 0)) and
`turn-60` ... `turn+60` (turned about z by so many degrees), transforms.json in nerfstudio's form with `time`, `view`
and `frame`, and depth/VIEW.npz, which `lrm4d.generation.depth.load_geometry` reads: camera z of the surface at the
pixel centres, OpenCV cameras. The sphere around all that the clip sweeps becomes the unit sphere; z is up.
Finished scenes are skipped: the same command goes on where it was stopped.

    BPY/bin/python data_tools/render_assets.py ASSETS/manifest.json -o AT_REST --at-rest SCENES --every 7

renders what the cameras of the scene folders SCENES would see if all of the clip stood still in its middle: the same
inputs and every seventh target picture of the set-up random, with the times that they had (targets come in fives, a
moment each, so every tenth would be of one camera). By what a network makes of both, one sees what motion costs it.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

FRONT_DISTANCE = 2.7
FOV = math.radians(49.1)
TURNS = (-60, -45, -30, -15, 15, 30, 45, 60)
SWEPT = 24
"""Moments of a clip whose points the unit sphere is to hold."""
SETUP = "random"
"""Whose cameras see things at rest."""
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Job:
    """What is rendered of every asset. times: how many moments, evenly from the clip's start to its end, which are
    both taken. size: pixels of a side. samples: of each pixel."""

    times: int = 8
    size: int = 128
    samples: int = 32
    threads: int = 1

    @property
    def focal(self) -> float:
        """In pixels."""
        return self.size / 2 / math.tan(FOV / 2)

    @property
    def intrinsics(self) -> np.ndarray:
        """[3, 3], pixel centres at +0.5."""
        return np.array([[self.focal, 0, self.size / 2], [0, self.focal, self.size / 2], [0, 0, 1]])


def camera_pose(turn: float) -> np.ndarray:
    """Camera to world [4, 4] in OpenGL axes: the front camera turned about z by degrees; at +90 it stands at +x."""
    angle = math.radians(turn)
    sine, cosine = math.sin(angle), math.cos(angle)
    right, back = (cosine, sine, 0.0), (sine, -cosine, 0.0)
    pose = np.eye(4)
    pose[:3] = np.stack([right, (0.0, 0.0, 1.0), back, FRONT_DISTANCE * np.array(back)], axis=1)
    return pose


def render_asset(asset: Path, clip: int, job: Job, folder: Path, described: dict) -> None:
    """Write an asset's scene folder; it takes its name only when it is whole. ValueError for what has no such clip."""
    start, stop = set_stage(asset, clip, job)
    moments = [start + (stop - start) * index / max(1, job.times - 1) for index in range(job.times)]
    views = {"front": 0.0} | {f"turn{turn:+d}": float(turn) for turn in TURNS}
    with whole_folder(folder) as work:
        frames, depths = [], {name: [] for name in views}
        for index, moment in enumerate(moments):
            set_moment(moment)
            for name, turn in views.items():
                place_camera(camera_pose(turn))
                file = f"images/{name}_{index:03}.png"
                render_picture(work / file, job)
                depths[name].append(render_depth(work / "depth.exr", job))
                share = index / max(1, job.times - 1)
                pose = camera_pose(turn).tolist()
                frames.append(
                    {"file_path": file, "time": share, "frame": index, "view": name, "transform_matrix": pose}
                )
        (work / "depth.exr").unlink()
        write_depths(work / "depth", depths, views, job)
        write_transforms(work / "transforms.json", frames, job, described)


def render_at_rest(asset: Path, clip: int, job: Job, folder: Path, described: dict, like: Path, every: int) -> None:
    """Write a scene folder of an asset as it is in the middle of its clip, seen by the cameras of the scene folder
    `like` in the set-up random: its inputs, and each so many of its targets."""
    recorded = json.loads((like / "transforms.json").read_text())["frames"]
    protocol = json.loads((like / "protocols.json").read_text())[SETUP]
    inputs, targets = protocol["inputs"], protocol["targets"][::every]
    frames = {frame["file_path"]: frame for frame in recorded}
    start, stop = set_stage(asset, clip, job)
    set_moment((start + stop) / 2)
    with whole_folder(folder) as work:
        for file in inputs + targets:
            place_camera(np.array(frames[file]["transform_matrix"]))
            render_picture(work / file, job)
        write_transforms(work / "transforms.json", [frames[file] for file in inputs + targets], job, described)
        (work / "protocols.json").write_text(json.dumps({SETUP: {"inputs": inputs, "targets": targets}}) + "\n")


def set_stage(asset: Path, clip: int, job: Job) -> tuple[float, float]:
    """An asset with one of its animations, in its place, lit, before a camera; gives its first and last frame."""
    start, stop = open_clip(asset, clip)
    place_in_unit_sphere([start + (stop - start) * index / (SWEPT - 1) for index in range(SWEPT)])
    make_matt()
    prepare_rendering(job)
    return start, stop


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Where to write a folder, which takes its name only when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield work
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def open_clip(asset: Path, clip: int) -> tuple[float, float]:
    """Load an asset with one of its animations, counted as in the file; gives its first and last frame."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(asset), disable_bone_shape=True)
    for thing in [thing for thing in bpy.data.objects if thing.type in ("LIGHT", "CAMERA")]:
        bpy.data.objects.remove(thing)
    names = track_names(asset)
    if not 0 <= clip < len(names) or names[clip] in names[:clip]:
        raise ValueError(f"{asset}: has the animations {names}; expected one of number {clip}, of a name of its own.")
    spans = [play(animated, names[clip]) for animated in (*bpy.data.objects, *bpy.data.shape_keys)]
    spans = [span for span in spans if span]
    if not spans:
        raise ValueError(f"{asset}: animation {clip} ('{names[clip]}') moves nothing.")
    return min(span[0] for span in spans), max(span[1] for span in spans)


def play(animated: bpy.types.ID, track_name: str) -> tuple[float, float] | None:
    """Let one of the tracks of an object (or of shape keys) move it, and no other; gives its first and last frame."""
    data = animated.animation_data
    if data is None:
        return None
    data.action = None  # the importer leaves the first animation on
    span = None
    for track in data.nla_tracks:
        track.mute = True
        if track.name == track_name and len(track.strips):
            strip = track.strips[0]
            data.action, data.action_slot = strip.action, strip.action_slot
            span = tuple(strip.action.frame_range)
    return span


def track_names(asset: Path) -> list[str]:
    """The names that Blender's importer gives the tracks of a .gltf's or .glb's animations, in the file's order."""
    content = asset.read_bytes()
    if content[:4] == b"glTF":
        content = content[20 : 20 + int.from_bytes(content[12:16], "little")]
    animations = json.loads(content).get("animations", [])
    return [animation.get("name") or f"Anim_{index}" for index, animation in enumerate(animations)]


def set_moment(frame: float) -> None:
    """Go to a frame and its fraction."""
    bpy.context.scene.frame_set(math.floor(frame), subframe=frame - math.floor(frame))


def place_in_unit_sphere(moments: list[float]) -> None:
    """Put everything below a new root whose place and size make the sphere around all moments the unit sphere."""
    low, high, points = np.full(3, np.inf), np.full(3, -np.inf), []
    for moment in moments:
        set_moment(moment)
        points.append(current_points())
        low, high = np.minimum(low, points[-1].min(0)), np.maximum(high, points[-1].max(0))
    centre = (low + high) / 2
    radius = max(float(np.linalg.norm(some - centre, axis=1).max()) for some in points)
    root = bpy.data.objects.new("root", None)
    bpy.context.scene.collection.objects.link(root)
    for thing in bpy.data.objects:
        if thing.parent is None and thing is not root:
            thing.parent = root
    root.scale = (1 / radius,) * 3
    root.location = tuple(-centre / radius)


def current_points() -> np.ndarray:
    """World positions [vertex, 3] of all that is rendered."""
    graph = bpy.context.evaluated_depsgraph_get()
    found = []
    for thing in bpy.context.scene.objects:
        if thing.type != "MESH" or thing.hide_render:
            continue
        moved = thing.evaluated_get(graph)
        mesh = moved.to_mesh()
        flat = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
        mesh.vertices.foreach_get("co", flat)
        matrix = np.array(moved.matrix_world)
        found.append(flat.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3])
        moved.to_mesh_clear()
    if not found:
        raise ValueError("the asset has no mesh that is rendered.")
    return np.concatenate(found)


def make_matt() -> None:
    """No highlights: the even light would be mirrored everywhere, and make all colours pale."""
    for material in bpy.data.materials:
        for node in material.node_tree.nodes if material.node_tree else ():
            if node.type == "BSDF_PRINCIPLED":
                node.inputs["Specular IOR Level"].default_value = 0.0


def prepare_rendering(job: Job) -> None:
    """Camera, light (even, with a soft sun from above the front's left) and Cycles."""
    scene = bpy.context.scene
    camera = bpy.data.cameras.new("camera")
    camera.sensor_fit, camera.angle, camera.clip_start = "HORIZONTAL", FOV, 0.01
    scene.camera = bpy.data.objects.new("camera", camera)
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle = 1.5, math.radians(20)
    lamp = bpy.data.objects.new("sun", sun)
    lamp.rotation_euler = (math.radians(40), 0.0, math.radians(-35))
    for thing in (scene.camera, lamp):
        scene.collection.objects.link(thing)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    background = next(node for node in scene.world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = 0.6
    render = scene.render
    render.engine, render.film_transparent = "CYCLES", True
    render.resolution_x = render.resolution_y = job.size
    render.resolution_percentage, render.use_persistent_data = 100, True
    render.threads_mode, render.threads = "FIXED", job.threads
    scene.cycles.device, scene.cycles.use_adaptive_sampling, scene.cycles.use_denoising = "CPU", False, False
    scene.cycles.max_bounces, scene.cycles.seed = 3, 0
    scene.view_settings.view_transform, scene.view_settings.look = "Standard", "None"


def place_camera(pose: np.ndarray) -> None:
    """Put the camera at a pose in OpenGL axes, which are Blender's too."""
    bpy.context.scene.camera.matrix_world = Matrix(pose.tolist())
    bpy.context.view_layer.update()


def render_picture(path: Path, job: Job) -> None:
    """The RGBA picture, straight alpha, 8 bits."""
    scene = bpy.context.scene
    bpy.context.view_layer.material_override = None
    scene.cycles.samples, scene.cycles.filter_width = job.samples, 1.0
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGBA"
    scene.render.image_settings.color_depth = "8"
    _render(path)


def render_depth(path: Path, job: Job) -> np.ndarray:
    """Camera z [height, width] at the pixel centres, 0 where there is no surface.

    Rendered as a light of that strength through a filter without width: exact, unlike a picture's mean over pixels.
    """
    scene = bpy.context.scene
    bpy.context.view_layer.material_override = depth_material()
    scene.cycles.samples, scene.cycles.filter_width = 1, 0.01
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "OPEN_EXR", "RGBA"
    scene.render.image_settings.color_depth = "32"
    _render(path)
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    values = np.empty(job.size * job.size * 4, dtype=np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    values = values.reshape(job.size, job.size, 4)[::-1]
    return np.where(values[..., 3] > 0.5, values[..., 0], 0.0).astype(np.float32)


def _render(path: Path) -> None:
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def depth_material() -> bpy.types.Material:
    """Shines as strongly as its surface is far from the camera's plane."""
    material = bpy.data.materials.get("depth")
    if material is None:
        material = bpy.data.materials.new("depth")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        nodes.clear()
        output, light = nodes.new("ShaderNodeOutputMaterial"), nodes.new("ShaderNodeEmission")
        links.new(nodes.new("ShaderNodeCameraData").outputs["View Z Depth"], light.inputs["Color"])
        links.new(light.outputs["Emission"], output.inputs["Surface"])
    return material


def write_depths(folder: Path, depths: dict[str, list[np.ndarray]], views: dict[str, float], job: Job) -> None:
    """VIEW.npz: depths [time, height, width], valid, camera_to_world [time, 4, 4], intrinsics [time, 3, 3]."""
    folder.mkdir()
    for name, frames in depths.items():
        values = np.stack(frames)
        pose = camera_pose(views[name]) @ OPENGL_TO_OPENCV
        np.savez_compressed(
            folder / f"{name}.npz",
            depths=values,
            valid=values > 0,
            camera_to_world=np.repeat(pose[None], len(values), 0),
            intrinsics=np.repeat(job.intrinsics[None], len(values), 0),
        )


def write_transforms(path: Path, frames: list[dict], job: Job, described: dict) -> None:
    """nerfstudio's form."""
    content = {"w": job.size, "h": job.size, "fl_x": job.focal, "fl_y": job.focal}
    content |= {"cx": job.size / 2, "cy": job.size / 2, "camera_model": "OPENCV", "background": "transparent"}
    path.write_text(json.dumps(content | described | {"frames": frames}, indent=1) + "\n")


def read_assets(manifest: Path, names: list[str] | None) -> list[tuple[str, Path, dict]]:
    """(name, file, entry) of the manifest's animated assets, or of those named."""
    entries = [entry for entry in json.loads(manifest.read_text()) if "animated" in Path(entry["file"]).parts]
    root = manifest.parent.parent if entries and entries[0]["file"].startswith("assets/") else manifest.parent
    found = [(Path(entry["file"]).stem, root / entry["file"], entry) for entry in entries]
    unknown = sorted(set(names or ()) - {name for name, _, _ in found})
    if unknown:
        raise ValueError(f"{manifest}: no animated asset called {', '.join(unknown)}.")
    return [one for one in found if names is None or one[0] in names]


def main() -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, help="manifest.json: a list of {file, best_i (the clip), ...}")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the scene folders")
    parser.add_argument("--only", help="names with commas between (default: all)")
    parser.add_argument("--at-rest", type=Path, metavar="SCENES", help="as their cameras see the clip's middle")
    parser.add_argument("--every", type=int, default=1, help="of the targets at rest, default 1")
    for name, value in vars(Job()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    options = parser.parse_args()
    job = Job(options.times, options.size, options.samples, options.threads)
    try:
        assets = read_assets(options.manifest, options.only.split(",") if options.only else None)
        todo = [asset for asset in assets if not (options.output / asset[0] / "transforms.json").exists()]
        began = time.perf_counter()
        for index, (name, file, entry) in enumerate(todo):
            described = {"licence": entry["licence"], "source": entry["source"], "animation": entry["best"]}
            wanted = (file, entry["best_i"], job, options.output / name, described)
            if options.at_rest:
                render_at_rest(*wanted, options.at_rest / name, options.every)
            else:
                render_asset(*wanted)
            spent = time.perf_counter() - began
            left = spent / (index + 1) * (len(todo) - index - 1)
            print(f"[{index + 1}/{len(todo)}] {name}: {spent:.0f} s so far, {left:.0f} s left", flush=True)
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
