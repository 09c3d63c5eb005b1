"""The Wan transformer on a layout: on a plain video it is diffusers' own; masks isolate; cameras start at nothing."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel

from lrm4d.generation.layout import Slot, TokenLayout
from lrm4d.generation.transformer import (
    LayoutRotary,
    ViewTransformer,
    add_lora,
    load_lora,
    rotations,
    save_lora,
    widen_input,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def wan() -> WanTransformer3DModel:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    )
    return model.eval()


def inputs(slots: int, batch: int = 2):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, slots, 4, 4, 6, generator=generator)
    cameras = torch.randn(batch, slots, 6, 4, 6, generator=generator)
    return latents, torch.full((batch, slots), 0.4), cameras, torch.randn(batch, 3, 8, generator=generator)


VIDEO = TokenLayout(tuple(Slot(0, time, "target") for time in range(5)), 2, 3)


def test_rotations_are_diffusers_own(wan):
    cos, sin = wan.rope(torch.zeros(1, 4, 5, 4, 6))
    turns = rotations(VIDEO.positions().double(), 12)
    torch.testing.assert_close(turns.real, cos[0, :, 0, ::2].float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(turns.imag, sin[0, :, 0, 1::2].float(), atol=1e-6, rtol=0)


def test_positions_of_large_pictures_are_squeezed_into_what_is_known():
    rotary, plain = LayoutRotary(12, extent=5), LayoutRotary(12)
    layout = TokenLayout((Slot(0, 0, "target"), Slot(0, 1, "target")), 9, 3)
    rotary.layout = plain.layout = layout
    turns, _ = rotary(torch.zeros(1))
    positions = layout.positions().double()
    assert torch.equal(turns[:, 0], rotations(positions * torch.tensor([1.0, 0.5, 0.5]), 12))
    known = rotations(torch.tensor([[1.0, 4.0, 1.0]]).double(), 12)
    assert torch.equal(turns[-1], known), "the last row, at the middle of the known columns"
    rotary.layout = plain.layout = layout.resize(5, 3)
    assert torch.equal(rotary(torch.zeros(1))[0], plain(torch.zeros(1))[0]), "small ones stay as they are"


@torch.no_grad()
def test_a_pretrained_model_stays_what_it_is(wan):
    latents, levels, cameras, text = inputs(5)
    expected = wan(latents.transpose(1, 2), torch.full((2,), 400.0), text, return_dict=False)[0].transpose(1, 2)
    made = ViewTransformer(copy.deepcopy(wan), 6)(VIDEO, latents, levels, cameras, text)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_new_input_channels_change_nothing_at_first(wan):
    latents, levels, cameras, text = inputs(5)
    expected = ViewTransformer(copy.deepcopy(wan), 6)(VIDEO, latents, levels, cameras, text)
    widen_input(wan, 9)
    assert wan.config.in_channels == 9
    wider = torch.cat([latents, torch.randn(2, 5, 5, 4, 6)], dim=2)
    torch.testing.assert_close(ViewTransformer(wan, 6)(VIDEO, wider, levels, cameras, text), expected)
    with pytest.raises(ValueError, match="fewer"):
        widen_input(WanTransformer3DModel(num_layers=1, num_attention_heads=1, attention_head_dim=12), 3)


def test_cameras_and_roles_can_be_learned(wan):
    model = ViewTransformer(wan, 6)
    latents, levels, cameras, text = inputs(5)
    model(VIDEO, latents, levels, cameras, text).square().sum().backward()
    gradient = wan.patch_embedding.to_token.weight.grad
    assert (gradient[:, :6].abs().sum(0) > 0).all() and (gradient[:, 6:].abs().sum(0) > 0).tolist() == [False] * 3 + [
        True
    ]
    with torch.no_grad():
        before = model(VIDEO, latents, levels, cameras, text)
        wan.patch_embedding.to_token.weight.normal_()
        assert (model(VIDEO, latents, levels, cameras, text) - before).abs().max() > 1e-3


def two_views(rule: str) -> TokenLayout:
    slots = (Slot(0, 0, "source"), Slot(0, 1, "source"), Slot(1, 0, "target"), Slot(1, 1, "target"))
    return TokenLayout(slots, 2, 3, rule).with_warp_slots()


@torch.no_grad()
def test_fused_attention_with_one_view_is_full_attention(wan):
    model = ViewTransformer(wan, 6)
    one = TokenLayout(tuple(Slot(0, time, role) for role in ("target", "warp") for time in range(3)), 2, 3, "fused")
    args = inputs(6)
    assert torch.equal(model(one, *args), model(replace(one, rule="full"), *args))
    assert (model(two_views("fused"), *args) - model(two_views("full"), *args)).abs().max() > 1e-3


def test_a_slot_hears_only_those_it_attends_to(wan):
    wan.blocks = wan.blocks[:1]  # in one layer nothing can pass through a third slot
    model, layout = ViewTransformer(wan, 6), two_views("fused")
    latents, *rest = inputs(6, batch=1)
    latents.requires_grad_()
    made = model(layout, latents, *rest)
    heard = (
        torch.stack(
            [torch.autograd.grad(made[:, slot].square().sum(), latents, retain_graph=True)[0] for slot in range(6)]
        )
        .abs()
        .sum(dim=(1, 3, 4, 5))
        > 0
    )
    assert torch.equal(heard, layout.slot_mask())


@torch.no_grad()
def test_the_order_of_slots_does_not_matter(wan):
    model, layout = ViewTransformer(wan, 6), two_views("fused")
    order = [3, 5, 0, 1, 4, 2]
    latents, levels, cameras, text = inputs(6)
    levels = torch.linspace(0, 1, 6).expand(2, 6)
    shuffled = replace(layout, slots=tuple(layout.slots[index] for index in order))
    made = model(shuffled, latents[:, order], levels[:, order], cameras[:, order], text)
    torch.testing.assert_close(made, model(layout, latents, levels, cameras, text)[:, order], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_slot_has_its_own_noise_level(wan):
    wan.blocks = wan.blocks[:1]
    model, layout = ViewTransformer(wan, 6), two_views("fused")
    latents, levels, cameras, text = inputs(6)
    before = model(layout, latents, levels, cameras, text)
    levels = levels.clone()
    levels[:, 0] = 0.9
    changed = (model(layout, latents, levels, cameras, text) - before).abs().amax(dim=(0, 2, 3, 4)) > 1e-6
    assert torch.equal(changed, layout.slot_mask()[:, 0])


def test_lora_starts_at_nothing_and_comes_back_as_it_was_saved(wan, tmp_path):
    latents, levels, cameras, text = inputs(5)
    fresh = copy.deepcopy(wan)
    model = ViewTransformer(wan, 6)
    with torch.no_grad():
        before = model(VIDEO, latents, levels, cameras, text)
    trained = add_lora(wan, rank=2)
    assert {p.shape[0] if p.shape[0] == 2 else p.shape[1] for p in trained} == {2} and len(trained) == 2 * 2 * 8
    with torch.no_grad():
        assert torch.equal(model(VIDEO, latents, levels, cameras, text), before)
        for parameter in trained:
            parameter.normal_()
        tuned = model(VIDEO, latents, levels, cameras, text)
        assert (tuned - before).abs().max() > 1e-3
        save_lora(wan, tmp_path / "lora.safetensors")
        again = ViewTransformer(fresh, 6)
        load_lora(fresh, tmp_path / "lora.safetensors")
        torch.testing.assert_close(again(VIDEO, latents, levels, cameras, text), tuned)
        fresh.set_adapters("default", 0.0)
        torch.testing.assert_close(again(VIDEO, latents, levels, cameras, text), before)
    with pytest.raises(ValueError, match="already"):
        add_lora(wan)


def test_lora_files_of_others_are_refused(wan, tmp_path):
    path = tmp_path / "lora.safetensors"
    add_lora(wan, rank=2)
    save_lora(wan, path)
    other = WanTransformer3DModel(num_layers=1, num_attention_heads=1, attention_head_dim=12, ffn_dim=8, text_dim=8)
    with pytest.raises(ValueError, match="another network"):
        load_lora(other, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable"):
        load_lora(other, path)
