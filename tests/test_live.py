import io
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from moving_scene import make_gaussians
from PIL import Image

from eval.browser import CHROMIUM, Browser, wait_for
from lrm4d.cameras import Cameras, project
from lrm4d.export.live import check_host, serve
from lrm4d.export.live.client import FRUSTUM, keyframe_of
from lrm4d.export.live.frames import COARSEST, TARGET_SECONDS, Frame, FrameWorker, View, adapt, draw
from lrm4d.export.live.path import Keyframe, interpolate, sample_path
from lrm4d.export.modes import ModeRenderer
from lrm4d.trajectories import cameras_around
from lrm4d.trajectories.formats import nerfstudio
from lrm4d.video import read_video
from lrm4d.views import Views


def camera_at(azimuth: float, elevation: float = 20.0, distance: float = 2.7, size=(64, 48), fov=45.0) -> Cameras:
    angles = (torch.tensor([float(value)]) for value in (azimuth, elevation, distance))
    return cameras_around(*angles, fov, *size)


def view_at(azimuth: float, time: float = 0.3, mode: str = "colour") -> View:
    return View(camera_at(azimuth).camera_to_world[0], 0.7, 64, 48, time, mode, (0.1, 0.2, 0.3))


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    return -10 * math.log10(np.square((image.astype(float) - other) / 255).mean() + 1e-12)


def test_a_frame_is_the_scenes_picture():
    gaussians, view = make_gaussians(), view_at(40)
    frame = draw(ModeRenderer(gaussians), view)
    expected = gaussians.render(view.cameras(), torch.tensor([0.3]), torch.tensor([0.1, 0.2, 0.3]))
    assert frame.full and frame.shown == 60 and frame.image.shape == (48, 64, 3)
    torch.testing.assert_close(frame.image.permute(2, 0, 1) / 255, expected.image[0], atol=0.6 / 255, rtol=0)
    solid = expected.alpha[0, 0] > 0.5
    torch.testing.assert_close(frame.depth, torch.where(solid, expected.depth[0, 0], 0))
    coarse = draw(ModeRenderer(gaussians), view, 0.5)
    assert not coarse.full and coarse.image.shape == (24, 32, 3)
    focal = view.cameras().intrinsics[0, 1, 1].item()
    assert 2 * math.atan(24 / focal) == pytest.approx(0.7)


class SlowReader:
    """Takes frames, each only when it is allowed to."""

    def __init__(self):
        self.frames: list[Frame] = []
        self.allowed, self.arrived = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.arrived.release()
        assert self.allowed.acquire(timeout=20)

    def await_next(self) -> Frame:
        assert self.arrived.acquire(timeout=20)
        return self.frames[-1]


def test_stale_requests_are_dropped_and_the_last_is_drawn_fully():
    reader = SlowReader()
    worker = FrameWorker(ModeRenderer(make_gaussians()), reader)
    worker.start()
    views = [view_at(angle) for angle in (0, 30, 60, 90)]
    worker.request(views[0])
    first = reader.await_next()
    for view in views[1:]:
        worker.request(view)  # returns at once, though nobody takes frames
    reader.allowed.release(10)
    assert (first.view, first.full) == (views[0], False)
    second, third = reader.await_next(), reader.await_next()
    assert [(f.view is views[3], f.full) for f in (second, third)] == [(True, False), (True, True)]
    assert worker.dropped == 2 and len(reader.frames) == 3
    worker.close()
    worker.join(10)
    assert not worker.is_alive()


def test_a_moving_picture_gets_as_coarse_as_it_must():
    assert adapt(0.5, TARGET_SECONDS) == 0.5
    assert adapt(0.5, 2 * TARGET_SECONDS) == pytest.approx(0.5 / math.sqrt(2))
    assert adapt(0.5, 1000.0) == 0.25 and adapt(COARSEST, 1000.0) == COARSEST
    assert 0.99 < adapt(0.9, 1e-6) < 1


