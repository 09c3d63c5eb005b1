r"""Write a larger network that computes what a trained one does, to train it on: python -m train.grow NET -o FOLDER.

    python -m train.grow nano -o runs/grown width=512 layers=12
    python -m train.reconstruction CONFIG -o runs/medium start_from=runs/grown \
        model_overrides.width=512 model_overrides.layers=12

Wider (Chen et al., "Net2Net", arXiv 1511.05641): k copies of every channel, head and hidden unit, and what reads them
gives each copy a share of its weight. Deeper: blocks that add nothing yet, because what they write with is zero; each
stands behind about as many old ones, as in LLaMA Pro (arXiv 2401.02415).
"""

import argparse
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lrm4d.config import make_config
from lrm4d.reconstruction import ReconstructionModel
from lrm4d.reconstruction.pretrained import load_pretrained, save_pretrained

UNEVENNESS = 0.5
"""Of the shares. Equal ones would give copies equal gradients, so that they stayed one channel for ever."""
BFLOAT16_BITS = 8


@dataclass
class Growth:
    """What may grow; nothing else can without changing what is computed."""

    width: int
    layers: int


def grow(model: ReconstructionModel, width: int, layers: int, seed: int = 0) -> ReconstructionModel:
    """A network of this width (a multiple of the model's) and as many layers or more that gives the same Gaussians."""
    _check(model, width, layers)
    old = model.config.layers
    places = [place * layers // old for place in range(old)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grown = ReconstructionModel(replace(model.config, width=width, layers=layers)).train(model.training)
        widened = widen(model, width // model.config.width)
    state = {_move(name, places): value for name, value in widened.items()}
    grown.to(next(model.parameters())).load_state_dict(grown.state_dict() | state)
    for place in set(range(layers)) - set(places):
        silence(grown.transformer.blocks[place])
    return grown


def _check(model: ReconstructionModel, width: int, layers: int) -> None:
    now = model.config
    if width < now.width or width % now.width:
        raise ValueError(
            f"width {width}: channels are copied all together, so a width of {now.width} can become "
            f"{now.width} (as it is), {2 * now.width}, {3 * now.width} and so on."
        )
    if layers < now.layers:
        raise ValueError(f"layers {layers}: layers are only added, so it can be {now.layers} (as it is) or more.")


def widen(model: ReconstructionModel, factor: int) -> dict[str, Tensor]:
    """The model's weights with `factor` copies, end to end, of everything whose number is a multiple of the width."""
    wide = replace(model.config, width=factor * model.config.width)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in ReconstructionModel(wide).state_dict().items()}
    layers = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    widened = {}
    for name, value in model.state_dict().items():
        copies = [new // old for new, old in zip(shapes[name], value.shape, strict=True)]
        if name.endswith("to_qkv.weight"):  # copies of heads, within queries, keys and values
            value = value.unflatten(0, (3, -1)).repeat(1, *copies).flatten(0, 1)
        else:
            value = value.repeat(copies)
        widened[name] = share(value, copies[1]) if name in layers else value
    return widened


def share(weight: Tensor, copies: int) -> Tensor:
    """Split what a layer reads, in `copies` equal parts side by side, at random so that they sum to one part.

    Every weight is split on its own: shares alike over a column would make gradients of copies proportional, which
    AdamW does not tell apart. Shares are whole steps of the weight's last bfloat16 digit, so that saving a grown
    network rounds no more than saving the network does.
    """
    weight = weight.unflatten(1, (copies, -1))
    whole = weight[:, 0]
    step = torch.ldexp(torch.ones_like(whole), torch.frexp(whole).exponent - BFLOAT16_BITS)
    shares = 1 + UNEVENNESS * (2 * torch.rand(weight.shape, device=weight.device) - 1)
    shares = shares / shares.sum(dim=1, keepdim=True)
    parts = (shares * weight / step[:, None]).round()[:, 1:] * step[:, None]
    return torch.cat([(whole - parts.sum(dim=1))[:, None], parts], dim=1).flatten(1)


def silence(block: nn.Module) -> None:
    """Make a block add nothing; it learns all the same, first what it writes with."""
    for layer in (block.attention.to_out, block.mlp[2]):
        nn.init.zeros_(layer.weight)


def _move(name: str, places: list[int]) -> str:
    """The name of a weight of a block, where the block now stands."""
    parts = name.split(".")
    if parts[:2] == ["transformer", "blocks"]:
        parts[2] = str(places[int(parts[2])])
    return ".".join(parts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="a name of shipped weights, or a folder with config.json and the weights")
    parser.add_argument("-o", "--output", required=True, help="the folder to write")
    parser.add_argument("changes", nargs="+", help="width=W, layers=L")
    arguments = parser.parse_intermixed_args()
    model = load_pretrained(arguments.network)
    now = {"width": model.config.width, "layers": model.config.layers}
    growth = make_config(Growth, now, arguments.changes)
    save_pretrained(grow(model, growth.width, growth.layers), arguments.output)


if __name__ == "__main__":
    main()
