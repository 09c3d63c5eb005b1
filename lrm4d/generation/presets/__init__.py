"""Presets: the published systems, and those of one's own, as configurations of one machine. Only YAML knows them."""

from dataclasses import dataclass, field
from pathlib import Path

from lrm4d.config import make_config
from lrm4d.generation.plans import Plan

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Preset:
    """What makes a system: the cameras that it goes to, and how it gets there. bank: see lrm4d.trajectories.banks."""

    bank: str = "fan"
    plan: Plan = field(default_factory=Plan)


def preset_names() -> list[str]:
    """Those that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name_or_file: str | Path, overrides: list[str] | None = None) -> Preset:
    """A preset by its name or from a YAML file, changed by "plan.window=9" and the like.

    ValueError names the presets there are, or the file and the key that is wrong.
    """
    file = FOLDER / f"{name_or_file}.yaml"
    if not file.is_file():
        file = Path(name_or_file)
    if not file.is_file():
        raise ValueError(f"no preset '{name_or_file}': there are {', '.join(preset_names())}; or give a YAML file.")
    return make_config(Preset, file, overrides or [])