def keyframes() -> list[Keyframe]:
    """With a roll, and more than half a turn between some, so that quaternions' signs matter."""
    places = [(0, 10, 2.7), (100, 40, 2.0), (230, -20, 3.0), (350, 60, 2.5)]
    found = []
    for index, place in enumerate(places):
        pose = camera_at(*place).camera_to_world[0]
        roll = torch.tensor(0.3 * index)
        turn = torch.eye(4)
        turn[:2, :2] = torch.stack([torch.stack([roll.cos(), -roll.sin()]), torch.stack([roll.sin(), roll.cos()])])
        found.append(Keyframe(pose @ turn, 0.5 + 0.1 * index, (0.0, 0.7, 0.2, 1.0)[index]))
    return found


def test_a_path_goes_through_its_keyframes():
    keys = keyframes()
    for got, key in zip(interpolate(keys, torch.arange(4.0)), keys, strict=True):
        torch.testing.assert_close(got.camera_to_world, key.camera_to_world, atol=1e-6, rtol=0)
        assert (got.fov, got.time) == pytest.approx((key.fov, key.time))


def test_a_path_is_smooth_rigid_and_keeps_its_times():
    keys = keyframes()
    places = torch.linspace(0, 3, 301)
    path = interpolate(keys, places)
    rotations = torch.stack([key.camera_to_world[:3, :3] for key in path]).double()
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).double().expand(301, 3, 3), atol=1e-5, rtol=0)
    positions = torch.stack([key.camera_to_world[:3, 3] for key in path])
    steps = positions.diff(dim=0).norm(dim=-1)
    assert steps.diff().abs().max() < 0.2 * steps.max()  # no corner at a keyframe
    times = [key.time for key in path]
    expected = np.interp(places.numpy(), range(4), [key.time for key in keys])
    assert times == pytest.approx(expected.tolist(), abs=1e-6) and min(times) >= 0 and max(times) <= 1
    even = [Keyframe(camera_at(0, 0, d).camera_to_world[0], 0.7, 0.5) for d in (2.0, 2.5, 3.0)]
    straight = torch.stack([key.camera_to_world[:3, 3] for key in interpolate(even, torch.linspace(0, 2, 9))])
    torch.testing.assert_close(straight[:, 1], -torch.linspace(2, 3, 9))
    with pytest.raises(ValueError, match="at least 2"):
        interpolate(keys[:1], torch.zeros(1))


def test_sampled_cameras_have_the_keyframes_field_of_view():
    cameras, times = sample_path(keyframes(), 13, 64, 36)
    assert cameras.shape == (13,) and times[[0, 4, 8, 12]].tolist() == pytest.approx([0, 0.7, 0.2, 1])
    fovs = 2 * torch.atan(18 / cameras.intrinsics[[0, 4, 8, 12], 1, 1])
    torch.testing.assert_close(fovs, torch.tensor([0.5, 0.6, 0.7, 0.8]))
    torch.testing.assert_close(cameras.camera_to_world[4], keyframes()[1].camera_to_world, atol=1e-6, rtol=0)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_a_host_that_is_not_this_machine(host):
    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        check_host(host)


def test_without_viser_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ValueError, match=r'pip install "lrm4d\[view\]"'):
        serve(make_gaussians(), port=0)


def make_inputs() -> Views:
    cameras = camera_at(50.0, size=(32, 24))
    drawn = make_gaussians().render(cameras, torch.tensor([0.75]))
    return Views(drawn.image.clamp(0, 1), drawn.alpha.clamp(0, 1), cameras, torch.tensor([0.75]))


@pytest.fixture
def session():
    pytest.importorskip("viser", reason="the live viewer needs viser")
    running = serve(make_gaussians(), port=0, views=make_inputs(), limit=64)
    yield running
    running.stop()


