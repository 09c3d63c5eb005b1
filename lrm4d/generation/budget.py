"""What a Wan pipeline needs before it is started: memory and time, found by running its classes on the meta device.

Nothing is allocated: meta tensors have shapes only. Every operation of one step is seen as it would run, so the
figures follow the model's own code; attention counts as a fused kernel does it, without its matrix of scores.
"""

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan, ModelMixin, WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.utils import logging
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import UMT5Config, UMT5EncoderModel

GIGABYTE = 1e9
WORDS = 512
"""Tokens of a text that Wan pipelines pad to."""
PROBE_FRAMES = 9
"""Frames that the autoencoder is tried on: it works in chunks of four, so more only lengthen its output."""

_SMALL = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
WAN_MODELS: dict[str, tuple[type[ModelMixin], dict[str, Any]]] = {
    "wan2.1-t2v-1.3b": (WanTransformer3DModel, _SMALL),
    "wan2.1-t2v-14b": (WanTransformer3DModel, {}),
    "wan2.1-vace-1.3b": (WanVACETransformer3DModel, {**_SMALL, "vace_layers": list(range(0, 30, 2))}),
    "wan2.1-vace-14b": (WanVACETransformer3DModel, {}),
}
"""The transformers of public checkpoints, by what their config.json has beside the classes' defaults (the 14B)."""
_TEXT = UMT5Config(
    vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)


@dataclass(frozen=True)
class Budget:
    """What one generation takes.

    weights: bytes of each part. largest_block: bytes of the largest piece that offloading moves. activations: bytes
    at the fullest moment of a step or of decoding. operations: floating-point operations of a denoising step.
    """

    weights: dict[str, int]
    largest_block: int
    activations: int
    operations: int

    @property
    def memory(self) -> dict[str, int]:
        """Peak bytes on the device by what is kept there: all parts, one part at a time, or two blocks at a time."""
        return {
            "none": sum(self.weights.values()) + self.activations,
            "model": max(self.weights.values()) + self.activations,
            "group": 2 * self.largest_block + self.activations,
        }

    def describe(self, speed: float, steps: int) -> str:
        """Lines for people; speed in operations a second (see `measure_speed`)."""
        parts = ", ".join(f"{name} {size / GIGABYTE:.1f} GB" for name, size in self.weights.items())
        peaks = ", ".join(f"{size / GIGABYTE:.1f} GB with offload {name}" for name, size in self.memory.items())
        seconds = self.operations / speed
        return (
            f"weights: {parts}\nmemory on the device: {peaks}\n"
            f"time: {self.operations / 1e12:.0f} TFLOP a step, about {seconds:.1f} s at {speed / 1e12:.2f} TFLOP/s, "
            f"{steps * seconds / 60:.1f} min for {steps} steps"
        )


def build_on_meta(name: str) -> dict[str, nn.Module]:
    """The transformer, autoencoder and text encoder of a public Wan checkpoint at their real size, without memory."""
    if name not in WAN_MODELS:
        raise ValueError(f"no Wan model called {name!r}: there are {', '.join(WAN_MODELS)}.")
    kind, config = WAN_MODELS[name]
    with torch.device("meta"):
        parts = {"transformer": kind(**config), "vae": AutoencoderKLWan(), "text_encoder": UMT5EncoderModel(_TEXT)}
    return {part: _in_bfloat16(module) for part, module in parts.items()}


def _in_bfloat16(part: nn.Module) -> nn.Module:
    """All in bfloat16; a few small layers stay in float32 when diffusers loads a checkpoint, which changes little."""
    with _quiet():
        return part.to(torch.bfloat16).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' warning about those layers: here nothing is computed."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@torch.no_grad()
