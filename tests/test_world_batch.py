"""Batches in one piece: nothing changes on the way through a queue, and rendering stays where the batch is."""

import pickle
from collections import Counter
from dataclasses import fields

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from data_tools.render import WorldViews, render
from data_tools.scenes import Scenes
from data_tools.world import WorldBatch, describe_batch, sample_batch, sample_scenes

SEEDS = [3, 11, 5]


def tensors_of(seen: WorldViews) -> list[torch.Tensor]:
    cameras = seen.views.cameras
    pictures = [seen.views.images, seen.views.alphas, seen.depths, seen.hits, seen.flows, seen.exits]
    return [*pictures, seen.views.times, cameras.camera_to_world, cameras.intrinsics]


def assert_same(one: tuple[WorldViews, WorldViews], two: tuple[WorldViews, WorldViews]) -> None:
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors_of(a), tensors_of(b), strict=True))


def test_a_batch_holds_the_scenes_of_its_seeds_bit_for_bit():
    batch, scenes = describe_batch(SEEDS, 3, 2, 16), sample_scenes(SEEDS)
    for f in fields(Scenes):
        held, made = getattr(batch.scenes(), f.name), getattr(scenes, f.name)
        assert held.dtype == made.dtype and torch.equal(held, made), f.name
    assert batch.cameras().shape == batch.times().shape == (3, 5)


def test_describing_and_rendering_is_sampling():
    context, targets = describe_batch(SEEDS, 3, 2, 16, setup="random").render()
    assert context.views.shape == (3, 3) and targets.views.shape == (3, 2) and context.hits.any()
    assert_same((context, targets), sample_batch(SEEDS, 3, 2, 16, setup="random"))
    seen = render(sample_scenes(SEEDS), context.views.cameras, context.views.times)
    assert (seen.depths != context.depths).float().mean() < 1e-3  # other numbers of views round otherwise
    torch.testing.assert_close(seen.views.times, context.views.times)


def test_views_do_not_hold_on_to_the_batch():
    batch = describe_batch(SEEDS, 3, 2, 16)
    held = batch.buffer.untyped_storage().data_ptr()
    assert all(x.untyped_storage().data_ptr() != held for side in batch.render() for x in tensors_of(side))


def test_a_batch_comes_out_of_a_pipe_as_it_went_in():
    batch = describe_batch(SEEDS, 3, 2, 16)
    sent = pickle.dumps(batch)
    assert len(sent) < batch.buffer.numel() + 10_000
    received: WorldBatch = pickle.loads(sent)
    assert torch.equal(received.buffer, batch.buffer) and received.layout == batch.layout
    assert_same(received.render(), batch.render())


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on another device, as a GPU's would."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device="meta")
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return PretendDevice.active.run(operation, args, kwargs or {})


class PretendDevice(TorchDispatchMode):
    """Refuses operations that mix devices, and counts them and what a GPU would be waited for."""

    WAITS = ("nonzero", "_local_scalar_dense", "repeat_interleave", "masked_select")
    active: "PretendDevice"

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.waits = Counter(), Counter()
        PretendDevice.active = self

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return self.run(operation, args, kwargs or {})

    def run(self, operation, args, kwargs):
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        there = [isinstance(x, Elsewhere) for x in tensors]
        name, device = operation.overloadpacket.__name__, kwargs.get("device")
        if any(there):
            apart = [x.shape for x, is_there in zip(tensors, there, strict=True) if not is_there and x.dim()]
            assert not apart or name == "copy_", f"{name} mixes devices: {apart}"
            self.waits[name] += name in self.WAITS
            for mask in args[1] if name == "index" else ():
                self.waits["mask"] += mask is not None and mask.dtype == torch.bool
        if device is not None:
            kwargs = {**kwargs, "device": "cpu"}
        self.operations[name] += 1
        args, kwargs = tree_map_only(Elsewhere, lambda x: x.held, (args, kwargs))
        result = operation(*args, **kwargs)
        goes_there = any(there) if device is None else torch.device(device).type == "meta"
        return tree_map_only(torch.Tensor, Elsewhere, result) if goes_there else result


def test_rendering_mixes_no_devices_and_seldom_waits(monkeypatch):
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda x: (x.held if isinstance(x, Elsewhere) else x).numpy().tolist(), raising=False
    )
    batch = describe_batch(SEEDS, 3, 2, 16)
    with PretendDevice() as pretend:
        context, targets = batch.to("meta").render()
    assert context.views.images.device.type == "meta"
    there = [tree_map_only(Elsewhere, lambda x: x.held, tensors_of(side)) for side in (context, targets)]
    for found, side in zip(there, batch.render(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(found, tensors_of(side), strict=True))
    assert 10 < sum(pretend.waits.values()) < 40 and not pretend.waits["mask"]
    with PretendDevice(), pytest.raises(AssertionError, match="mixes devices"):
        Elsewhere(torch.zeros(3)) + torch.zeros(3)
