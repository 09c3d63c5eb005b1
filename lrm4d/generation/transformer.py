"""diffusers' Wan transformer on a TokenLayout: its positions, noise levels and attention mask, and its cameras.

The class and its weights stay diffusers' (`WanTransformer3DModel`); what is replaced are `rope`, the processors of the
self-attention and the patch embedding, none of which changes what a pretrained model computes on a plain video.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from diffusers import ModelMixin, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from jaxtyping import Complex, Float
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import avg_pool3d, scaled_dot_product_attention

from lrm4d.checkpoint import read_safetensors, write_safetensors
from lrm4d.generation.layout import ROLES, TokenLayout, attention_mask

TIMESTEPS = 1000
"""Noise level 1 as the transformer counts it."""
ROTARY_BASE = 10000.0


def rotations(positions: Float[Tensor, "token 3"], head_width: int) -> Complex[Tensor, "token pair"]:
    """Unit complex numbers by which pairs of a head's channels are turned, as in WanRotaryPosEmbed: two sixths of the
    channels by the row, two by the column, the rest by the time, with frequencies 10000^(-2i/n)."""
    spatial = 2 * (head_width // 6)
    angles = [
        positions[:, axis, None] * ROTARY_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        for axis, width in enumerate((head_width - 2 * spatial, spatial, spatial))
    ]
    angle = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


class LayoutRotary(nn.Module):
    """Takes the place of the transformer's `rope`: gives each block the rotations and the mask of `layout`.

    extent: rows and columns that the transformer knows. In larger pictures these positions are squeezed into as many
    (position interpolation, arXiv 2306.15595): it knows what lies between two places, but not what is farther off.
    """

    def __init__(self, head_width: int, extent: int | None = None):
        super().__init__()
        self.head_width, self.extent = head_width, extent
        self.layout: TokenLayout | None = None

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor | BlockMask | None]:
        """Rotations [token, 1, pair] and attention mask, on the latents' device."""
        positions = self.layout.positions().double()
        most = max(self.layout.rows, self.layout.columns)
        if self.extent is not None and most > self.extent:
            positions[:, 1:] *= (self.extent - 1) / (most - 1)
        turns = rotations(positions, self.head_width)
        return turns[:, None].to(latents.device), attention_mask(self.layout, latents.device)


class LayoutProcessor(WanAttnProcessor):
    """Self-attention that takes the mask beside the rotations; cross-attention stays diffusers' own."""

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor | BlockMask | None] | None = None,
    ) -> Tensor:
        """Mix hidden states [batch, token, width]."""
        if rotary_emb is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        turns, mask = rotary_emb
        exact = attn.norm_q.weight.dtype  # float32 under autocast, whose bfloat16 the kernels do not take here
        queries, keys = attn.to_q(hidden_states).to(exact), attn.to_k(hidden_states).to(exact)
        queries = _rotate(attn.norm_q(queries).unflatten(2, (attn.heads, -1)), turns)
        keys = _rotate(attn.norm_k(keys).unflatten(2, (attn.heads, -1)), turns)
        values = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        mixed = _attend(*(x.transpose(1, 2) for x in (queries, keys, values.type_as(queries))), mask)
        return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2).type_as(hidden_states)))


def _rotate(states: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(states)


@cache
def _compile_flex_attention() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | BlockMask | None) -> Tensor:
    """Attention [batch, head, token, channel] by the kernel that the mask is for."""
    if isinstance(mask, BlockMask):
        return _compile_flex_attention()(queries, keys, values, block_mask=mask)
    if queries.is_cuda:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):  # attention in bfloat16 is slower there than in float32
        return scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


class SharedTimes(nn.Module):
    """Takes the place of the transformer's `condition_embedder`: what it makes of a noise level is made once for each
    level there is and not for each token, which costs as much as a third of a block and far more memory."""

    def __init__(self, embedder: nn.Module):
        super().__init__()
        self.embedder = embedder

    def forward(
        self, timestep: Tensor, text: Tensor, image: Tensor | None = None, timestep_seq_len: int | None = None
    ) -> tuple[Tensor | None, ...]:
        """As WanTimeTextImageEmbedding; timestep: [batch * token] where timestep_seq_len is given, else [batch]."""
        if timestep_seq_len is None:
            return self.embedder(timestep, text, image)
        levels, index = timestep.unique(return_inverse=True)
        time, modulation, *others = self.embedder(levels, text, image)
        index = index.unflatten(0, (-1, timestep_seq_len))
        return time[index], modulation[index], *others


class ConditionedPatches(nn.Module):
    """Takes the place of `patch_embedding`: the channels behind the latents are averaged in each patch and added to
    its token through a linear layer that starts at zero, so that a pretrained model is the same with it."""

    def __init__(self, embedding: nn.Conv3d, condition_channels: int):
        super().__init__()
        self.embedding = embedding
        self.to_token = nn.Linear(condition_channels, embedding.out_channels)
        nn.init.zeros_(self.to_token.weight)
        nn.init.zeros_(self.to_token.bias)

    def forward(self, latents: Float[Tensor, "batch channel slot height width"]) -> Tensor:
        """Tokens [batch, width, slot, row, column]."""
        images, conditions = latents.split([self.embedding.in_channels, self.to_token.in_features], dim=1)
        averages = avg_pool3d(conditions, self.embedding.kernel_size).movedim(1, -1)
        return self.embedding(images) + self.to_token(averages.to(images.dtype)).movedim(-1, 1)


