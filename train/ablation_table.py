"""The table of train.ablations: results of runs as JSON and Markdown."""

import json
import os
import platform
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from lrm4d.checkpoint import read_json, write_text

BASE = "base"
"""The row that the others are compared with."""
SCORES = ("psnr", "psnr_object")


def write_table(
    folder: Path, table: dict[str, Any], changes: dict[str, list[str]], results: dict[str, list[Path]]
) -> dict[str, Any]:
    """Write ablations.json and ablations.md of what there is of rows' results; returns the former's content.

    changes, results: by row, what it changes and the files of its runs, one a seed. table: the Ablations.
    """
    runs = {name: [read_json(path) if path.exists() else None for path in paths] for name, paths in results.items()}
    rows = {name: {"changes": changes[name], **summarize_row(runs[name], runs[BASE])} for name in runs}
    content = {"machine": describe_machine(), "table": table, "rows": rows}
    write_text(folder / "ablations.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "ablations.md", to_markdown(content))
    return content


def summarize_row(runs: list[dict | None], bases: list[dict | None]) -> dict[str, Any]:
    """Means over the seeds that are done; gains: over the base of the same seed, with their standard deviation."""
    done = [run for run in runs if run]
    if not done:
        return {"runs": 0}
    setups = {
        setup: {score: _mean(run["scores"][setup][score] for run in done) for score in SCORES}
        for setup in done[0]["scores"]
    }
    gains = {score: _gains(runs, bases, score) for score in SCORES}
    return {
        "runs": len(done),
        "scores": setups,
        "gains": {score: _mean(values) for score, values in gains.items()},
        "deviations": {score: stdev(v) if len(v := gains[score]) > 1 else None for score in SCORES},
        "step_s": mean(run["step_s"] for run in done),
        "skipped": sum(run["skipped"] for run in done),
    }


def to_markdown(content: dict[str, Any]) -> str:
    """The table with its limits above and the set-ups below."""
    rows = content["rows"]
    lines = ["# Ablations on the procedural world", "", *_limits(content), ""]
    lines += _table(
        ["variant", "what changed", "PSNR", "object", "gain", "gain, object", "s / step"],
        [_row(name, row) for name, row in rows.items()],
    )
    setups = [setup for setup in rows[BASE].get("scores", {}) if setup != "mean"]
    lines += ["", "## PSNR / PSNR object of each set-up", ""]
    by_setup = [[name, *(_pair(row.get("scores", {}).get(setup)) for setup in setups)] for name, row in rows.items()]
    return "\n".join(lines + _table(["variant", *setups], by_setup)) + "\n"


def describe_machine() -> str:
    """Processor, number of its cores, device, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor() or platform.machine()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor}, {os.cpu_count()} cores, {device}; PyTorch {torch.__version__}"


def _limits(content: dict[str, Any]) -> list[str]:
    base, held_out = content["table"]["base"], content["table"]["held_out"]
    changed = ", ".join(f"{key} {value}" for key, value in base["model_overrides"].items())
    seeds = len(content["table"]["seeds"])
    chance = (
        f"{seeds} seeds a row; after the gain its standard deviation over them."
        if seeds > 1
        else "One seed a row: a gain that is not well above those of rows that change nothing but the seed is chance."
    )
    return [
        f"A toy: {base['model']} with {changed}; {base['steps']} steps, pictures of {held_out['size']} x "
        f"{held_out['size']}. What helps a small network in few steps need not help a large one in many, and the "
        "reverse: read the large differences, as hints.",
        "",
        f"Each row has the seed and the scenes of the base, unless it changes just these. {chance}",
        "",
        f"PSNR in dB on white, full image and inside the object's mask grown by 4 pixels: means over "
        f"{len(held_out['setups'])} set-ups of {held_out['scenes']} world scenes that no training has, "
        f"{held_out['input_views']} input and {held_out['target_views']} target views. s / step: median, data not "
        f"counted, one thread. {content['machine']}.",
    ]


def _row(name: str, row: dict[str, Any]) -> list[str]:
    changes = " ".join(f"`{change}`" for change in row["changes"]).replace("|", "\\|")
    if not row["runs"]:
        return [name, changes, "not done", "", "", "", ""]
    scores = [_number(row["scores"]["mean"][score], ".2f") for score in SCORES]
    gains = [_number(row["gains"][score], "+.2f") if name != BASE else "" for score in SCORES]
    spreads = [_number(row["deviations"][score], ".2f") if name != BASE else "" for score in SCORES]
    told = [f"{gain} ± {spread}" if spread else gain for gain, spread in zip(gains, spreads, strict=True)]
    return [name, changes, *scores, *told, f"{row['step_s']:.3f}"]


def _pair(scores: dict[str, float | None] | None) -> str:
    return " / ".join(_number(scores[score], ".2f") for score in SCORES) if scores else ""


def _gains(runs: list[dict | None], bases: list[dict | None], score: str) -> list[float]:
    pairs = [
        (run["scores"]["mean"][score], base["scores"]["mean"][score])
        for run, base in zip(runs, bases, strict=True)
        if run and base
    ]
    return [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]


def _mean(values) -> float | None:
    values = [value for value in values if value is not None]
    return mean(values) if values else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
