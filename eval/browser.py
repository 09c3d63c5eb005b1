"""A headless Chromium to open a page in, look at and click in: its debugging protocol over two pipes."""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
PATIENCE = 60
"""Seconds that any one answer may take."""


class Browser:
    """One page. Use as a context manager; the browser ends with it. errors: what the page threw or wrote as errors."""

    def __init__(self, url: str, width: int = 640, height: int = 480):
        self.url, self.size = url, (width, height)
        self.errors: list[str] = []

    def __enter__(self) -> "Browser":
        self.folder = tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True)
        self.count, self.session, self.received = 0, None, b""
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.pipes = (ours_in, ours_out)
        # It reads from descriptor 3 and writes to 4. A shell places them, because Python's own may be in use.
        shell = f'exec "$@" 3</dev/fd/{theirs_in} 4>/dev/fd/{theirs_out}'
        size = "--window-size={},{}".format(*self.size)
        self.process = subprocess.Popen(
            ["sh", "-c", shell, "sh", CHROMIUM, *FLAGS, size, f"--user-data-dir={self.folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
            env=os.environ | {"HOME": self.folder.name},
        )
        # With our copies of its ends closed, its death is an end of file and not a wait.
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Runtime", "Log", "Page"):
                self.call(f"{domain}.enable")
            self.resize(*self.size)
            self.open(self.url)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for descriptor in self.pipes:
            os.close(descriptor)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def call(self, method: str, **parameters) -> dict:
        """A command of the debugging protocol, and its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.pipes[1], data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.received:
            if not select.select([self.pipes[0]], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no answer within {PATIENCE} s")
            part = os.read(self.pipes[0], 1 << 20)
            if not part:
                raise RuntimeError(f"{CHROMIUM} ended with {self.process.wait(10)}")
            self.received += part
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        """Keep what a page says is wrong."""
        details = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            self.errors.append(thrown.get("exception", {}).get("description") or thrown["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and details["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in details["args"]))
        elif event.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(details["entry"]["text"])

    def open(self, url: str) -> None:
        """Go to another page, and wait until it is there."""
        self.call("Page.navigate", url="about:blank")  # an address that differs after the # alone would not load
        self.call("Page.navigate", url=url)
        wait_for(
            lambda: self.evaluate("location.href != 'about:blank' && document.readyState == 'complete'"), PATIENCE
        )

    def resize(self, width: int, height: int, ratio: float = 1, mobile: bool = False) -> None:
        """The window's size in CSS pixels, and how many pixels of the screen each of them has."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=mobile
        )

    def evaluate(self, script: str):
        """The value of a JavaScript expression (or of its promise)."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self) -> np.ndarray:
        """RGB [height, width, 3] of what the page shows."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        """A mouse event ("mousePressed", "mouseReleased", "mouseMoved", "mouseWheel")."""
        more = {"button": "left", "clickCount": 1} | more
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def press(self, key: str) -> None:
        """Press and release a key by its name in JavaScript ("a", " ", "ArrowLeft")."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)


def wait_for(condition, seconds: float):
    """The first true value of a condition, asked again and again; TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.05)
    return value
