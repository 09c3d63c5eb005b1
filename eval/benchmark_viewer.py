"""How large the HTML viewer's files are and how long its sort takes: median and spread over frames, headless.

    python -m eval.benchmark_viewer
    python -m eval.benchmark_viewer --gaussians 20000 200000 --frames 200

Needs Chromium. Every Gaussian is visible at every time, which is the worst case; time
and camera change with every frame, and the worker of the page does the sorting, one core's work.
"""

import argparse
import base64
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import normalize

from eval.browser import CHROMIUM, Browser
from lrm4d.export.html import SOURCES, write_html
from lrm4d.export.packing import PackedGaussians, pack
from lrm4d.gaussians4d import Gaussians4D

SORT_FRAMES = """
(async () => {
  const bytes = Uint8Array.from(atob(RECORDS), (c) => c.charCodeAt(0)), records = new Uint32Array(bytes.buffer);
  const worker = new Worker(URL.createObjectURL(new Blob([SORTER], {type: "text/javascript"})));
  worker.postMessage({records, header: HEADER});
  let order = null;
  const frames = [];
  for (let k = 0; k < FRAMES; k++) {
    const angle = 0.05 * k, axis = [Math.cos(angle), Math.sin(angle), 0];
    const question = {time: 2 * ((0.01 * k) % 1) - 1, axis, offset: 3, order};
    const answer = await new Promise((resolve) => {
      worker.onmessage = ({data}) => resolve(data);
      worker.postMessage(question, order ? [order.buffer] : []);
    });
    order = answer.order;
    frames.push([answer.milliseconds, answer.found]);
  }
  worker.terminate();
  return frames;
})()
"""
WARM_UP = 20
"""Frames that do not count: the browser compiles the sort while it runs."""


@dataclass(frozen=True)
class Measurement:
    """One scene's page. Bytes of the file; milliseconds of a sort: the median, the 10th and 90th percentile."""

    gaussians: int
    visible: int
    file_bytes: int
    median: float
    low: float
    high: float


def make_scene(count: int) -> Gaussians4D:
    """A ball of small moving Gaussians that are all visible at all times; random, so that nothing compresses well."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return Gaussians4D(
        means=0.5 * draw(count, 1) ** (1 / 3) * normalize(normal(count, 3), dim=-1),
        time_means=2 * draw(count) - 1,
        scales=0.002 + 0.01 * draw(count, 3),
        time_scales=3 + draw(count),
        left_quaternions=torch.tensor([1.0, 0, 0, 0]) + 0.02 * normal(count, 4),
        right_quaternions=torch.tensor([1.0, 0, 0, 0]) + 0.02 * normal(count, 4),
        opacities=0.1 + 0.9 * draw(count),
        colors=draw(count, 3),
    )


def time_sorts(browser: Browser, packed: PackedGaussians, frames: int) -> tuple[list[float], int]:
    """Milliseconds of each sort, as the worker measures them, sorted; and how many Gaussians it found visible."""
    header = {"boxLow": packed.box_low, "boxSize": packed.box_size}
    header |= {"timeLow": packed.time_low, "timeSize": packed.time_size}
    values = {
        "RECORDS": base64.b64encode(packed.records.astype("<u4").tobytes()).decode(),
        "SORTER": (SOURCES / "sorter.js").read_text(encoding="utf-8"),
        "HEADER": header,
        "FRAMES": frames + WARM_UP,
    }
    script = SORT_FRAMES
    for name, value in values.items():
        script = script.replace(name, json.dumps(value), 1)
    answers = browser.evaluate(script)[WARM_UP:]
    return sorted(milliseconds for milliseconds, _ in answers), min(found for _, found in answers)


def main() -> None:
    """Reads the command line, measures, prints a Markdown table (or JSON)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, nargs="+", default=[20_000, 200_000], help="of each scene")
    parser.add_argument("--frames", type=int, default=100, help="sorts that count (default 100)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        parser.error("no chromium here to measure in")

    results = []
    with tempfile.TemporaryDirectory() as folder, Browser("data:text/html,<p>measuring", 64, 64) as browser:
        for count in arguments.gaussians:
            scene = make_scene(count)
            written = write_html(Path(folder) / "scene.html", scene)
            times, visible = time_sorts(browser, pack(scene), arguments.frames)
            low, high = times[len(times) // 10], times[-1 - len(times) // 10]
            results.append(Measurement(count, visible, written.bytes, statistics.median(times), low, high))
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    print("| Gaussians | visible | file MB | bytes a Gaussian | sort ms (median) | 10-90 % |")
    print("|---:|---:|---:|---:|---:|---|")
    for r in results:
        print(
            f"| {r.gaussians:,} | {r.visible:,} | {r.file_bytes / 1e6:.2f} | {r.file_bytes / r.gaussians:.1f} "
            f"| {r.median:.1f} | {r.low:.1f} - {r.high:.1f} |"
        )


if __name__ == "__main__":
    main()
