"""Make the documentation's screenshots of the HTML viewer and of a live session, in a headless Chromium.

python -m eval.screenshots viewer out/demo/scene.safetensors lrm4d/scenes/demo -o docs/viewer.png
python -m eval.screenshots session out/demo/scene.safetensors lrm4d/scenes/demo -o docs/view.png
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from eval.browser import Browser, wait_for
from lrm4d.export.html import write_html
from lrm4d.export.live import serve
from lrm4d.export.live.client import keyframe_of
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.pipeline import load_inputs
from lrm4d.trajectories import parse_path
from lrm4d.views import Views

RECORDED = "arc:azimuth=-60,elevation=10 + dolly:to=2.2"


def shoot_viewer(gaussians: Gaussians4D, views: Views) -> np.ndarray:
    """The page with the input cameras around the scene, RGB [760, 1200, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "scene.html"
        write_html(page, gaussians, views, title="The demo scene")
        with Browser(page.as_uri() + "#play=1", 1200, 760) as browser:
            browser.evaluate("lrm4d.ready.then(() => true)")
            browser.press("c")
            time.sleep(4)  # the flight back to where all cameras are in the picture, and many sorts
            browser.evaluate("lrm4d.setTime(0.5)")
            browser.evaluate("lrm4d.frameReady().then(() => true)")
            return browser.screenshot()


def shoot_session(gaussians: Gaussians4D, views: Views) -> np.ndarray:
    """A live session with a recorded path and the input cameras, RGB [820, 1280, 3]."""
    session = serve(gaussians, port=0, views=views, limit=960)
    with Browser(session.url, 1280, 820) as browser:
        watcher = wait_for(lambda: next(iter(session.watchers.values()), None), 60)
        wait_for(lambda: browser.evaluate("document.querySelector('.mantine-Notification-closeButton') !== null"), 60)
        browser.evaluate("document.querySelectorAll('.mantine-Notification-closeButton').forEach(b => b.click())")
        browser.evaluate(
            "[...document.querySelectorAll('*')].findLast(e => e.innerText?.trim() == 'Camera path').click()"
        )
        cameras = parse_path(RECORDED).cameras(4, 64, 36)
        watcher.recorder.change([keyframe_of(cameras[index], index / 3) for index in range(4)])
        stand = parse_path("static:azimuth=35,elevation=25,distance=5").cameras(1, 64, 64)[0]
        watcher.stand(keyframe_of(stand, 0.5))
        time.sleep(6)  # until the picture has come in full resolution
        picture = browser.screenshot()
    session.stop()
    return picture


def main() -> None:
    """Open, look and save what is to be seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shoot = {"viewer": shoot_viewer, "session": shoot_session}
    parser.add_argument("what", choices=shoot)
    parser.add_argument("scene", type=Path, help="the scene.safetensors that `lrm4d reconstruct` wrote")
    parser.add_argument("views", type=Path, help="the scene folder, whose inputs are shown")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    picture = shoot[arguments.what](Gaussians4D.load(arguments.scene), load_inputs(arguments.views, None))
    Image.fromarray(picture).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
