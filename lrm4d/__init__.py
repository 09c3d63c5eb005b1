"""lrm4d: a few posed pictures of something that moves become a 4D scene in one pass of a network."""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Cameras": "lrm4d.cameras",
    "Gaussians3D": "lrm4d.gaussians3d",
    "Gaussians4D": "lrm4d.gaussians4d",
    "Reconstructor": "lrm4d.pipeline",
    "Rendering": "lrm4d.rasterizer",
    "Views": "lrm4d.views",
    "load_scene": "lrm4d.scenes",
    "orbit": "lrm4d.trajectories",
    "parse_path": "lrm4d.trajectories",
    "rasterize": "lrm4d.rasterizer",
    "save_scene": "lrm4d.scenes",
    "write_video": "lrm4d.video",
}
"""What `import lrm4d` offers, imported when first asked for: PyTorch takes seconds, `lrm4d --help` must not."""

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """The exported object of this name."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lrm4d' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    """The names, for completion."""
    return __all__