class Client:
    """A watcher without a browser: viser's own messages over its websocket."""

    def __init__(self, session):
        import viser
        from websockets.sync.client import connect

        self.socket = connect(
            f"ws://127.0.0.1:{session.port}",
            subprotocols=[f"viser-v{viser.__version__}"],
            max_size=None,
            compression=None,
            proxy=None,
        )
        self.controls: dict[str, dict] = {}
        self.downloads: dict[str, bytes] = {}
        self.backgrounds: list[dict] = []

    def send(self, kind: str, **content) -> None:
        import msgspec

        self.socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def look(self, view: View) -> None:
        """Tell where this client's camera stands."""
        from lrm4d.rotations import matrix_to_quaternion

        pose = view.camera_to_world
        self.send(
            "ViewerCameraMessage",
            wxyz=matrix_to_quaternion(pose[:3, :3]).tolist(),
            position=pose[:3, 3].tolist(),
            fov=view.fov,
            near=0.01,
            far=1000.0,
            image_width=view.width,
            image_height=view.height,
            look_at=[0.0, 0.0, 0.0],
            up_direction=[0.0, 0.0, 1.0],
        )

    def set(self, label: str, value) -> None:
        """Use a control of the panel."""
        self.send("GuiUpdateMessage", uuid=self.controls[label]["uuid"], updates={"value": value})

    def receive(self) -> None:
        """Take one packet."""
        import msgspec
        import zstandard

        packet = self.socket.recv(20)
        length = int.from_bytes(packet[8:16], "little")
        content = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packet[16 : 16 + length]))
        for message in content["messages"]:
            if message.get("rgb_data"):
                self.backgrounds.append(message)
            if message.get("props", {}).get("label"):
                self.controls[message["props"]["label"]] = message
            if message["type"] == "FileTransferStartDownload":
                self.name = message["filename"]
                self.downloads[self.name] = b""
            if message["type"] == "FileTransferPart":
                self.downloads[self.name] += message["content"]

    def await_control(self, label: str) -> None:
        while label not in self.controls:
            self.receive()

    def await_picture(self, expected: np.ndarray, atleast: float = 33.0) -> np.ndarray:
        """The next background of the expected size that looks like it."""
        best = 0.0
        for _ in range(60):
            self.receive()
            while self.backgrounds:
                picture = np.array(Image.open(io.BytesIO(self.backgrounds.pop(0)["rgb_data"])).convert("RGB"))
                best = max(best, psnr(picture, expected) if picture.shape == expected.shape else 0)
                if best >= atleast:
                    return picture
        raise AssertionError(f"no picture like the expected one came; the best had {best:.1f} dB")


def picture_of(view: View) -> np.ndarray:
    return draw(ModeRenderer(make_gaussians()), view).image.numpy()


def white(view: View, **changes) -> View:
    from dataclasses import replace

    return replace(view, background=(1.0, 1.0, 1.0), **changes)


def test_a_client_gets_the_rasterizers_pictures(session):
    """Its camera, then another time, then another mode; then the input camera's time by standing in it."""
    client, view = Client(session), white(view_at(20), time=0.0)
    client.look(view)
    client.await_picture(picture_of(view))
    client.await_control("Mode")
    client.set("Time", 0.8)
    client.await_picture(picture_of(white(view, time=0.8)))
    client.set("Mode", "depth")
    client.await_picture(picture_of(white(view, time=0.8, mode="depth")))
    other = white(view_at(110), time=0.8, mode="depth")
    client.look(other)
    client.await_picture(picture_of(other))
    watcher = next(iter(session.watchers.values()))
    assert "60 of 60 Gaussians" in watcher.status.content and "world units" in watcher.legend.content
    watcher.stand(watcher.inputs[0][1])
    assert watcher.time.value == 0.75
    torch.testing.assert_close(watcher.view().camera_to_world, make_inputs().cameras.camera_to_world[0])
    assert not watcher.inputs[0][0].visible and watcher.client.camera.up_direction.tolist() == [0, 0, 1]
    for label, value in (("Loop", False), ("Speed", 4.0), ("Play", True)):
        client.set(label, value)
    wait_for(lambda: watcher.time.value == 1 and not watcher.play.value, 10)
    client.socket.close()
    wait_for(lambda: not session.watchers, 10)
    watcher.worker.join(10)
    assert not watcher.worker.is_alive()


