"""What is installed, which backends run here, what is missing and how to get it."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from lrm4d.operators import find_compiler, load_operators
from lrm4d.rasterizer import cpu, cuda
from lrm4d.reconstruction.attention import xformers_works
from lrm4d.reconstruction.evidence import has_triton
from lrm4d.reconstruction.pretrained import list_pretrained
from lrm4d.reconstruction.reconstructor import choose_device, has_fast_bf16
from lrm4d.video import available_mp4_codec

OPTIONAL = {
    "gsplat": ("cuda", "rendering on an NVIDIA GPU"),
    "xformers": ("cuda", "faster attention in float32 on an NVIDIA GPU"),
    "deepspeed": ("train", "training"),
    "webdataset": ("train", "training from shards"),
    "diffusers": ("generate", "making missing views of a video"),
    "transformers": ("generate", "making missing views of a video"),
    "peft": ("generate", "tuning the view maker"),
    "viser": ("view", "the live viewer"),
    "lpips": ("eval", "the perceptual score LPIPS"),
    "matplotlib": ("eval", "charts"),
}
"""Packages that lrm4d does without: the extra that brings them, and what for."""


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: whether all is well, what was found, and what to do if it is not."""

    name: str
    well: bool
    found: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Look at everything; takes seconds where the C++ operators still have to be compiled."""
    return [
        Finding("python", sys.version_info >= (3, 10), f"{platform.python_version()} on {platform.platform()}"),
        Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"),
        _find_device(),
        _find_rasterizer(),
        _find_attention(),
        _find_evidence(),
        _find_video(),
        _find_weights(),
        *(_find_package(name, extra, purpose) for name, (extra, purpose) in OPTIONAL.items()),
    ]


def _find_device() -> Finding:
    device = choose_device("auto")
    precision = "bfloat16" if has_fast_bf16(device) else "float32"
    if device.type == "cuda":
        return Finding("device", True, f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda}), {precision}")
    reason = "no NVIDIA GPU seen" if torch.version.cuda else "this PyTorch is built without CUDA"
    return Finding("device", True, f"CPU ({torch.backends.cpu.get_cpu_capability()}), {precision}; {reason}")


def _find_rasterizer() -> Finding:
    if torch.cuda.is_available():
        found = "gsplat on CUDA" if cuda.is_available() else "the PyTorch reference on CUDA, far slower than gsplat"
        return Finding("rasterizer", cuda.is_available(), found, _extra("cuda"))
    if cpu.is_available():
        return Finding("rasterizer", True, "the C++ operator on the CPU")
    found = "the PyTorch reference, about 100 times slower than the C++ operator"
    compiler = find_compiler()
    remedy = "see the warning above" if compiler else "install a C++20 compiler (Debian, Ubuntu: apt install g++)"
    return Finding("rasterizer", False, found, remedy)


def _find_attention() -> Finding:
    if not torch.cuda.is_available():
        return Finding("attention", True, "PyTorch's scaled_dot_product_attention")
    single = "xformers" if xformers_works() else "scaled_dot_product_attention, scene by scene,"
    return Finding("attention", True, f"FlashAttention in half precision, {single} in float32")


def _find_evidence() -> Finding:
    if torch.cuda.is_available():
        found = (
            "Triton's kernel on CUDA" if has_triton() else "the PyTorch reference on CUDA, far slower than Triton's"
        )
        return Finding("evidence", has_triton(), found, "pip install triton")
    found = "the C++ operator on the CPU" if load_operators() else "the PyTorch reference, 9 times slower"
    return Finding("evidence", load_operators(), found, "see the rasterizer's remedy")


def _find_video() -> Finding:
    codec = available_mp4_codec()
    found = f"mp4 by {codec} (PyAV {_installed_version('av')})"
    return Finding("video", codec != "mpeg4", found, "browsers do not show mpeg4: pip install --upgrade av")


def _find_weights() -> Finding:
    names = list_pretrained()
    remedy = "train them (python -m train.reconstruction) or give --model a folder or hub id"
    return Finding("weights", bool(names), f"shipped: {', '.join(names) or 'none'}", remedy)


def _find_package(name: str, extra: str, purpose: str) -> Finding:
    found = _installed_version(name)
    if found:
        return Finding(name, True, f"{found}: {purpose}")
    return Finding(name, False, f"not installed, only needed for {purpose}", _extra(extra))


def _extra(name: str) -> str:
    return f"pip install 'lrm4d[{name}]'"


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
