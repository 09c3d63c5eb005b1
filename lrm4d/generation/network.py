"""The small inpainter's network: a Wan transformer on pixels that predicts the clean picture.

It predicts pictures, not velocities, because a small network with large patches cannot carry noise through its width
(Li and He, arXiv 2511.13720), and it starts as a copy of the warp. It has two answers for each pixel, what fills holes
and what to change where the warp shows something, and the visibility chooses: so tokens need not carry it.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lrm4d.cameras import Cameras, plucker_rays
from lrm4d.checkpoint import find_network, read_json, read_safetensors, write_safetensors, write_text
from lrm4d.config import make_config
from lrm4d.generation.flow import condition_warp, warp_noise_level
from lrm4d.generation.layout import TokenLayout
from lrm4d.generation.transformer import ViewTransformer

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "inpainters"
"""Where the weights that come with the package lie."""
CAMERA_CHANNELS = {"rays": 6, "pose": 12}


@dataclass(frozen=True)
class NanoConfig:
    """The network's shape and its switches.

    width, heads, layers, mlp_ratio: the transformer; width / heads is even and at least 6. patch: pixels.
    words, text_width: learned tokens that take the place of a text. frequencies: of the noise level's embedding.
    cameras: "rays" (Pluecker rays of pixels, averaged in each patch) or "pose" (12 numbers a picture).
    extent: rows and columns of patches up to which it is trained; positions in larger pictures are squeezed into them.
    noise_adaptive: noise the warp by its coverage, as SEE4D and See3D do, see `condition_warp`.
    """

    width: int = 256
    heads: int = 4
    layers: int = 6
    mlp_ratio: int = 4
    patch: int = 8
    words: int = 2
    text_width: int = 32
    frequencies: int = 128
    cameras: str = "rays"
    extent: int = 16
    noise_adaptive: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width // self.heads % 2 or self.width // self.heads < 6:
            raise ValueError(f"width {self.width} for {self.heads} heads: width / heads must be even and at least 6.")
        if self.cameras not in CAMERA_CHANNELS:
            raise ValueError(f"cameras {self.cameras!r}: expected one of {', '.join(CAMERA_CHANNELS)}.")


@dataclass(frozen=True)
class Conditions:
    """What a sequence is made from: one picture for each slot that is no warp slot (`TokenLayout.shown`).

    images: in [-1, 1]: finished pictures for source and context slots, warps for targets; 0 where nothing is seen.
    visibility: 1 = seen. cameras: channels for the transformer, see `camera_channels`.
    noise: standard normal, what warps are noised with where the network wants that.
    """

    images: Float[Tensor, "batch picture 3 height width"]
    visibility: Float[Tensor, "batch picture 1 height width"]
    cameras: Float[Tensor, "batch picture camera height width"]
    noise: Float[Tensor, "batch picture 3 height width"]


class InpaintingNetwork(nn.Module):
    """Noisy targets and what is given -> clean targets.

    bf16: run the layers under autocast to bfloat16.
    """

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.config = config
        wan = WanTransformer3DModel(
            patch_size=(1, config.patch, config.patch),
            num_attention_heads=config.heads,
            attention_head_dim=config.width // config.heads,
            in_channels=7,  # noisy or given picture, warp, visibility
            out_channels=6,  # what fills holes, and changes to the warp
            text_dim=config.text_width,
            freq_dim=config.frequencies,
            ffn_dim=config.width * config.mlp_ratio,
            num_layers=config.layers,
        )
        nn.init.zeros_(wan.proj_out.weight)
        nn.init.zeros_(wan.proj_out.bias)
        self.transformer = ViewTransformer(wan, CAMERA_CHANNELS[config.cameras], config.extent)
        self.bf16 = False
        self.text = nn.Embedding(2, config.words * config.text_width)

    def condition(
        self,
        layout: TokenLayout,
        images: Float[Tensor, "batch picture 3 height width"],
        visibility: Bool[Tensor, "batch picture 1 height width"],
        cameras: Cameras,
        generator: torch.Generator,
    ) -> Conditions:
        """Conditions from images in [0, 1], where they are seen, and cameras [batch, picture] of their size.

        Cameras are told relative to the first source or context picture's, so the world's axes do not matter.
        """
        seen = visibility.to(images.dtype)
        first = next((index for index, slot in enumerate(layout.shown) if slot.clean), 0)
        channels = camera_channels(relative_to(cameras, first), self.config.cameras)
        noise = torch.randn(images.shape, generator=generator).to(images)
        return Conditions((images * 2 - 1) * seen, seen, channels.to(images), noise)

    def forward(
        self,
        layout: TokenLayout,
        noisy: Float[Tensor, "batch target 3 height width"],
        level: Float[Tensor, "batch"],
        conditions: Conditions,
        dropped: Bool[Tensor, "batch"],
    ) -> Float[Tensor, "batch target 3 height width"]:
        """The clean targets in [-1, 1] that noisy ones at a noise level in [0, 1] come from.

        dropped: make these without their warps, as guidance's free direction.
        """
        pictures, targets = layout.pictures(), layout.targets
        images, visible, warp_level = self._given(layout, noisy, level, conditions, dropped)
        shown = images[:, pictures].index_copy(1, torch.tensor(targets, device=noisy.device), noisy)
        beside = ~layout.warps_apart().to(noisy.device)[:, None, None, None]
        inputs = torch.cat([shown, images[:, pictures] * beside, visible[:, pictures] * beside], dim=2)
        levels = layout.noise_levels(level, warp_level[:, pictures])
        cameras = conditions.cameras[:, pictures]
        text = self.text(dropped.long()).unflatten(1, (self.config.words, -1))
        tokens = layout.resize(*(size // self.config.patch for size in noisy.shape[-2:]))
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.bf16):
            answer = self.transformer(tokens, inputs, levels, cameras, text)[:, targets]
        fill, change = answer.to(noisy).chunk(2, dim=2)
        warp, seen = (values[:, _targets_among_shown(layout)] for values in (images, visible))
        return fill * (1 - seen) + (warp + change) * seen

    def _given(
        self, layout: TokenLayout, noisy: Tensor, level: Tensor, conditions: Conditions, dropped: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pictures and their visibility as the network is to see them, and the warps' noise levels."""
        clean = torch.tensor([slot.clean for slot in layout.shown], device=noisy.device)
        kept = (clean | ~dropped[:, None])[:, :, None, None, None]
        images, visible = conditions.images * kept, conditions.visibility * kept
        if not self.config.noise_adaptive:
            return images, visible, torch.zeros_like(visible[:, :, 0, 0, 0])
        targets = _targets_among_shown(layout)
        states = images.index_copy(1, torch.tensor(targets, device=noisy.device), noisy)
        coverage = visible.mean(dim=(2, 3, 4))
        levels = level[:, None].expand_as(coverage)
        noised = condition_warp(images, states, conditions.noise, levels, coverage)
        return torch.where(clean[:, None, None, None], images, noised), visible, warp_noise_level(levels, coverage)


