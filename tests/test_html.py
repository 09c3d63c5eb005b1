"""The HTML viewer: its bytes, and in a headless browser its pictures, its order of depth and its controls."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.browser import CHROMIUM, Browser, wait_for
from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, project
from lrm4d.export.html import fill, script_json, write_html
from lrm4d.export.overview import find_extent, overview_camera
from lrm4d.export.packing import LEVELS, pack, unpack
from lrm4d.gaussians3d import decompose_covariances
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.views import Views

COUNT = 10_000
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page in")


def make_scene(count: int = COUNT, seed: int = 0, **more) -> Gaussians4D:
    """Small moving blobs in a ball, of every shape, brightness (beyond 1 too), opacity and duration."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return Gaussians4D(
        means=0.3 * normal(count, 3),
        time_means=2.2 * draw(count) - 1.1,
        scales=0.004 + 0.03 * draw(count, 3) ** 2,
        time_scales=0.1 + 0.6 * draw(count),
        left_quaternions=torch.tensor([1.0, 0, 0, 0]) + 0.3 * normal(count, 4),
        right_quaternions=torch.tensor([1.0, 0, 0, 0]) + 0.3 * normal(count, 4),
        opacities=0.02 + 0.9 * draw(count) ** 2,
        colors=1.2 * draw(count, 3),
        **({"low_pass": 0.1} | more),
    )


def ring(
    count: int, width: int, height: int, elevation: float = 15, distance: float = 2.5, fov: float = 50
) -> Cameras:
    """Cameras [count] around the origin that look at it; degrees."""
    azimuth = torch.arange(count) * 2 * math.pi / count
    level, up = math.cos(math.radians(elevation)), math.sin(math.radians(elevation))
    directions = torch.stack([azimuth.cos() * level, azimuth.sin() * level, torch.full((count,), up)], dim=-1)
    intrinsics = intrinsics_from_fov(math.radians(fov), width, height).expand(count, 3, 3)
    return Cameras(look_at(distance * directions, torch.zeros(3)), intrinsics, width, height)


def make_views(gaussians: Gaussians4D, count: int = 5) -> Views:
    """Pictures of a scene from an orbit while its time runs."""
    cameras, times = ring(count, 48, 36), torch.linspace(0, 1, count)
    rendering = gaussians.render(cameras, times, torch.zeros(3))
    images = torch.where(rendering.alpha > 0, rendering.image / rendering.alpha.clamp(min=1e-6), 0.0)
    return Views(images.clamp(0, 1), rendering.alpha.clamp(0, 1), cameras, times)


# ---- the bytes


def test_packing_keeps_every_number_within_its_step():
    gaussians = make_scene(2000)
    packed = pack(gaussians)
    assert packed.records.dtype == np.uint32 and packed.records[0].nbytes == 32
    ours, expected = unpack(packed), gaussians.to_moving().visible()
    order = torch.cdist(ours.means, expected.means).argmin(dim=1)  # packing sorts; no two means are that near
    assert len(set(order.tolist())) == len(packed)
    box, span = torch.tensor(packed.box_size), packed.time_size
    error = {n: (value - vars(expected)[n][order]).abs() for n, value in vars(ours).items()}
    half = 2.0**-11
    assert (error["means"] <= 0.501 * box / 65535 + 1e-7).all()
    assert (error["time_means"] <= 0.501 * span / 65535 + 1e-7).all()
    assert (error["velocities"] <= half * vars(expected)["velocities"][order].abs() + 1e-7).all()
    assert (error["time_deviations"] <= half * expected.time_deviations[order]).all()
    assert (error["opacities"] <= half * expected.opacities[order]).all()
    assert (error["colors"] <= 0.501 * packed.color_scale / LEVELS + 1e-6).all()
    scales = [decompose_covariances(g.covariances)[0] for g in (ours, expected)]
    assert ((scales[0] - scales[1][order]).abs() <= 2 * half * scales[1][order].amax(-1, keepdim=True)).all()
    # A turn of at most 3e-3 radians moves the covariance by about its largest variance times twice that.
    largest = scales[1][order].amax(-1, keepdim=True).square()
    assert (error["covariances"] <= 7e-3 * largest).all()


