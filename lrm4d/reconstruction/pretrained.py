"""Networks as folders in the Hugging Face layout: config.json, the weights and a card (README.md).

Weights are model.safetensors or, beyond 16 MB, shards with an index, model.safetensors.index.json.
"""

import json
import secrets
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from lrm4d.checkpoint import find_network, read_json, read_safetensors, write_safetensors, write_text
from lrm4d.config import make_config
from lrm4d.reconstruction.config import ModelConfig
from lrm4d.reconstruction.model import ReconstructionModel

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"
"""Where the weights that come with the package lie."""
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 16_000_000


def list_pretrained() -> list[str]:
    """The names of the networks that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def save_pretrained(model: ReconstructionModel, folder: str | Path) -> None:
    """Write config.json and the weights (bfloat16) in files of at most 16 MB, each atomically."""
    from huggingface_hub import split_torch_state_dict_into_shards

    folder = Path(folder)
    tensors = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=SHARD_BYTES)
    metadata = {"format": "pt"}
    if split.is_sharded:
        metadata["saved"] = secrets.token_hex(8)  # tells the shards of one saving from those of another
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    else:
        (folder / INDEX).unlink(missing_ok=True)
    for file, names in split.filename_to_tensors.items():
        write_safetensors(folder / file, {name: tensors[name] for name in names}, metadata)
    write_text(folder / "config.json", json.dumps(asdict(model.config), indent=2) + "\n")


def find_weight_files(folder: Path) -> list[Path]:
    """The files of a folder's weights."""
    if not (folder / INDEX).is_file():
        return [folder / "model.safetensors"]
    return [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder in float32; ValueError if its shards are not of one saving."""
    tensors, savings = {}, {}
    for path in find_weight_files(folder):
        part, metadata = read_safetensors(path)
        tensors |= {name: value.float() for name, value in part.items()}
        savings[path.name] = metadata.get("saved")
    if len(set(savings.values())) > 1:
        raise ValueError(
            f"{folder}: the shards {', '.join(savings)} are of different savings; save or fetch all again."
        )
    return tensors


def load_pretrained(name_or_folder: str | Path) -> ReconstructionModel:
    """A network by the name of shipped weights, from a folder, or from a Hugging Face hub id "owner/name".

    Float32 on the CPU, in evaluation mode. ValueError says what was found where, and what there is.
    """
    folder = find_network(str(name_or_folder), SHIPPED, "weights")
    model = ReconstructionModel(make_config(ModelConfig, read_json(folder / "config.json")))
    missing, unexpected = model.load_state_dict(_read_weights(folder), strict=False)
    if missing or unexpected:
        raise ValueError(f"{folder}: the weights do not fit config.json: missing {missing}, unexpected {unexpected}.")
    return model.eval()


def start_from_pretrained(model: ReconstructionModel, name_or_folder: str | Path) -> list[str]:
    """Copy the weights that fit by name and shape into another network; returns the names of those that it lacks."""
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in _read_weights(find_network(str(name_or_folder), SHIPPED, "weights")).items()
        if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))