class ViewTransformer(nn.Module):
    """A Wan transformer over the slots of a TokenLayout, conditioned on cameras and roles.

    wan: changed in place (see the module); its patch size must be (1, p, p). camera_channels: 6 for the Pluecker
    rays of pixels, 12 for poses. extent: rows and columns of patches that it knows, see LayoutRotary.
    """

    def __init__(self, wan: WanTransformer3DModel, camera_channels: int, extent: int | None = None):
        super().__init__()
        wan.rope = LayoutRotary(wan.config.attention_head_dim, extent)
        wan.condition_embedder = SharedTimes(wan.condition_embedder)
        wan.patch_embedding = ConditionedPatches(wan.patch_embedding, camera_channels + len(ROLES))
        for block in wan.blocks:
            block.attn1.set_processor(LayoutProcessor())
        self.wan = wan

    def forward(
        self,
        layout: TokenLayout,
        latents: Float[Tensor, "batch slot channel height width"],
        noise_levels: Float[Tensor, "batch slot"],
        cameras: Float[Tensor, "batch slot camera height width"],
        text: Float[Tensor, "batch word text_width"],
    ) -> Float[Tensor, "batch slot out height width"]:
        """What the model predicts for every slot.

        latents: what each slot shows, with any channels the model has beside (warp, mask). noise_levels: in [0, 1].
        cameras: at the latents' size.
        """
        roles = layout.roles().to(latents)[None, :, :, None, None]
        roles = roles.expand(len(latents), -1, -1, *latents.shape[-2:])
        inputs = torch.cat([latents, cameras.to(latents), roles], dim=2).transpose(1, 2)
        self.wan.rope.layout = layout
        timesteps = layout.per_token(noise_levels) * TIMESTEPS
        return self.wan(inputs, timesteps, text, return_dict=False)[0].transpose(1, 2)


def widen_input(wan: WanTransformer3DModel, channels: int) -> None:
    """Let a transformer take more latent channels (a warp, a mask), in place; the new weights are zero, so what it
    computes from the old channels stays."""
    old = wan.patch_embedding
    if channels < old.in_channels:
        raise ValueError(f"the transformer takes {old.in_channels} channels already; {channels} would be fewer.")
    new = nn.Conv3d(channels, old.out_channels, old.kernel_size, old.stride).to(old.weight)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    wan.patch_embedding = new
    wan.register_to_config(in_channels=channels)


LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that are adapted: the projections of self- and cross-attention, as in Wan's own tuning scripts."""


def add_lora(transformer: ModelMixin, rank: int = 128) -> list[nn.Parameter]:
    """Freeze a diffusers transformer and add low-rank layers that change nothing yet; returns what is to be trained.

    EasyCreator tunes with rank 128. ValueError if it has such layers already.
    """
    if getattr(transformer, "peft_config", None):
        raise ValueError("the transformer has LoRA layers already; load or train those, or start from fresh weights.")
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_TARGETS)))
    return [parameter for parameter in transformer.parameters() if parameter.requires_grad]


def save_lora(transformer: ModelMixin, path: str | Path) -> None:
    """Write the low-rank layers as safetensors in diffusers' naming, atomically; the alpha is the rank."""
    state = get_peft_model_state_dict(transformer)
    write_safetensors(path, {f"transformer.{name}": value for name, value in state.items()}, {"format": "pt"})


LORA_FILES = ("lora.safetensors", "pytorch_lora_weights.safetensors")


def find_lora(path: str | Path) -> Path:
    """The file of low-rank layers: itself, or that in a folder; ValueError if there is none."""
    path = Path(path)
    found = [file for file in (path, *(path / name for name in LORA_FILES)) if file.is_file()]
    if not found:
        unfinished = (
            " (its tuning is not finished: give the same `lrm4d tune` again)" if (path / "tune.json").exists() else ""
        )
        raise ValueError(f"{path}: no low-rank layers{unfinished}; expected a file, or a folder with {LORA_FILES[0]}.")
    return found[0]


def load_lora(transformer: ModelMixin, path: str | Path, weight: float = 1.0) -> None:
    """Add low-rank layers to a transformer without any, at a weight (EasyCreator samples at 0.7).

    path: a file, or a folder that has it as `lrm4d tune` (lora.safetensors) or diffusers (LORA_FILES) name it.
    ValueError if there is none, it is broken or empty, or of another network.
    """
    path = find_lora(path)
    tensors, _ = read_safetensors(path)
    layers = dict(transformer.named_modules())
    for name, value in tensors.items():
        layer = layers.get(name.removeprefix("transformer.").rsplit(".lora_", 1)[0])
        side = 1 if ".lora_A." in name else 0
        if not isinstance(layer, nn.Linear) or value.ndim != 2 or layer.weight.shape[side] != value.shape[side]:
            raise ValueError(f"{path}: {name} {tuple(value.shape)} fits no layer; it was made for another network.")
    if not tensors:
        raise ValueError(f"{path}: holds no low-rank layers.")
    transformer.load_lora_adapter(tensors, prefix="transformer", adapter_name="default")
    transformer.set_adapters("default", weight)
