"""The curves of eval.refinement as tables and as a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.scores import mean_scores
from lrm4d.checkpoint import atomic_path

NAMES = {
    "network": "network alone",
    "refined": "network, then refined",
    "scratch": "4D Gaussian splatting from scratch",
}
COLORS = {"network": "#888888", "refined": "#c0392b", "scratch": "#2c6fbb"}
COLUMNS = ("network", "corrected", "fits, mean", "one blended", "all blended", "from scratch")
HIGHLIGHT = 2.0
"""Decibels that a refinement should add."""


def mean_curves(scenes: Mapping[str, dict]) -> dict[str, list[dict[str, float]]]:
    """{curve: points}, each the mean over the scenes; a scene that ended early counts with its end from then on."""
    curves: dict[str, list[dict[str, float]]] = {}
    for name in NAMES:
        longest = max((len(scene[name]) for scene in scenes.values()), default=0)
        columns = [[scene[name][min(i, len(scene[name]) - 1)] for scene in scenes.values()] for i in range(longest)]
        curves[name] = [mean_scores(column) for column in columns]
    return curves


def to_markdown(scenes: Mapping[str, dict], notes: Mapping[str, Any]) -> str:
    """A report: the mean curves, what they say, and every scene's ends."""
    curves = mean_curves(scenes)
    lines = ["# Refinement", "", *(f"- {key}: {value}" for key, value in notes.items()), f"- scenes: {len(scenes)}"]
    lines += ["", *_conclusions(scenes, curves), ""]
    lines += ["| method | seconds | PSNR | PSNR object | SSIM |", "| --- | --- | --- | --- | --- |"]
    for name, points in curves.items():
        lines += [
            f"| {NAMES[name]} | {p['seconds']:.1f} | {p['psnr']:.2f} | {p['psnr_object']:.2f} | {p['ssim']:.4f} |"
            for p in points
        ]
    lines += ["", "## PSNR / PSNR object of each scene at the end", ""]
    lines += [f"| scene | {' | '.join(COLUMNS)} | seconds | gain |", f"|{' --- |' * (len(COLUMNS) + 3)}"]
    ends = {name: _ends(scene) for name, scene in scenes.items()}
    ends["mean"] = {column: mean_scores(end[column] for end in ends.values()) for column in COLUMNS}
    for name, end in ends.items():
        points = " | ".join(_pair(end[column]) for column in COLUMNS)
        gain = end["all blended"]["psnr"] - end["network"]["psnr"]
        lines.append(f"| {name} | {points} | {end['all blended']['seconds']:.1f} | {gain:+.2f} |")
    return "\n".join(lines) + "\n"


def _conclusions(scenes: Mapping[str, dict], curves: dict[str, list[dict[str, float]]]) -> list[str]:
    gains = [scene["refined"][-1]["psnr"] - scene["network"][-1]["psnr"] for scene in scenes.values()]
    network, scratch = curves["network"][-1], curves["scratch"]
    equal = next((point["seconds"] for point in scratch if point["psnr"] >= network["psnr"]), None)
    reached = (
        f"reaches the network's quality after {equal:.1f} s, {equal / network['seconds']:.0f} times its time"
        if equal is not None
        else f"does not reach the network's quality in {scratch[-1]['seconds']:.0f} s, "
        f"{scratch[-1]['seconds'] / network['seconds']:.0f} times its time"
    )
    enough, lost = sum(gain >= HIGHLIGHT for gain in gains), sum(gain < 0 for gain in gains)
    return [
        f"- refinement adds {sum(gains) / len(gains):+.2f} dB in {curves['refined'][-1]['seconds']:.1f} s, from "
        f"{min(gains):+.2f} to {max(gains):+.2f}; {enough} of {len(gains)} scenes gain {HIGHLIGHT:g} dB, {lost} lose",
        f"- from scratch {reached}",
    ]


def _ends(scene: Mapping[str, list]) -> dict[str, dict]:
    network, corrected, *blends = scene["refined"]
    first, last = (blends[0], blends[-1]) if blends else (corrected, corrected)
    fits = mean_scores(scene["fits"]) if blends else corrected
    return dict(zip(COLUMNS, (network, corrected, fits, first, last, scene["scratch"][-1]), strict=True))


def _pair(point: Mapping[str, float]) -> str:
    return f"{point['psnr']:.2f} / {point['psnr_object']:.2f}"


def draw_curves(scenes: Mapping[str, dict], path: Path) -> None:
    """PSNR against seconds, the means in thick lines and each scene's in thin ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    last = max(point["seconds"] for scene in scenes.values() for point in (*scene["refined"], *scene["scratch"]))
    for name, points in mean_curves(scenes).items():
        for scene in scenes.values():
            _draw(axes, scene[name], last, color=COLORS[name], alpha=0.18, linewidth=0.8)
        _draw(axes, points, last, color=COLORS[name], linewidth=2.5, label=NAMES[name], marker="o", markersize=4)
    axes.set(xscale="log", xlabel="seconds", ylabel="PSNR on unseen views, dB", title=f"{len(scenes)} scenes")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    pyplot.close(figure)


def _draw(axes: Any, points: list[dict[str, float]], last: float, **style: Any) -> None:
    seconds, decibels = [p["seconds"] for p in points], [p["psnr"] for p in points]
    if len(points) == 1:  # the network's answer stays what it is
        seconds, decibels = [seconds[0], last], decibels * 2
    axes.plot(seconds, decibels, **style)