def test_a_recorded_path_is_saved_and_rendered(session, tmp_path):
    client = Client(session)
    stands = [white(view_at(angle), time=time) for angle, time in ((0, 0.0), (90, 1.0))]
    for count, stand in enumerate(stands, 1):
        client.look(stand)
        client.await_control("Render video (mp4)")
        client.set("Time", stand.time)
        wait_for(lambda: session.watchers and same_stand(session, stand), 10)  # noqa: B023
        client.set("Add keyframe here", True)
        recorder = next(iter(session.watchers.values())).recorder
        wait_for(lambda: len(recorder.keyframes) == count, 10)  # noqa: B023
    recorder.seconds.value, recorder.fps.value, recorder.size.value = 0.5, 8, (32, 24)
    recorder.watcher.stand(recorder.keyframes[0])
    assert same_stand(session, stands[0])
    client.set("Preview", True)
    wait_for(lambda: same_stand(session, stands[1]) and not recorder.playing.value, 10)
    client.set("Save path (JSON)", True)
    client.set("Render video (mp4)", True)
    while {"camera_path.json", "colour.mp4"} - {name for name, content in client.downloads.items() if content}:
        client.receive()
    file = tmp_path / "camera_path.json"
    file.write_bytes(client.downloads["camera_path.json"])
    recording = nerfstudio.read(file, "")
    cameras, times = recording.cameras(5, 32, 24), recording.times(5)
    expected, moments = sample_path([Keyframe(s.camera_to_world, s.fov, s.time) for s in stands], 5, 32, 24)
    torch.testing.assert_close(cameras.camera_to_world, expected.camera_to_world, atol=1e-5, rtol=0)
    torch.testing.assert_close(times, moments)
    video = tmp_path / "colour.mp4"
    video.write_bytes(client.downloads["colour.mp4"])
    frames, rate = read_video(video)
    pictures = make_gaussians().render(expected, moments).image
    assert rate == 8 and frames.shape == (5, 3, 24, 32)
    assert psnr(frames.numpy(), 255 * pictures.numpy()) > 25


def same_stand(session, stand: View) -> bool:
    view = next(iter(session.watchers.values())).view()
    return view.time == stand.time and torch.allclose(view.camera_to_world, stand.camera_to_world, atol=1e-5)


def test_a_taken_port_gives_the_next_free_one(session):
    other = serve(make_gaussians(), port=session.port)
    assert other.port > session.port and other.url.endswith(str(other.port))
    other.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", other.port)) != 0  # nothing listens any more


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")
def test_a_browser_shows_the_picture(session):
    """Away from panel and notices it shows our picture of its camera; a click on an input stands in that one."""
    size = (960, 540)
    part = (slice(190, 540), slice(320, 620))
    with Browser(session.url, *size) as browser:
        watcher = wait_for(lambda: next(iter(session.watchers.values()), None), 30)
        watcher.limit.value = size[0]
        watcher.show_inputs.value = False

        def agreement() -> float:
            shot, expected = browser.screenshot(), draw(watcher.renderer, watcher.view()).image.numpy()
            assert expected.shape == shot.shape == (*size[::-1], 3)
            assert (expected[part] != 255).any(-1).mean() > 0.2  # there is something to see in that part
            return psnr(shot[part], expected[part])

        wait_for(lambda: agreement() > 40, 20)
        watcher.show_inputs.value = True
        keyframe = watcher.inputs[0][1]
        watcher.stand(keyframe_of(camera_at(56.0, 25.0, 5.0)[0], 0.2))
        at = project(watcher.view().cameras()[0], middle_of_frustum(keyframe, 32 / 24))[0].tolist()
        assert all(piece.start < place < piece.stop for piece, place in zip(part[::-1], at, strict=True))
        time.sleep(1)  # the browser moves there and draws
        browser.click(*at)
        wait_for(lambda: watcher.time.value == keyframe.time, 10)
        torch.testing.assert_close(watcher.view().camera_to_world, keyframe.camera_to_world, atol=1e-4, rtol=0)


def middle_of_frustum(keyframe: Keyframe, aspect: float) -> torch.Tensor:
    """Of the picture in it: viser makes all frusta of one scale equally large in volume."""
    slope = math.tan(keyframe.fov / 2)
    depth = FRUSTUM / (aspect * slope**2 / 3) ** (1 / 3)
    return keyframe.camera_to_world[:3, 3] + depth * keyframe.camera_to_world[:3, 2]


def test_the_command_ends_cleanly(tmp_path):
    pytest.importorskip("viser", reason="the live viewer needs viser")
    make_gaussians().save(tmp_path / "scene.safetensors")
    command = [sys.executable, "-m", "lrm4d.cli", "view", str(tmp_path / "scene.safetensors"), "--port", "0"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored by all that a script starts with &
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        line = process.stdout.readline()
        assert "60 Gaussians at http://localhost:" in line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "", "ended\n")