def test_packing_prunes_exactly_what_is_never_seen():
    gaussians = make_scene(100)
    gaussians.opacities[:10] = 1 / 256
    gaussians.means[10] = torch.nan
    gaussians.time_means[11:14] = 30.0
    packed = pack(gaussians)
    assert len(packed) == len(gaussians.to_moving().visible().means) <= 86
    assert pack(make_scene(100, low_pass=0.3)).color_scale == pytest.approx(1.2, abs=0.02)
    with pytest.raises(ValueError, match=r"none of the 100 Gaussians can be seen"):
        pack(replace(gaussians, opacities=torch.zeros(100)))


def test_a_static_scene_of_one_flat_gaussian_packs():
    one = make_scene(1, seed=3)
    one = replace(one, scales=torch.tensor([[0.1, 0.05, 0.0]]), time_scales=torch.tensor([1e6]))
    ours = unpack(pack(one))
    assert torch.allclose(ours.means, one.means, atol=1e-6)
    expected = decompose_covariances(one.to_moving().covariances)[0][0]
    assert torch.allclose(decompose_covariances(ours.covariances)[0][0, 1:], expected[1:], rtol=1e-2)


def test_the_page_is_whole_and_asks_for_nothing_outside(tmp_path):
    scene = make_scene(200)
    written = write_html(tmp_path / "a.html", scene, make_views(scene), title='Fox <b> & "co" {{style}}</script>')
    page = written.path.read_text(encoding="utf-8")
    assert written.gaussians + written.pruned == 200 and written.bytes == written.path.stat().st_size
    assert "<title>Fox &lt;b&gt; &amp; &quot;co&quot; {{style}}&lt;/script&gt;</title>" in page
    assert page.count("</script>") == page.count("<script")
    outside = re.findall(r"""(?:src|href|url\()\s*=?\s*["'(]?\s*(?!data:|\$)([a-z]+:|//)[^"' )]*""", page)
    assert not outside and "import(" not in page and "fetch(" not in page
    header = json.loads(re.search(r'id="scene-header">(.*?)</script>', page)[1])
    assert header["count"] == written.gaussians and len(header["cameras"]) == 5


def test_every_source_is_on_the_page():
    from lrm4d.export import html

    assert {f.stem for f in html.SOURCES.glob("*.js")} == {"sorter", *html.SCRIPTS}