def estimate_budget(
    parts: dict[str, nn.Module], height: int, width: int, frames: int, guided: bool = True, tiled: bool = True
) -> Budget:
    """The budget of a pipeline's parts (of `build_on_meta`, or loaded ones) for one video.

    height, width: pixels, multiples of 16. frames: 1 + 4k, reference pictures counted as 4 each. guided: two passes
    a step. tiled: the autoencoder works in tiles of 256 pixels.
    """
    weights = {name: sum(p.numel() * p.element_size() for p in part.parameters()) for name, part in parts.items()}
    blocks = [block for part in parts.values() for block in _blocks(part)]
    counters = [_probe_transformer(parts["transformer"], height, width, frames)]
    counters.append(_probe_decoder(parts["vae"], height, width, tiled))
    picture_bytes = 3 * frames * height * width * 4
    return Budget(
        weights,
        max(sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks),
        max(counter.peak for counter in counters) + picture_bytes,
        counters[0].operations * (2 if guided else 1),
    )


def measure_speed(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations a second that half of a large matrix product's speed gives, as transformers get."""
    size = 8192 if device.type == "cuda" else 512
    matrix = torch.randn(size, size, device=device).to(dtype)
    _finish(matrix @ matrix)
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < 0.05:
        _finish(matrix @ matrix)
        count += 1
    return 0.5 * count * 2 * size**3 / (time.perf_counter() - start)


def _finish(result: torch.Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize(result.device)


def _blocks(part: nn.Module) -> list[nn.Module]:
    """The pieces that group offloading moves: the entries of module lists, or the whole where there are none."""
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList)]
    return [block for modules in lists for block in modules] or [part]


def _on_meta(part: ModelMixin) -> ModelMixin:
    with torch.device("meta"):
        return _in_bfloat16(type(part).from_config(part.config))


def _probe_transformer(transformer: ModelMixin, height: int, width: int, frames: int) -> "_Counter":
    config = transformer.config
    size = (1 + (frames - 1) // 4, height // 8, width // 8)
    options = {"device": "meta", "dtype": torch.bfloat16}
    inputs = {
        "hidden_states": torch.empty(1, config.in_channels, *size, **options),
        "timestep": torch.empty(1, device="meta"),
        "encoder_hidden_states": torch.empty(1, WORDS, config.text_dim, **options),
    }
    if "vace_in_channels" in config:
        inputs["control_hidden_states"] = torch.empty(1, config.vace_in_channels, *size, **options)
    model = _on_meta(transformer)
    with _Counter(model) as counter:
        model(**inputs, return_dict=False)
    return counter


def _probe_decoder(vae: AutoencoderKLWan, height: int, width: int, tiled: bool) -> "_Counter":
    model = _on_meta(vae)
    if tiled:
        height, width = min(height, 256), min(width, 256)
    latents = torch.empty(
        1, vae.config.z_dim, 1 + (PROBE_FRAMES - 1) // 4, height // 8, width // 8, device="meta", dtype=torch.bfloat16
    )
    with _Counter(model) as counter:
        model.decode(latents, return_dict=False)
    return counter


class _FusedAttention(TorchFunctionMode):
    """Attention as a fused kernel does it: nothing but its output is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        query, value = given["query"], given["value"]
        self.operations += 2 * query.numel() * value.shape[-2] + 2 * query[..., 0].numel() * value[0, 0].numel()
        return query.new_empty(*query.shape[:-1], value.shape[-1])


class _Counter(TorchDispatchMode):
    """Counts the bytes that are alive at most, and the operations, of what a model runs within; its weights apart."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.attention, self.products = _FusedAttention(), FlopCounterMode(display=False)
        self.known = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers())}

    def __enter__(self) -> "_Counter":
        self.attention.__enter__()
        self.products.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.products.__exit__(*error)
        self.attention.__exit__(*error)

    @property
    def operations(self) -> int:
        return self.attention.operations + self.products.get_total_flops()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self._watch(result.untyped_storage())
        return results

    def _watch(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        if identity in self.known:
            return
        self.known.add(identity)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self.known.discard(identity)
        self.alive -= size
