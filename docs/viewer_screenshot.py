"""Make docs/viewer.png: the HTML viewer in a headless Chromium, with the input cameras around the scene.

python docs/viewer_screenshot.py out/demo/scene.safetensors lrm4d/scenes/demo -o docs/viewer.png
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser  # noqa: E402

from lrm4d.cli.view import load_inputs  # noqa: E402
from lrm4d.export.html import write_html  # noqa: E402
from lrm4d.gaussians4d import Gaussians4D  # noqa: E402

SIZE = (1200, 760)


def main() -> None:
    """Write the page, open it, show the cameras and save what is to be seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("views", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/viewer.png")
    arguments = parser.parse_args()
    views = load_inputs(arguments.views, None)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "scene.html"
        write_html(page, Gaussians4D.load(arguments.scene), views, title="The demo scene")
        with Browser(page.as_uri() + "#play=1", *SIZE) as browser:
            browser.evaluate("lrm4d.ready.then(() => true)")
            browser.press("c")
            time.sleep(4)  # the flight back to where all cameras are in the picture, and many sorts
            browser.evaluate("lrm4d.setTime(0.5)")
            browser.evaluate("lrm4d.frameReady().then(() => true)")
            Image.fromarray(browser.screenshot()).quantize(256).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