def test_what_does_not_fit_is_refused(tmp_path):
    scene = make_scene(10)
    for arguments, message in (
        ({"gaussians": Gaussians4D(**{n: v[None] for n, v in scene.tensors().items()})}, "expected one scene"),
        ({"home": ring(2, 8, 8)}, "expected one camera"),
        ({"seconds": 0.0}, "more than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            write_html(tmp_path / "a.html", **({"gaussians": scene} | arguments))
    assert not list(tmp_path.iterdir())


def test_templates_are_filled_once_and_json_cannot_end_a_script():
    assert fill("{{a}} {{b}}", a="{{b}}", b="x") == "{{b}} x"
    with pytest.raises(KeyError):
        fill("{{unknown}}")
    text = script_json({"a": "</script><!--"})
    assert "<" not in text and json.loads(text) == {"a": "</script><!--"}


def test_an_overview_shows_everything():
    moving = unpack(pack(make_scene(3000)))
    center, radius = find_extent(moving)
    camera = overview_camera(center, radius, 100)
    pixels, depth = project(camera.reshape(1), moving.means)
    inside = ((pixels > 0) & (pixels < 100)).all(-1) & (depth > 0)
    assert inside.float().mean() > 0.97
    assert camera.camera_to_world[2, 0].abs() < 1e-6  # level: its right has no height


# ---- the browser


@pytest.fixture(scope="module")
def scene() -> Gaussians4D:
    return make_scene()


@pytest.fixture(scope="module")
def page(scene, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("html") / "scene.html"
    write_html(path, scene, make_views(scene), title="Test")
    return path


@pytest.fixture(scope="module")
def module_browser(page) -> Iterator[Browser]:
    with Browser(page.as_uri(), 256, 256) as browser:
        yield browser


@pytest.fixture
def browser(module_browser) -> Iterator[Browser]:
    """A browser with no page in particular; any error that a page shows fails the test."""
    module_browser.resize(256, 256)
    module_browser.errors.clear()
    yield module_browser
    module_browser.evaluate("0")  # takes in what was said meanwhile
    assert not module_browser.errors


def open_page(browser: Browser, page: Path, hash: str = "") -> None:
    """Open a page from disk and wait for its first frame, and until the poster has faded away."""
    browser.open(page.as_uri() + hash)
    browser.evaluate("lrm4d.ready.then(() => lrm4d.frameReady()).then(() => true)")
    fades = "document.getAnimations().filter((a) => a instanceof CSSTransition).map((a) => a.finished)"
    browser.evaluate(f"Promise.allSettled({fades}).then(() => true)")


def address_of(camera: Cameras, time: float) -> str:
    """The part of the address that shows one camera (batch shape []) at a time."""
    k = camera.intrinsics
    lens = [k[0, 0], k[1, 1], k[0, 2], k[1, 2], camera.width, camera.height]
    pose = ",".join(f"{x:.8g}" for x in camera.camera_to_world[:3].flatten().tolist())
    return f"#ui=0&time={time}&camera_to_world={pose}&intrinsics={','.join(f'{float(x):.8g}' for x in lens)}"


def decibels(picture: np.ndarray, truth: torch.Tensor) -> float:
    ours = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    return psnr(ours[None], truth[None].clamp(0, 1)).item()


@needs_browser
@pytest.mark.parametrize(
    ("index", "time", "width", "height", "background"),
    [
        (0, 0.5, 256, 256, "white"),
        (1, 0.0, 256, 256, "black"),
        (2, 0.83, 256, 160, "gray"),
        (3, 0.3, 150, 256, "white"),
    ],
)
def test_a_screenshot_is_the_rasterizers_picture(browser, scene, page, index, time, width, height, background):
    camera = ring(4, width, height, elevation=20 * index - 20, distance=2.5)[index]
    browser.resize(width, height)
    open_page(browser, page, address_of(camera, time) + f"&background={background}")
    color = torch.full((3,), {"white": 1.0, "black": 0.0, "gray": 0.5}[background])
    truth = scene.render(camera.reshape(1), torch.tensor([time]), color).image[0]
    assert truth.std() > 0.05
    assert decibels(browser.screenshot(), truth) > 50
    assert browser.evaluate("lrm4d.getTime()") == pytest.approx(time)


@needs_browser
def test_a_camera_amid_the_gaussians_sees_the_rasterizers_picture(browser, scene, page):
    camera = ring(3, 256, 256, distance=0.6, fov=70)[1]  # some are behind it, some very near
    open_page(browser, page, address_of(camera, 0.4))
    truth = scene.render(camera.reshape(1), torch.tensor([0.4])).image[0]
    assert decibels(browser.screenshot(), truth) > 50


@needs_browser
def test_the_low_pass_and_its_compensation_are_the_scenes_own(browser, scene, tmp_path):
    compensated = replace(scene, low_pass=0.8, compensate=True)
    write_html(tmp_path / "a.html", compensated)
    camera = ring(3, 256, 256)[1]
    open_page(browser, tmp_path / "a.html", address_of(camera, 0.4))
    picture = browser.screenshot()
    render = lambda scene: scene.render(camera.reshape(1), torch.tensor([0.4])).image[0]  # noqa: E731
    assert decibels(picture, render(compensated)) > 50
    assert decibels(picture, render(replace(compensated, compensate=False))) < 36
    assert decibels(picture, render(replace(compensated, low_pass=0.1))) < 45


@needs_browser
def test_pixels_read_by_a_script_are_the_screenshots(browser, page):
    open_page(browser, page, "#ui=0&time=0.2")
    got = browser.evaluate("(({width, height, data}) => ({width, height, data: [...data]}))(lrm4d.readPixels())")
    pixels = np.array(got["data"], np.uint8).reshape(got["height"], got["width"], 4)[..., :3]
    assert (pixels == browser.screenshot()).all()


@needs_browser
def test_the_workers_order_is_by_depth_and_complete(browser, scene, page):
    camera = ring(5, 256, 256, elevation=35)[2]
    open_page(browser, page, address_of(camera, 0.0))
    moving = unpack(pack(scene))
    for time in (0.0, 0.37, 1.0):
        browser.evaluate(f"lrm4d.setTime({time})")
        order = np.array(browser.evaluate("lrm4d.frameReady().then(() => [...lrm4d.order()])"))
        sliced = moving.slice_at(torch.tensor([2 * time - 1]))
        opacities = sliced.opacities[0].numpy()
        depths = (sliced.means[0] @ camera.world_to_camera[2, :3] + camera.world_to_camera[2, 3]).numpy()
        assert len(set(order.tolist())) == len(order) == browser.evaluate("lrm4d.stats.visible") > 1000
        # Rounding may decide differently for those at the very threshold.
        assert set(np.flatnonzero(opacities >= 1.001 / 255)) <= set(order.tolist())
        assert set(order.tolist()) <= set(np.flatnonzero(opacities >= 0.999 / 255))
        assert (np.diff(depths[order]) >= -1e-5).all()


@needs_browser
def test_it_waits_plays_and_scrubs(browser, page):
    open_page(browser, page)
    assert browser.evaluate("lrm4d.getTime()") == 0 and not browser.evaluate("lrm4d.playing")
    assert browser.evaluate("getComputedStyle(document.getElementById('poster')).opacity") == "1"
    browser.click(128, 128)  # the large button
    assert browser.evaluate("lrm4d.playing")
    wait_for(lambda: browser.evaluate("lrm4d.getTime()") > 0.05, 60)
    assert browser.evaluate("document.body.classList.contains('begun')")
    # In one go, as a drag does it: between two, the next frame of playing would move the slider.
    browser.evaluate(
        "{ const s = document.getElementById('time'); s.value = 0.62; s.dispatchEvent(new Event('input')) }"
    )
    browser.evaluate("lrm4d.frameReady().then(() => true)")
    assert browser.evaluate("lrm4d.getTime()") == pytest.approx(0.62) and not browser.evaluate("lrm4d.playing")
    assert browser.evaluate("document.getElementById('clock').textContent") == "0.620"


def watch_time(browser: Browser, hash: str, until: str) -> np.ndarray:
    """The time of each frame from an address on, until a condition on `seen`, the times so far."""
    return np.array(
        browser.evaluate(f"""new Promise((done) => {{
          const seen = [];
          const look = () => {{
            seen.push(lrm4d.getTime());
            if ({until} || seen.length > 2000) done(seen); else requestAnimationFrame(look);
          }};
          window.addEventListener("hashchange", () => requestAnimationFrame(look), {{once: true}});
          location.hash = {hash!r};
        }})""")
    )


@needs_browser
def test_time_runs_out_round_and_back(browser, page):
    open_page(browser, page, "#time=0.5")
    once = watch_time(browser, "#time=0.9&speed=4&loop=once&play=1", "!lrm4d.playing")
    assert once[-1] == 1 and (np.diff(once) >= 0).all() and not browser.evaluate("lrm4d.playing")
    loop = watch_time(browser, "#time=0.95&speed=1&loop=loop&play=1", "seen.at(-1) < 0.5")
    assert (np.diff(loop) < 0).sum() == 1 and loop[-1] < 0.1
    back = watch_time(browser, "#time=0.95&speed=1&loop=pingpong&play=1", "seen.at(-1) < 0.9")
    assert back.max() <= 1 and back[-1] > 0.8  # a frame is at most a quarter of a second, 1/12 of this clip


@needs_browser
def test_every_key_does_something(browser, page):
    open_page(browser, page, "#time=0.5")
    state = "JSON.stringify([lrm4d.state, lrm4d.getTime(), lrm4d.playing, lrm4d.getCamera()])"
    for key in [
        "c",
        "t",
        "b",
        "s",
        "u",
        "u",
        "h",
        "Escape",
        "3",
        "ArrowLeft",
        "ArrowUp",
        "]",
        "[",
        "Home",
        "End",
        " ",
        " ",
    ]:
        before = browser.evaluate(state)
        browser.press(key)
        wait_for(lambda before=before: browser.evaluate(state) != before, 60)
    browser.press("0")
    browser.press("r")
    wait_for(lambda: browser.evaluate("lrm4d.getCamera().index") == -1, 60)
    assert browser.evaluate("lrm4d.getTime()") == 0


@needs_browser
def test_a_click_on_a_camera_stands_in_it(browser, scene, page):
    browser.resize(320, 240)
    wanted = make_views(scene).cameras[2]
    from_behind = ring(5, 48, 36, distance=4.5)[2]
    open_page(browser, page, address_of(from_behind, 0.1).replace("ui=0", "cameras=1"))
    # The camera stands before us in the middle: its centre is seen at the principal point.
    browser.click(160, 120)
    wait_for(lambda: browser.evaluate("lrm4d.getCamera().index") == 2, 60)
    browser.evaluate("lrm4d.frameReady().then(() => true)")
    pose = torch.tensor(browser.evaluate("lrm4d.getCamera().camera_to_world")).reshape(4, 4)
    assert torch.allclose(pose, wanted.camera_to_world, atol=1e-5)
    assert browser.evaluate("lrm4d.getTime()") == pytest.approx(0.5)
    assert browser.evaluate("document.getElementById('camera-name').textContent") == "Camera 3 of 5"


@needs_browser
def test_dragging_turns_around_the_scene_and_wheel_nears_it(browser, page):
    open_page(browser, page, "#time=0.5")
    pose = lambda: np.array(browser.evaluate("lrm4d.getCamera().camera_to_world")).reshape(4, 4)  # noqa: E731
    before = pose()
    browser.mouse("mousePressed", 100, 128)
    for x in range(115, 160, 20):
        browser.mouse("mouseMoved", x, 128, buttons=1)
    browser.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")  # held still: no spin is left
    browser.mouse("mouseReleased", 155, 128)
    after = pose()
    assert abs(after[2, 3] - before[2, 3]) < 1e-6 and abs(after[2, 0]) < 1e-6  # level, at the same height
    assert np.linalg.norm(after[:3, 3] - before[:3, 3]) > 0.2
    assert np.dot(after[:3, 3] - before[:3, 3], before[:3, 0]) < 0  # the scene follows the hand, the camera goes left
    assert np.allclose(after[:3, :3].T @ after[:3, :3], np.eye(3), atol=1e-6)
    browser.mouse("mouseWheel", 128, 128, deltaX=0, deltaY=-200, button="none")
    wait_for(lambda: np.dot(pose()[:3, 3] - after[:3, 3], after[:3, 2]) > 0.1, 60)


@needs_browser
def test_two_fingers_zoom_and_move(browser, page):
    open_page(browser, page, "#time=0.5")
    pose = lambda: np.array(browser.evaluate("lrm4d.getCamera().camera_to_world")).reshape(4, 4)  # noqa: E731

    def touch(kind: str, *points: tuple[int, int]) -> None:
        fingers = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    start = pose()
    touch("touchStart", (100, 128))
    touch("touchStart", (100, 128), (150, 128))
    touch("touchMove", (75, 128), (175, 128))  # twice as far apart
    near = pose()
    step = near[:3, 3] - start[:3, 3]
    along = np.dot(step, start[:3, 2])
    assert along > 0.3 and np.linalg.norm(step - along * start[:3, 2]) < 0.05 * along
    touch("touchMove", (75, 88), (175, 88))  # both up
    touch("touchEnd")
    step = pose()[:3, 3] - near[:3, 3]
    assert np.dot(step, near[:3, 1]) > 0.05 and abs(np.dot(step, near[:3, 0])) < 0.02  # the camera goes down
    assert np.allclose(pose()[:3, :3], start[:3, :3], atol=1e-9)


@needs_browser
def test_who_wants_less_motion_is_not_played_to(browser, page):
    wish = {"name": "prefers-reduced-motion", "value": "reduce"}
    browser.call("Emulation.setEmulatedMedia", features=[wish])
    open_page(browser, page)
    browser.click(128, 128)
    assert browser.evaluate("document.body.classList.contains('begun')") and not browser.evaluate("lrm4d.playing")
    browser.evaluate("lrm4d.setCamera(1, 1)")  # no flight either
    assert np.allclose(
        browser.evaluate("lrm4d.getCamera().camera_to_world"),
        ring(5, 48, 36).camera_to_world[1].flatten().tolist(),
        atol=1e-5,
    )
    browser.call("Emulation.setEmulatedMedia", features=[wish | {"value": "no-preference"}])


@needs_browser
def test_a_link_shows_what_was_seen(browser, page):
    open_page(browser, page, "#time=0.25&camera=3&background=checker&trails=1&loop=loop")
    assert browser.evaluate("lrm4d.getTime()") == 0.25
    browser.press("ArrowUp")
    browser.press("l")
    wait_for(lambda: "camera_to_world" in browser.evaluate("location.hash"), 60)
    state = (
        "JSON.stringify([lrm4d.state, lrm4d.getTime(), lrm4d.getCamera().camera_to_world.map((x) => x.toFixed(3))])"
    )
    before, hash = browser.evaluate(state), browser.evaluate("location.hash")
    open_page(browser, page, hash)
    assert browser.evaluate(state) == before


@needs_browser
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda page: page[: int(0.9 * len(page))], "incomplete"),
        (lambda page: re.sub(r'(id="scene-data">.{2000}).{8}', r"\1AAAAAAAA", page), "damaged"),
        (lambda page: page.replace('"count":', '"count":1', 1), "damaged"),
        (lambda page: page.replace('getContext("webgl2")', 'getContext("none")'), "WebGL 2"),
    ],
)
def test_a_page_that_cannot_work_says_so_and_keeps_the_poster(module_browser, page, tmp_path, damage, message):
    whole = page.read_text(encoding="utf-8")
    broken = damage(whole)
    assert broken != whole
    (tmp_path / "broken.html").write_text(broken, encoding="utf-8")
    module_browser.open((tmp_path / "broken.html").as_uri())
    module_browser.evaluate("lrm4d.ready.catch(() => true)")
    assert message in module_browser.evaluate("document.getElementById('problem-text').innerText")
    assert module_browser.evaluate("getComputedStyle(document.getElementById('poster')).opacity") == "1"
    module_browser.errors.clear()


@needs_browser
def test_without_a_worker_the_page_sorts_itself(browser, page, tmp_path):
    text = page.read_text(encoding="utf-8").replace("new Worker(address)", "new NoWorker(address)")
    (tmp_path / "a.html").write_text(text, encoding="utf-8")
    open_page(browser, page, "#ui=0&time=0.4")
    expected = browser.screenshot()
    open_page(browser, tmp_path / "a.html", "#ui=0&time=0.4")
    assert (browser.screenshot() == expected).all()