def _targets_among_shown(layout: TokenLayout) -> list[int]:
    return [index for index, slot in enumerate(layout.shown) if slot.target]


def relative_to(cameras: Cameras, index: int) -> Cameras:
    """The same cameras [batch, picture] in the axes of one of each batch entry."""
    world_to_first = cameras[:, index].world_to_camera[:, None]
    return replace(cameras, camera_to_world=world_to_first @ cameras.camera_to_world)


def camera_channels(cameras: Cameras, kind: str) -> Float[Tensor, "*batch camera height width"]:
    """What tells a transformer the cameras, at their pictures' size: the 6 Pluecker coordinates of each pixel's ray
    ("rays") or the upper 12 numbers of camera_to_world, the same everywhere ("pose")."""
    if kind == "rays":
        return plucker_rays(*cameras.rays()).movedim(-1, -3)
    poses = cameras.camera_to_world[..., :3, :].flatten(-2)
    return poses[..., None, None].expand(*poses.shape, cameras.height, cameras.width)


def save_network(network: InpaintingNetwork, folder: str | Path) -> None:
    """Write config.json and model.safetensors (bfloat16), each atomically."""
    tensors = {name: value.to(torch.bfloat16) for name, value in network.state_dict().items()}
    write_safetensors(Path(folder) / "model.safetensors", tensors, {"format": "pt"})
    write_text(Path(folder) / "config.json", json.dumps(asdict(network.config), indent=2) + "\n")


def load_network(name_or_folder: str | Path) -> InpaintingNetwork:
    """A network by the name of shipped weights, from a folder, or from a Hugging Face hub id "owner/name".

    Float32 on the CPU, in evaluation mode. ValueError says what was found where, and what there is.
    """
    folder = find_network(str(name_or_folder), SHIPPED, "inpainter")
    network = InpaintingNetwork(make_config(NanoConfig, read_json(folder / "config.json")))
    weights = {name: value.float() for name, value in read_safetensors(folder / "model.safetensors")[0].items()}
    own = network.state_dict()
    wrong = sorted(
        name
        for name in own.keys() | weights
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    )
    if wrong:
        raise ValueError(
            f"{folder}: the weights do not fit config.json: {', '.join(wrong[:5])}; is it another network's?"
        )
    network.load_state_dict(weights)
    return network.eval()
