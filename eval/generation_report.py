"""The tables and the overview picture of eval/generation.py."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from eval.report import SceneScores, format_number, make_table, summarize
from lrm4d.export.contact_sheet import contact_sheet, spread

REGIONS = ("holes", "object", "seen")
EXPLANATION = (
    "Means over scenes of means over made pictures; PSNR in dB on white. holes: what the warp of the video leaves "
    "open; object: of these, what is within 4 pixels of the true object (most holes of an object on white are white); "
    "seen: the rest; the SSIM map's mean over the same. Warp on white: holes white, which is right wherever there is "
    "no object. Telea: cv2.inpaint of each picture, which is told a rim of white around it. Nearest view: the video's "
    "picture of the same moment."
)
COLUMNS = 9
"""Scenes in the overview."""


def to_markdown(scenes: Mapping[str, SceneScores], notes: Mapping[str, Any], tuned: str) -> str:
    """All tables: by region, by angle, agreement, tuning (methods whose names end in `tuned`), and each scene."""
    summary = summarize(scenes)
    angles = [group for group in summary if group != "all"]
    lines = ["# Made views", "", *(f"- {key}: {value}" for key, value in notes.items()), "", EXPLANATION, ""]
    whole = {method: scores for method, scores in summary["all"].items() if _everywhere(scenes, method)}
    names = [f"{score}_{region}" for region in REGIONS for score in ("psnr", "ssim")] + ["psnr", "ssim"]
    heads = [f"{score.upper()} {region}" for region in (*REGIONS, "full") for score in ("psnr", "ssim")]
    rows = [
        [method, *(_number(scores, name) for name in names), _number(scores, "seconds")]
        for method, scores in whole.items()
        if "psnr" in scores
    ]
    lines += make_table(["method", *heads, "s / scene"], rows)
    for region in ("object", "holes"):
        lines += ["", f"## PSNR {region} by degrees from the video", ""]
        methods = [method for method in summary[angles[0]] if _everywhere(scenes, method)]
        lines += make_table(["method", *angles], [_by_angle(summary, method, angles, region) for method in methods])
    lines += ["", "## Agreement of overlapping views", ""]
    lines += [
        "PSNR of a made view, warped by true depth, against another; in holes: only what both had to make up.",
        "",
    ]
    rows = [
        [method, _number(scores, "agreement"), _number(scores, "agreement_holes")] for method, scores in whole.items()
    ]
    lines += make_table(["method", "everywhere", "in holes"], rows)
    lines += _tuning(scenes, angles, tuned)
    lines += ["", "## Each scene: PSNR object", ""]
    methods = [method for method, scores in whole.items() if "psnr" in scores]
    rows = [[n, *(_number(s["all"][m], "psnr_object") for m in methods)] for n, s in scenes.items()]
    return "\n".join([*lines, *make_table(["scene", *methods], rows)]) + "\n"


def _tuning(scenes: Mapping[str, SceneScores], angles: list[str], tuned: str) -> list[str]:
    """With and without, on the scenes that were tuned to."""
    chosen = {name: scene for name, scene in scenes.items() if any(m.endswith(tuned) for m in scene["all"])}
    if not chosen:
        return []
    summary = summarize(chosen)
    after = next(method for method in summary["all"] if method.endswith(tuned))
    methods = ("warp on white", after.removesuffix(tuned), after)
    lines = ["", f"## Tuning, on {', '.join(chosen)}", ""]
    rows = [
        [method, region, *_by_angle(summary, method, ["all", *angles], region)[1:]]
        for region in ("object", "holes")
        for method in methods
    ]
    return lines + make_table(["method", "PSNR in", "all", *angles], rows)


def draw_overview(
    strips: Mapping[str, Float[Tensor, "3 high width"]], methods: Mapping[str, list[str]]
) -> Float[Tensor, "3 height wide"]:
    """Some scenes beside each other, a column each: the video, every method, and the truth, from the farthest view.

    methods: of each scene in the strip's order, "truth" last.
    """
    chosen = [list(strips)[index] for index in spread(len(strips), COLUMNS)]
    shared = [method for method in methods[chosen[0]] if all(method in methods[name] for name in chosen)]
    rows: dict[str, list[Tensor]] = {label: [] for label in ("video", *shared)}
    for name in chosen:
        cells = dict(zip(("video", *methods[name]), strips[name].split(strips[name].shape[-1], dim=-2), strict=True))
        for label, row in rows.items():
            row.append(cells[label])
    return contact_sheet({label: torch.stack(row) for label, row in rows.items()}, chosen)


def _everywhere(scenes: Mapping[str, SceneScores], method: str) -> bool:
    return all(method in scene["all"] for scene in scenes.values())


def _by_angle(summary: SceneScores, method: str, groups: list[str], region: str) -> list[str]:
    return [method, *(_number(summary[group].get(method, {}), f"psnr_{region}") for group in groups)]


def _number(scores: Mapping[str, float | None], name: str) -> str:
    return format_number(scores.get(name), 4 if name.startswith("ssim") else 2)
