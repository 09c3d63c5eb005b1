"""Scores of many scenes as one JSON object and as Markdown tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from eval.scores import Scores, mean_scores

SceneScores = dict[str, dict[str, Scores]]
"""{protocol: {method: scores}} of one scene."""

HEADINGS = {
    "psnr": "PSNR",
    "psnr_object": "PSNR object",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "seconds": "s / scene",
}
DIGITS = {"psnr": 2, "psnr_object": 2, "ssim": 4, "lpips": 4, "seconds": 2}
REFERENCE = "nearest view"


def summarize(scenes: Mapping[str, SceneScores]) -> SceneScores:
    """{protocol: {method: mean over the scenes}}."""
    protocols = _ordered(scene.keys() for scene in scenes.values())
    summary: SceneScores = {}
    for protocol in protocols:
        having = [scene[protocol] for scene in scenes.values() if protocol in scene]
        methods = _ordered(one.keys() for one in having)
        summary[protocol] = {m: mean_scores(one[m] for one in having if m in one) for m in methods}
    return summary


def to_markdown(scenes: Mapping[str, SceneScores], notes: Mapping[str, Any]) -> str:
    """A report: the means of every protocol and method, then every scene's PSNR."""
    lines = ["# Novel views", ""]
    lines += [f"- {key}: {value}" for key, value in notes.items()]
    lines += [
        "",
        "Means over scenes of means over target pictures. PSNR in dB, full image on white; object: inside the true "
        f"silhouette grown by 4 pixels; the gains are over the baseline '{REFERENCE}'.",
        "",
    ]
    summary = summarize(scenes)
    shown = _ordered(scores.keys() for methods in summary.values() for scores in methods.values())
    heads = [HEADINGS.get(name, name) for name in shown]
    lines += make_table(
        ["protocol", "method", "scenes", *heads, "gain", "gain object"], _mean_rows(scenes, summary, shown)
    )
    for protocol, methods in summary.items():
        lines += ["", f"## {protocol}: PSNR / PSNR object of each scene", ""]
        rows = [
            [name, *(format_pair(scene[protocol].get(method, {})) for method in methods)]
            for name, scene in scenes.items()
            if protocol in scene
        ]
        lines += make_table(["scene", *methods], rows)
    return "\n".join(lines) + "\n"


def _mean_rows(scenes: Mapping[str, SceneScores], summary: SceneScores, shown: list[str]) -> list[list[str]]:
    rows = []
    for protocol, methods in summary.items():
        reference = methods.get(REFERENCE, {})
        for method, scores in methods.items():
            count = sum(method in scene.get(protocol, {}) for scene in scenes.values())
            cells = [format_number(scores.get(name), DIGITS.get(name, 3)) for name in shown]
            gains = [_gain(scores, reference, name) for name in ("psnr", "psnr_object")]
            rows.append([protocol, method, str(count), *cells, *gains])
    return rows


def _gain(scores: Scores, reference: Scores, name: str) -> str:
    ours, theirs = scores.get(name), reference.get(name)
    return "" if ours is None or theirs is None else f"{ours - theirs:+.2f}"


def format_pair(scores: Scores) -> str:
    """PSNR / PSNR object."""
    return f"{format_number(scores.get('psnr'), 2)} / {format_number(scores.get('psnr_object'), 2)}"


def format_number(value: float | None, digits: int) -> str:
    """A table's cell; empty for what there is not."""
    return "" if value is None else f"{value:.{digits}f}"


def make_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]


def _ordered(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))
