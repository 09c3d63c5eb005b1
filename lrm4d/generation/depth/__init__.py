"""Where depth comes from: files, Hugging Face's depth models, or the reconstruction network; one protocol for all."""

from lrm4d.generation.depth.given import GivenDepth, load_geometry, save_geometry
from lrm4d.generation.depth.hugging_face import HuggingFaceDepth
from lrm4d.generation.depth.network import NetworkDepth, render_geometry
from lrm4d.generation.depth.provider import DepthProvider, Progress

__all__ = [
    "DepthProvider",
    "GivenDepth",
    "HuggingFaceDepth",
    "NetworkDepth",
    "Progress",
    "load_geometry",
    "render_geometry",
    "save_geometry",
]
