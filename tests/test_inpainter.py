"""The small inpainter: it starts as a copy of the warp, learns, keeps what is known, and is read back as it was."""

from dataclasses import replace

import pytest
import torch

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, project
from lrm4d.generation.flow import condition_warp
from lrm4d.generation.inpainter import NanoInpainter, pad_pictures, training_loss
from lrm4d.generation.layout import Slot, TokenLayout
from lrm4d.generation.network import (
    InpaintingNetwork,
    NanoConfig,
    camera_channels,
    load_network,
    relative_to,
    save_network,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=2, patch=4, words=1, text_width=8, frequencies=16)
LAYOUT = TokenLayout(
    (Slot(0, 0, "source"), Slot(0, 1, "source"), Slot(1, 0, "target"), Slot(1, 1, "target")), rule="fused"
)


def given(height: int = 8, width: int = 8, batch: int = 2, seed: int = 0):
    """Pictures, masks (half of each target seen) and cameras around the origin for LAYOUT."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 4, 3, height, width, generator=generator)
    visibility = torch.ones(batch, 4, 1, height, width, dtype=torch.bool)
    visibility[:, 2:, :, :, : width // 2] = False
    poses = look_at(torch.randn(batch, 4, 3, generator=generator) + torch.tensor([3.0, 0, 0]), torch.zeros(3))
    return (
        images,
        visibility,
        Cameras(poses, intrinsics_from_fov(0.8, width, height).expand(batch, 4, 3, 3), width, height),
    )


def random_network(config: NanoConfig = TINY) -> InpaintingNetwork:
    torch.manual_seed(0)
    network = InpaintingNetwork(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("layout", [LAYOUT, LAYOUT.with_warp_slots()], ids=["channels", "slots"])
def test_an_untrained_network_copies_the_warp(layout):
    images, visibility, cameras = given()
    torch.manual_seed(0)
    made = NanoInpainter(InpaintingNetwork(TINY), torch.device("cpu"))(layout, images, visibility, cameras)
    seen = visibility[:, 2:].expand_as(made)
    torch.testing.assert_close(made[seen], images[:, 2:][seen], atol=2e-3, rtol=0)
    torch.testing.assert_close(made[~seen], torch.full_like(made[~seen], 0.5), atol=2e-3, rtol=0)


def test_the_warp_on_the_frame_axis_and_as_channels_are_both_heard():
    images, visibility, cameras = given()
    changed = images.clone()
    changed[:, 2, :, :, 4:] = 1 - changed[:, 2, :, :, 4:]  # the first target's warp, where it is seen
    network = random_network()
    for layout in (LAYOUT, LAYOUT.with_warp_slots()):
        noisy, level = torch.randn(2, 2, 3, 8, 8), torch.full((2,), 0.5)
        made = [
            network(
                layout,
                noisy,
                level,
                network.condition(layout, pictures, visibility, cameras, torch.Generator()),
                torch.tensor([False, True]),
            )
            for pictures in (images, changed)
        ]
        difference = (made[0] - made[1]).abs().amax(dim=(1, 2, 3, 4))
        assert difference[0] > 1e-3 and difference[1] == 0  # the second was told to drop its warps


@torch.no_grad()
def test_holes_hide_what_lies_under_them():
    images, visibility, cameras = given()
    inpaint = NanoInpainter(random_network(), torch.device("cpu"))
    noise_below = torch.where(visibility, images, torch.rand(images.shape))
    assert torch.equal(
        inpaint(LAYOUT, images, visibility, cameras, steps=2),
        inpaint(LAYOUT, noise_below, visibility, cameras, steps=2),
    )


def test_known_pixels_are_kept_exactly_or_may_change():
    images, visibility, cameras = given()
    inpaint = NanoInpainter(random_network(), torch.device("cpu"))
    seen = visibility[:, 2:].expand(-1, -1, 3, -1, -1)
    kept = inpaint(LAYOUT, images, visibility, cameras, steps=3, keep_known=True)
    free = inpaint(LAYOUT, images, visibility, cameras, steps=3)
    torch.testing.assert_close(kept[seen], images[:, 2:][seen], atol=1e-6, rtol=0)
    assert (free[seen] - images[:, 2:][seen]).abs().max() > 1e-2


def test_seeds_and_guidance_matter_and_repeat():
    images, visibility, cameras = given()
    inpaint = NanoInpainter(random_network(), torch.device("cpu"))
    args = (LAYOUT, images, visibility, cameras)
    first = inpaint(*args, seed=1, steps=2)
    assert torch.equal(first, inpaint(*args, seed=1, steps=2))
    assert not torch.equal(first, inpaint(*args, seed=2, steps=2))
    assert not torch.equal(first, inpaint(*args, seed=1, steps=2, guidance=2.0))


def test_any_size_is_padded_and_cropped():
    images, visibility, cameras = given(height=9, width=6)
    steps: list[tuple] = []
    inpaint = NanoInpainter(InpaintingNetwork(TINY), torch.device("cpu"))
    made = inpaint(LAYOUT, images, visibility, cameras, steps=3, progress=lambda *step: steps.append(step))
    assert made.shape == (2, 2, 3, 9, 6) and steps == [("generate", step, 3) for step in (1, 2, 3)]
    grown = pad_pictures(images, 4)
    assert grown.shape[-2:] == (12, 8) and torch.equal(grown[..., :9, :6], images)
    assert torch.equal(grown[..., 8, :6], grown[..., 11, :6]) and torch.equal(grown[..., :9, 5], grown[..., :9, 7])
    assert pad_pictures(~visibility, 4, fill=True)[..., 9:, :].all()


def test_noise_adaptive_conditioning_is_what_an_untrained_network_copies():
    images, visibility, cameras = given()
    torch.manual_seed(0)
    network = InpaintingNetwork(replace(TINY, noise_adaptive=True, cameras="pose"))
    conditions = network.condition(LAYOUT, images, visibility, cameras, torch.Generator().manual_seed(0))
    noisy, level = torch.randn(2, 2, 3, 8, 8), torch.tensor([0.2, 0.9])
    made = network(LAYOUT, noisy, level, conditions, torch.zeros(2, dtype=torch.bool))
    warp, noise = conditions.images[:, 2:], conditions.noise[:, 2:]
    half = torch.full((2, 2), 0.5)  # of each target is seen
    expected = condition_warp(warp, noisy, noise, level[:, None].expand(2, 2), half) * visibility[:, 2:]
    torch.testing.assert_close(made, expected)


def test_it_learns_a_colour():
    # Targets are one colour that only the source tells: holes must be filled with it.
    torch.manual_seed(0)
    network = InpaintingNetwork(TINY)
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3)
    generator = torch.Generator().manual_seed(0)
    _, visibility, cameras = given(batch=8)

    def colours():
        return torch.rand(8, 1, 3, 1, 1, generator=generator).expand(8, 4, 3, 8, 8)

    losses = []
    for _ in range(50):
        truth = colours()
        loss = training_loss(network, LAYOUT, truth, truth, visibility, cameras, generator, hole_weight=3.0)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth = colours()
    made = NanoInpainter(network, torch.device("cpu"))(LAYOUT, truth, visibility, cameras, steps=4)
    error = (made - truth[:, 2:]).abs()[..., :4].mean()
    grey = (0.5 - truth[:, 2:]).abs()[..., :4].mean()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]) and error < 0.5 * grey


def test_loss_looks_at_no_more_than_it_may():
    images, visibility, cameras = given()
    network = random_network()

    def loss(truth, warps, **options):
        generator = torch.Generator().manual_seed(3)
        return training_loss(network, LAYOUT, truth, warps, visibility, cameras, generator, **options)

    other = images.clone()
    other[:, :2] = 0.3  # warps of source slots
    assert torch.equal(loss(images, images), loss(images, other))
    other = images.clone()
    other[:, 2:, :, :, :4] = 0.3  # what is under the holes, of the truth: noised into the targets, so it is felt
    assert not torch.equal(loss(images, images), loss(other, images))
    assert not torch.equal(loss(images, images), loss(images, images, hole_weight=2.0))


def test_camera_channels_do_not_depend_on_the_worlds_axes():
    _, _, cameras = given(seed=5)
    turn = look_at(torch.tensor([1.0, 2, 3]), torch.zeros(3))
    turned = replace(cameras, camera_to_world=turn @ cameras.camera_to_world)
    for kind in ("rays", "pose"):
        channels = [camera_channels(relative_to(these, 1), kind) for these in (cameras, turned)]
        torch.testing.assert_close(channels[0], channels[1], atol=1e-4, rtol=1e-4)
    first = relative_to(cameras, 1)
    torch.testing.assert_close(first.camera_to_world[:, 1], torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)
    point = torch.tensor([0.1, -0.2, 0.3])
    seen = project(cameras[0], point.expand(4, 3))[0]
    moved = (cameras[0, 1].world_to_camera @ torch.cat([point, torch.ones(1)]))[:3]
    torch.testing.assert_close(project(first[0], moved.expand(4, 3))[0], seen, atol=1e-3, rtol=1e-4)


def test_saved_and_loaded(tmp_path):
    network = random_network()
    save_network(network, tmp_path / "net")
    again = load_network(tmp_path / "net")
    assert again.config == TINY and not again.training
    for (name, value), (same, loaded) in zip(network.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(value.bfloat16().float(), loaded)


def test_broken_folders_say_what_is_wrong(tmp_path):
    folder = tmp_path / "net"
    save_network(InpaintingNetwork(TINY), folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable"):
        load_network(folder)
    weights.write_bytes(whole)
    config.write_text(text.replace('"width": 24', '"width": 48'))
    with pytest.raises(ValueError, match="do not fit"):
        load_network(folder)
    config.write_text(text.replace('"width"', '"breadth"'))
    with pytest.raises(ValueError, match="breadth"):
        load_network(folder)
    with pytest.raises(ValueError, match="no inpainter called"):
        load_network("nothing-like-it")


@pytest.mark.parametrize(
    ("config", "message"), [({"width": 25}, "must be even"), ({"cameras": "angles"}, "expected one of")]
)
def test_configs_are_checked(config, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **config)


def test_what_is_refused():
    images, visibility, cameras = given()
    inpaint = NanoInpainter(InpaintingNetwork(TINY), torch.device("cpu"))
    with pytest.raises(ValueError, match="no text"):
        inpaint(LAYOUT, images, visibility, cameras, text="a cat")
    with pytest.raises(ValueError, match="takes 4 of each"):
        inpaint(LAYOUT, images[:, :3], visibility[:, :3], cameras)
    with pytest.raises(ValueError, match="different sizes"):
        inpaint(LAYOUT, images, visibility, cameras.resize(4, 4))
    with pytest.raises(ValueError, match="no target"):
        inpaint(replace(LAYOUT, slots=LAYOUT.slots[:2]), images[:, :2], visibility[:, :2], cameras[:, :2])


def test_bfloat16_is_near_float32():
    images, visibility, cameras = given()
    network = random_network()
    made = []
    for network.bf16 in (False, True):
        made.append(NanoInpainter(network, torch.device("cpu"))(LAYOUT, images, visibility, cameras, steps=2))
    difference = (made[0] - made[1]).abs()
    assert difference.max() > 0 and difference.mean() < 0.01
