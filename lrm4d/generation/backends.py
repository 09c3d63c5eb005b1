"""Inpainters by name, whatever the backend; what a user types becomes something that completes pictures."""

from dataclasses import replace
from typing import Any

from lrm4d.generation.inpainter import Inpainter, NanoInpainter, Sampling

WAN = "wan:"


def load_inpainter(name: str, device: str = "cpu", lora: str | None = None) -> Inpainter:
    """The inpainter of a name: "wan:CHECKPOINT", or weights of the small one, shipped, in a folder or on the hub.

    lora: "FILE_OR_FOLDER" or "FILE_OR_FOLDER:WEIGHT" of low-rank layers, as `lrm4d tune` makes them.
    ValueError where weights are missing or do not fit.
    """
    path, weight = parse_lora(lora) if lora else (None, 1.0)
    if name.startswith(WAN):
        from lrm4d.generation.wan import WanInpainter

        return WanInpainter.from_pretrained(name.removeprefix(WAN), device, lora=path, lora_weight=weight)
    return NanoInpainter.from_pretrained(name, device, path, weight)


def parse_lora(text: str) -> tuple[str, float]:
    """Path and weight of "PATH:WEIGHT", or of "PATH" at a weight of 1; ValueError for a weight that is no number."""
    path, colon, weight = text.rpartition(":")
    if not colon or "/" in weight or "\\" in weight:
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError as error:
        raise ValueError(f"lora '{text}': '{weight}' is no weight; expected FOLDER or FOLDER:0.7.") from error


def choose_sampling(inpainter: Inpainter, **wanted: Any) -> Sampling:
    """The inpainter's usual sampling with what is wanted in its place; None is as usual."""
    return replace(inpainter.usual, **{name: value for name, value in wanted.items() if value is not None})
