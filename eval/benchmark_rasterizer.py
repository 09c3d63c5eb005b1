"""How long the rasterizer's backends take: median and spread of forward and of forward + backward, and the ratios.

    python -m eval.benchmark_rasterizer
    python -m eval.benchmark_rasterizer --gaussians 10000 --size 64 --scenes 32 --threads 1

The PyTorch reference is timed on fewer Gaussians (--reference-gaussians), and ours again on as many for the ratio.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch.nn.functional import normalize

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.rasterizer import cpu, cuda, rasterize

FIELD_OF_VIEW = 0.8
DISTANCE = 3.0


@dataclass(frozen=True)
class Timing:
    """Milliseconds of wall time (the median, the 10th and 90th percentile) and of processor time (the median)."""

    backend: str
    gaussians: int
    what: str
    median: float
    low: float
    high: float
    processor: float


def make_scene(count: int, scenes: int, size: int, sigma: float, device: str) -> tuple[Gaussians3D, Cameras]:
    """A ball of round Gaussians of `sigma` pixels, of every opacity, each scene before one camera."""
    generator = torch.Generator().manual_seed(0)
    means = 0.35 * torch.randn(scenes, count, 3, generator=generator)
    focal = 0.5 * size / math.tan(FIELD_OF_VIEW / 2)
    variance = (sigma * DISTANCE / focal) ** 2
    covariances = (variance * torch.tensor([1.0, 0, 0, 1, 0, 1])).expand(scenes, count, 6).contiguous()
    opacities = 0.05 + 0.9 * torch.rand(scenes, count, generator=generator)
    colors = torch.rand(scenes, count, 3, generator=generator)
    gaussians = Gaussians3D(*(x.to(device) for x in (means, covariances, opacities, colors)))
    origins = DISTANCE * normalize(torch.randn(scenes, 1, 3, generator=generator), dim=-1)
    intrinsics = intrinsics_from_fov(FIELD_OF_VIEW, size, size).expand(scenes, 1, 3, 3)
    return gaussians, Cameras(look_at(origins, torch.zeros(3)), intrinsics, size, size).to(device)


def measure(run: Callable[[], object], repeats: int, device: str) -> tuple[list[float], float]:
    """Milliseconds of wall time of each run, sorted, and the median of processor time; two warm-up runs do not count.

    Processor time adds up the threads; it tells more than wall time on a machine that others use too.
    """
    walls, processors = [], []
    for _ in range(repeats + 2):
        start, start_processor = time.perf_counter(), time.process_time()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        walls.append(1e3 * (time.perf_counter() - start))
        processors.append(1e3 * (time.process_time() - start_processor))
    return sorted(walls[2:]), statistics.median(processors[2:])


def time_backend(backend: str, count: int, arguments: argparse.Namespace, repeats: int) -> list[Timing]:
    """Forward without gradients, then forward + backward of the image to means, covariances, opacities and colors."""
    device = "cuda" if backend == "cuda" else "cpu"
    gaussians, cameras = make_scene(count, arguments.scenes, arguments.size, arguments.sigma, device)
    background = torch.ones(3, device=device)
    leaves = [
        x.clone().requires_grad_()
        for x in (gaussians.means, gaussians.covariances, gaussians.opacities, gaussians.colors)
    ]
    weights = torch.randn(*cameras.shape, 3, cameras.height, cameras.width, device=device)

    def forward() -> None:
        with torch.no_grad():
            rasterize(gaussians, cameras, background, backend=backend)

    def both() -> None:
        image = rasterize(Gaussians3D(*leaves), cameras, background, backend=backend).image
        torch.autograd.grad(image, leaves, weights)

    timings = []
    for what, run in (("forward", forward), ("forward + backward", both)):
        times, processor = measure(run, repeats, device)
        low, high = times[len(times) // 10], times[-1 - len(times) // 10]
        timings.append(Timing(backend, count, what, statistics.median(times), low, high, processor))
    return timings


def print_table(timings: list[Timing]) -> None:
    """A Markdown table; the ratio is to our CPU operator on as many Gaussians."""
    print("| backend | Gaussians | what | ms (median) | 10-90 % | processor ms | times ours |")
    print("|---|---:|---|---:|---|---:|---:|")
    ours = {(t.gaussians, t.what): t.median for t in timings if t.backend == "cpu"}
    for t in timings:
        ours_here = ours.get((t.gaussians, t.what))
        ratio = f"{t.median / ours_here:.3g}" if ours_here else "-"
        spread = f"{t.low:.1f} - {t.high:.1f}"
        print(
            f"| {t.backend} | {t.gaussians:,} | {t.what} | {t.median:.1f} | {spread} | {t.processor:.1f} | {ratio} |"
        )


def main() -> None:
    """Reads the command line, times what is installed, prints a table (or JSON)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=200_000, help="a scene's number (default 200000)")
    parser.add_argument("--reference-gaussians", type=int, default=5_000, help="for the reference; 0 leaves it out")
    parser.add_argument("--scenes", type=int, default=1, help="scenes in one call, one view each (default 1)")
    parser.add_argument("--size", type=int, default=256, help="width and height of the picture (default 256)")
    parser.add_argument("--sigma", type=float, default=1.0, help="a Gaussian's deviation in pixels (default 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (default: its own)")
    parser.add_argument("--repeats", type=int, default=20, help="runs counted (default 20; the reference gets 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    timings = []
    if cpu.is_available():
        timings += time_backend("cpu", arguments.gaussians, arguments, arguments.repeats)
    if torch.cuda.is_available() and cuda.is_available():
        timings += time_backend("cuda", arguments.gaussians, arguments, arguments.repeats)
    if arguments.reference_gaussians:
        if cpu.is_available():
            timings += time_backend("cpu", arguments.reference_gaussians, arguments, arguments.repeats)
        timings += time_backend("reference", arguments.reference_gaussians, arguments, 3)
    if arguments.json:
        print(json.dumps([asdict(t) for t in timings], indent=2))
        return
    print(f"{arguments.scenes} x {arguments.size}^2 pixels, {arguments.threads} threads\n")
    print_table(timings)


if __name__ == "__main__":
    main()
