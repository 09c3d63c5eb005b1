"""Make docs/view.png: a live session in a headless Chromium, with a recorded path and input cameras.

python docs/view_screenshot.py out/demo/scene.safetensors lrm4d/scenes/demo -o docs/view.png
"""

import argparse
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, wait_for  # noqa: E402

from lrm4d.cli.view import load_inputs  # noqa: E402
from lrm4d.export.live import serve  # noqa: E402
from lrm4d.export.live.client import keyframe_of  # noqa: E402
from lrm4d.gaussians4d import Gaussians4D  # noqa: E402
from lrm4d.trajectories import parse_path  # noqa: E402

SIZE = (1280, 820)
PATH = "arc:azimuth=-60,elevation=10 + dolly:to=2.2"


def main() -> None:
    """Open a session, look at it and save what is to be seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("views", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/view.png")
    arguments = parser.parse_args()
    session = serve(Gaussians4D.load(arguments.scene), port=0, views=load_inputs(arguments.views, None), limit=960)
    with Browser(session.url, *SIZE) as browser:
        watcher = wait_for(lambda: next(iter(session.watchers.values()), None), 60)
        wait_for(lambda: browser.evaluate("document.querySelector('.mantine-Notification-closeButton') !== null"), 60)
        browser.evaluate("document.querySelectorAll('.mantine-Notification-closeButton').forEach(b => b.click())")
        browser.evaluate(
            "[...document.querySelectorAll('*')].findLast(e => e.innerText?.trim() == 'Camera path').click()"
        )
        cameras = parse_path(PATH).cameras(4, 64, 36)
        keys = [keyframe_of(camera, index / 3) for index, camera in enumerate(map(cameras.__getitem__, range(4)))]
        watcher.recorder.change(keys)
        stand = parse_path("static:azimuth=35,elevation=25,distance=5").cameras(1, 64, 64)[0]
        watcher.stand(keyframe_of(stand, 0.5))
        time.sleep(6)
        Image.fromarray(browser.screenshot()).save(arguments.output, optimize=True)
    session.stop()


if __name__ == "__main__":
    main()
