"""One browser that watches: its panel, its input cameras, and the pictures that it is sent."""

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lrm4d.cameras import Cameras
from lrm4d.export.live.frames import Frame, FrameWorker, View
from lrm4d.export.live.path import Keyframe
from lrm4d.export.live.recorder import PathRecorder
from lrm4d.export.modes import MODES, ModeRenderer
from lrm4d.rotations import matrix_to_quaternion, quaternion_to_matrix
from lrm4d.video import to_bytes
from lrm4d.views import Views

if TYPE_CHECKING:
    from viser import CameraHandle, ClientHandle

CLIP_SECONDS = 3.0
"""How long the clip takes at speed 1."""
FRUSTUM, LINE = 0.12, 0.004
"""World units: a camera's frustum, and how thick its lines are."""
KEYFRAME_COLOR, INPUT_COLOR = (230, 60, 60), (60, 60, 60)
NOTHING = 160.0
"""World units at which the background lies: about the farthest that a client's depths reach."""
THUMBNAIL = 128
"""Pixels of the longer side of an input's picture in its frustum."""


class Watcher:
    """What one client sees and does. Its callbacks run in the server's threads and never wait for a picture."""

    def __init__(self, client: "ClientHandle", renderer: ModeRenderer, views: Views | None, background, limit: int):
        self.client, self.renderer = client, renderer
        self.gone = False
        self.worker = FrameWorker(renderer, self.show)
        self.inputs: list = []
        self.keys: list = []
        self.line: Any = None
        self._build_panel(tuple(round(255 * channel) for channel in background), limit, views is not None)
        if views is not None:
            self._add_inputs(views)
        self.recorder = PathRecorder(self)
        for control in (client.camera, self.time, self.mode, self.background, self.limit, self.show_inputs):
            control.on_update(lambda _: self.refresh())
        self.play.on_update(lambda event: self.run_clip() if event.client else None)
        self.worker.start()
        self.refresh()

    def _build_panel(self, background: tuple, limit: int, has_inputs: bool) -> None:
        gui = self.client.gui
        self.status = gui.add_markdown("...")
        with gui.add_folder("Time"):
            self.time = gui.add_slider("Time", 0.0, 1.0, 0.001, 0.0)
            self.play = gui.add_checkbox("Play", False)
            self.loop = gui.add_checkbox("Loop", True)
            self.speed = gui.add_slider("Speed", 0.1, 4.0, 0.1, 1.0, hint=f"1: the clip takes {CLIP_SECONDS:g} s")
        with gui.add_folder("Picture"):
            self.mode = gui.add_dropdown("Mode", MODES)
            self.legend = gui.add_markdown("", visible=False)
            self.background = gui.add_rgb("Background", background)
            self.limit = gui.add_slider("Resolution", 64, 2048, 16, limit, hint="Pixels of the longer side, at most")
            self.show_inputs = gui.add_checkbox(
                "Show inputs", True, visible=has_inputs, hint="Click on a camera to stand in it"
            )

    def _add_inputs(self, views: Views) -> None:
        small = views.resize_longer_side(min(THUMBNAIL, max(views.cameras.width, views.cameras.height)))
        pictures = to_bytes(small.composite(torch.ones(3))).permute(0, 2, 3, 1).cpu().numpy()
        for index, picture in enumerate(pictures):
            keyframe = keyframe_of(views.cameras[index], views.times[index].item())
            frustum = self._add_frustum(f"/inputs/{index}", keyframe, INPUT_COLOR, picture)
            frustum.on_click(lambda _, keyframe=keyframe: self.stand(keyframe))
            self.inputs.append((frustum, keyframe))

    def _add_frustum(self, name: str, keyframe: Keyframe, color: tuple, picture: np.ndarray | None = None):
        height, width = picture.shape[:2] if picture is not None else (9, 16)
        pose = keyframe.camera_to_world
        return self.client.scene.add_camera_frustum(
            name,
            keyframe.fov,
            width / height,
            scale=FRUSTUM,
            thickness=LINE,
            color=color,
            image=picture,
            wxyz=matrix_to_quaternion(pose[:3, :3]).numpy(),
            position=pose[:3, 3].numpy(),
        )

    def choose_visible(self) -> None:
        """Show cameras, but for those that the watcher stands in: their pictures and lines would hide everything."""
        eye = torch.from_numpy(self.client.camera.position).float()
        show_path = not self.recorder.playing.value
        for frusta, wanted in ((self.inputs, self.show_inputs.value), (self.keys, show_path)):
            for frustum, keyframe in frusta:
                frustum.visible = wanted and (keyframe.camera_to_world[:3, 3] - eye).norm().item() > 2 * FRUSTUM
        if self.line:
            self.line.visible = show_path

    def draw_path(self, keyframes: list[Keyframe], path: list[Keyframe]) -> None:
        """Show a camera path and its keyframes."""
        scene = self.client.scene
        scene.add_frame("/path", show_axes=False)  # adding it again removes what was below
        self.keys = [(self._add_frustum(f"/path/{i}", key, KEYFRAME_COLOR), key) for i, key in enumerate(keyframes)]
        self.line = None
        if len(path) > 1:
            points = torch.stack([key.camera_to_world[:3, 3] for key in path])
            lines = torch.stack([points[:-1], points[1:]], dim=1).numpy()
            self.line = scene.add_line_segments("/path/line", lines, KEYFRAME_COLOR, thickness=LINE)
        self.choose_visible()

    def view(self) -> View:
        """What the watcher asks to see now."""
        camera = self.client.camera
        scale = min(1.0, self.limit.value / max(1, camera.image_width, camera.image_height))
        return View(
            pose_of(camera),
            camera.fov,
            max(1, round(scale * camera.image_width)),
            max(1, round(scale * camera.image_height)),
            self.time.value,
            self.mode.value,
            tuple(channel / 255 for channel in self.background.value),
        )

    def keyframe(self) -> Keyframe:
        """Where the watcher stands, and when."""
        return Keyframe(pose_of(self.client.camera), self.client.camera.fov, self.time.value)

    def stand(self, keyframe: Keyframe) -> None:
        """Put the watcher there, looking at what is nearest to the world's origin on the way."""
        pose = keyframe.camera_to_world.double().numpy()
        ahead = max(0.1, float(-pose[:3, 3] @ pose[:3, 2]))
        with self.client.atomic():
            self.client.camera.wxyz = matrix_to_quaternion(torch.from_numpy(pose[:3, :3])).numpy()
            self.client.camera.position = pose[:3, 3]
            self.client.camera.look_at = pose[:3, 3] + ahead * pose[:3, 2]
            self.client.camera.fov = keyframe.fov
        self.time.value = keyframe.time
        self.refresh()

    def refresh(self) -> None:
        """Ask for a picture of what there is to see now."""
        view = self.view()
        self.worker.request(view)
        self.legend.visible = view.mode != "colour"
        self.legend.content = self.renderer.legend(view.mode, view.cameras())
        self.choose_visible()

    def show(self, frame: Frame) -> None:
        """Send a picture, with depths so that what lies behind the scene is hidden."""
        depth = torch.where(frame.depth > 0, frame.depth, NOTHING)[::2, ::2].numpy()
        quality = 95 if frame.full else 70
        self.client.scene.set_background_image(frame.image.numpy(), "jpeg", jpeg_quality=quality, depth=depth)
        height, width = frame.image.shape[:2]
        shown, total = frame.shown, self.renderer.moving.means.shape[0]
        self.status.content = f"{1000 * frame.seconds:.0f} ms, {width} x {height}, {shown:,} of {total:,} Gaussians"

    def run_clip(self) -> None:
        """Let time run by the clock until the clip ends or Play is switched off."""
        before, run = time.monotonic(), object()
        self.run = run  # switched off and on again, an earlier run may still be asleep
        while self.play.value and self.run is run and not self.gone:
            time.sleep(1 / 30)
            now = time.monotonic()
            reached = self.time.value + (now - before) * self.speed.value / CLIP_SECONDS
            before = now
            if reached > 1 and not self.loop.value:
                self.time.value, self.play.value = 1.0, False
            else:
                self.time.value = reached % 1.0

    def leave(self) -> None:
        """End what runs for this client."""
        self.gone = True
        self.worker.close()


def pose_of(camera: "CameraHandle") -> torch.Tensor:
    """camera_to_world [4, 4] of a client's camera, which has OpenCV axes too."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = quaternion_to_matrix(torch.from_numpy(camera.wxyz))
    pose[:3, 3] = torch.from_numpy(camera.position)
    return pose.float()


def keyframe_of(camera: Cameras, moment: float) -> Keyframe:
    """A camera [] at a time, its field of view vertical."""
    fov = 2 * math.atan(0.5 * camera.height / camera.intrinsics[1, 1].item())
    return Keyframe(camera.camera_to_world.cpu().float(), fov, moment)
