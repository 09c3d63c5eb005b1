"""The part of the panel that records a camera path: keyframes, preview, a file to keep, a video."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lrm4d.export.live.path import Keyframe, interpolate, sample_path
from lrm4d.trajectories.formats import nerfstudio
from lrm4d.video import to_bytes, write_video

if TYPE_CHECKING:
    from lrm4d.export.live.client import Watcher

MOST_SIDE = 4096
"""Pixels of a video's side."""


class PathRecorder:
    """Keyframes of one watcher, and the buttons for them. What is made goes to the watcher's browser as a download."""

    def __init__(self, watcher: "Watcher"):
        self.watcher, gui = watcher, watcher.client.gui
        self.keyframes: list[Keyframe] = []
        self._cancelled = False
        with gui.add_folder("Camera path", expand_by_default=False):
            gui.add_button("Add keyframe here", icon="plus", hint="This camera at this time").on_click(
                lambda _: self.change([*self.keyframes, watcher.keyframe()])
            )
            gui.add_button("Remove last", icon="trash").on_click(lambda _: self.change(self.keyframes[:-1]))
            self.list = gui.add_markdown("No keyframes yet.")
            self.seconds = gui.add_number("Seconds a step", 2.0, min=0.1, max=60.0, step=0.1)
            self.fps = gui.add_number("Frames a second", 24.0, min=1.0, max=60.0, step=1.0)
            self.size = gui.add_vector2("Video size", (640, 360), min=(16, 16), max=(MOST_SIDE, MOST_SIDE), step=2)
            self.playing = gui.add_checkbox("Preview", False)
            self.playing.on_update(lambda event: self.preview() if event.client else None)
            gui.add_button("Save path (JSON)", icon="download").on_click(self.guarded(self.save))
            self.start = gui.add_button("Render video (mp4)", icon="movie")
            self.start.on_click(self.guarded(self.render))
            self.bar = gui.add_progress_bar(0.0, visible=False)
            self.cancel = gui.add_button("Stop rendering", color="red", visible=False)
            self.cancel.on_click(lambda _: setattr(self, "_cancelled", True))

    def change(self, keyframes: list[Keyframe]) -> None:
        """Keep these keyframes and draw them."""
        self.keyframes = keyframes
        said = ", ".join(f"{keyframe.time:.2f}" for keyframe in keyframes)
        self.list.content = f"{len(keyframes)} keyframes at times {said}" if keyframes else "No keyframes yet."
        places = torch.linspace(0, len(keyframes) - 1, 16 * len(keyframes), dtype=torch.float64)
        path = interpolate(keyframes, places) if len(keyframes) > 1 else keyframes
        self.watcher.draw_path(keyframes, path)

    @property
    def frames(self) -> int:
        """How many pictures the path has, both ends included."""
        return round(self.seconds.value * (len(self.keyframes) - 1) * self.fps.value) + 1

    def preview(self) -> None:
        """Move the watcher's camera along the path in real time, until it ends or is switched off."""
        start, run = time.monotonic(), object()
        self.run = run  # switched off and on again, an earlier run may still be asleep
        while len(self.keyframes) > 1 and self.playing.value and self.run is run and not self.watcher.gone:
            place = (time.monotonic() - start) / self.seconds.value
            last = len(self.keyframes) - 1
            self.watcher.stand(interpolate(self.keyframes, torch.tensor([min(place, last)], dtype=torch.float64))[0])
            if place >= last:
                break
            time.sleep(1 / 30)
        if self.run is run:
            self.playing.value = False

    def save(self) -> None:
        """Send the path as a nerfstudio camera path, with each camera's time."""
        width, height = (int(side) for side in self.size.value)
        cameras, times = sample_path(self.keyframes, self.frames, width, height)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "camera_path.json"
            nerfstudio.write(file, cameras, times, self.fps.value)
            self.watcher.client.send_file_download(file.name, file.read_bytes())

    def render(self) -> None:
        """Draw every picture of the path in the present mode, and send the video."""
        width, height = (int(side) for side in self.size.value)
        cameras, times = sample_path(self.keyframes, self.frames, width, height)
        self._cancelled, self.bar.value, self.bar.visible, self.cancel.visible = False, 0.0, True, True
        self.start.disabled = True
        view, pictures = self.watcher.view(), []
        background = torch.tensor(view.background)
        try:
            for frame in self.watcher.renderer.render_frames(cameras, times, view.mode, background):
                pictures.append(to_bytes(frame.image).cpu())
                self.bar.value = 100 * len(pictures) / len(times)
                if self._cancelled or self.watcher.gone:
                    return
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"{view.mode}.mp4"
                write_video(file, torch.cat(pictures), self.fps.value)
                self.watcher.client.send_file_download(file.name, file.read_bytes())
        finally:
            self.bar.visible, self.cancel.visible, self.start.disabled = False, False, False

    def guarded(self, action: Callable[[], None]) -> Callable[[object], None]:
        """The action as a button's callback; what the watcher can mend is shown to them."""

        def act(_: object) -> None:
            try:
                action()
            except ValueError as error:
                self.watcher.client.add_notification("Not yet", str(error), auto_close_seconds=8.0)

        return act
