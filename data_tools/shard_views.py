"""The world's views as what shards hold, pictures and a geometry of named layers, and back."""

from dataclasses import Field, fields

import torch
from jaxtyping import Bool
from torch import Tensor

from data_tools.render import WorldViews
from lrm4d.cameras import Cameras
from lrm4d.views import Views

LAYERS = {field.name: field for field in fields(WorldViews) if field.name != "views"}
"""The fields of WorldViews but the views: depths, hits, flows, ..."""


def split_geometry(seen: WorldViews) -> tuple[Views, dict[str, Tensor]]:
    """The views, and everything else that is known of them by its name."""
    return seen.views, {name: getattr(seen, name) for name in LAYERS}


def join_geometry(views: Views, geometry: dict[str, Tensor]) -> WorldViews:
    """The inverse of split_geometry; layers that are not known are 0 and hits False, so no direct loss counts."""
    nothing = {name: _nothing(views, field) for name, field in LAYERS.items()}
    return WorldViews(views, **nothing | {name: values for name, values in geometry.items() if name in LAYERS})


def _nothing(views: Views, field: Field) -> Tensor:
    """Zeros of a field's shape "*batch view CHANNELS height width" and type."""
    channels = int(field.type.dim_str.split()[-3])
    dtype = torch.bool if field.type.dtype is Bool else views.images.dtype
    return views.images.new_zeros(*views.shape, channels, *views.images.shape[-2:], dtype=dtype)


def stack_scenes(scenes: list[WorldViews]) -> WorldViews:
    """Views [view] of several scenes, of one size and number, as [scene, view]."""
    return _combine(torch.stack, scenes)


def concatenate_views(parts: list[WorldViews]) -> WorldViews:
    """The views [view] of several parts, one part after the other."""
    return _combine(torch.cat, parts)


def _combine(join, parts: list) -> WorldViews:
    """join(tensors) of every tensor of WorldViews, whatever its fields are."""
    views = [part.views for part in parts]
    cameras = [view.cameras for view in views]
    joined = Views(
        join([view.images for view in views]),
        join([view.alphas for view in views]),
        Cameras(
            join([camera.camera_to_world for camera in cameras]),
            join([camera.intrinsics for camera in cameras]),
            cameras[0].width,
            cameras[0].height,
        ),
        join([view.times for view in views]),
    )
    return WorldViews(joined, **{name: join([getattr(part, name) for part in parts]) for name in LAYERS})
