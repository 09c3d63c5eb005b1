"""Networks as folders in the Hugging Face layout: config.json, model.safetensors and a card (README.md)."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from lrm4d.checkpoint import read_json, read_safetensors, write_safetensors, write_text
from lrm4d.config import make_config
from lrm4d.reconstruction.config import ModelConfig
from lrm4d.reconstruction.model import ReconstructionModel

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"
"""Where the weights that come with the package lie."""


def list_pretrained() -> list[str]:
    """The names of the networks that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def save_pretrained(model: ReconstructionModel, folder: str | Path) -> None:
    """Write config.json and model.safetensors (bfloat16), each atomically."""
    folder = Path(folder)
    tensors = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_text(folder / "config.json", json.dumps(asdict(model.config), indent=2) + "\n")


def load_pretrained(name_or_folder: str | Path) -> ReconstructionModel:
    """A network by the name of shipped weights, from a folder, or from a Hugging Face hub id "owner/name".

    Float32 on the CPU, in evaluation mode. ValueError says what was found where, and what there is.
    """
    folder = _find(str(name_or_folder))
    model = ReconstructionModel(make_config(ModelConfig, read_json(folder / "config.json")))
    tensors, _ = read_safetensors(folder / "model.safetensors")
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    if missing or unexpected:
        raise ValueError(f"{folder}: the weights do not fit config.json: missing {missing}, unexpected {unexpected}.")
    return model.eval()


def start_from_pretrained(model: ReconstructionModel, name_or_folder: str | Path) -> list[str]:
    """Copy the weights that fit by name and shape into another network; returns the names of those that it lacks."""
    tensors, _ = read_safetensors(_find(str(name_or_folder)) / "model.safetensors")
    own = model.state_dict()
    fitting = {
        name: value.float() for name, value in tensors.items() if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def _find(name: str) -> Path:
    for folder in (SHIPPED / name, Path(name)):
        if (folder / "config.json").is_file():
            return folder
    if name.count("/") == 1 and not Path(name).exists():
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    raise ValueError(
        f"no weights called {name!r}: give one of {', '.join(list_pretrained()) or 'none shipped'}, "
        "a folder with config.json and model.safetensors, or a hub id owner/name."
    )
