"""TokenLayout: what follows from it agrees with slow references and with diffusers."""

from dataclasses import replace

import pytest
import torch

from lrm4d.generation.layout import RULES, Slot, TokenLayout, attention_mask, dense_mask, mask_function


def grid(views: int, times: int, rule: str = "fused", rows: int = 2, columns: int = 3) -> TokenLayout:
    """Source view 0, targets in the others with their warps on the frame axis (Full-4D)."""
    slots = [Slot(0, time, "source") for time in range(times)]
    slots += [Slot(view, time, "target") for view in range(1, views) for time in range(times)]
    return TokenLayout(tuple(slots), rows, columns, rule).with_warp_slots()


def test_fused_rule_said_in_words():
    fused = RULES["fused"]
    target = Slot(2, 1, "target")
    attended = {
        Slot(2, 5, "target"): True,  # same view
        Slot(2, 5, "warp"): True,  # same view, other half
        Slot(3, 1, "target"): True,  # same time
        Slot(0, 1, "source"): True,  # cross-half: the source view's projection of the same time
        Slot(3, 1, "warp"): False,  # another view's warp
        Slot(3, 5, "target"): False,
        Slot(0, 5, "source"): False,
    }
    assert {slot: fused(target, slot) for slot in attended} == attended
    assert fused(Slot(2, 1, "warp"), Slot(3, 1, "warp")) and not fused(Slot(0, 1, "source"), target)


def test_one_view_makes_the_fused_rule_full():
    slots = [Slot(0, time, role) for role in ("target", "warp", "source") for time in range(3)]
    layout = TokenLayout(tuple(slots), 2, 2, "fused")
    assert layout.slot_mask().all() and attention_mask(layout, torch.device("cpu")) is None
    assert not grid(3, 3).slot_mask().all()


def test_masks_agree_with_a_loop_over_tokens():
    layout = grid(3, 2)
    size, tokens = layout.tokens_per_slot, len(layout.slots) * layout.tokens_per_slot
    rule = RULES["fused"]
    slow = torch.tensor(
        [[rule(layout.slots[q // size], layout.slots[k // size]) for k in range(tokens)] for q in range(tokens)]
    )
    function = mask_function(layout, torch.device("cpu"))
    q, k = torch.meshgrid(torch.arange(tokens), torch.arange(tokens), indexing="ij")
    assert torch.equal(dense_mask(layout), slow)
    assert torch.equal(attention_mask(layout, torch.device("cpu")), slow)
    assert torch.equal(function(0, 0, q, k), slow)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_agrees_with_the_dense_mask():
    from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

    layout = grid(3, 2, rows=4, columns=4)
    tokens = len(layout.slots) * layout.tokens_per_slot
    function = mask_function(layout, torch.device("cpu"))
    assert torch.equal(create_mask(function, 1, 1, tokens, tokens, device="cpu")[0, 0], dense_mask(layout))
    block_mask = create_block_mask(function, None, None, tokens, tokens, device="cpu")
    q, k, v = torch.randn(3, 1, 2, tokens, 16, generator=torch.Generator().manual_seed(0))
    flexible = flex_attention(q, k, v, block_mask=block_mask)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(layout))
    torch.testing.assert_close(flexible, dense, atol=1e-5, rtol=1e-5)


def test_every_token_attends_to_itself_under_every_rule():
    for rule in RULES:
        assert grid(3, 4, rule).slot_mask().diagonal().all()


def test_positions_are_time_row_column_and_shared_by_slots_of_one_time():
    layout = grid(3, 2, rows=2, columns=3)
    positions = layout.positions().view(len(layout.slots), 2, 3, 3)
    for slot, at in zip(layout.slots, positions, strict=True):
        assert (at[..., 0] == slot.time).all()
        assert at[1, 2, 1:].tolist() == [1, 2]


def test_noise_levels_by_role():
    slots = (Slot(0, 0, "source"), Slot(1, 0, "target"), Slot(2, 0, "context"), Slot(1, 0, "warp"))
    layout = TokenLayout(slots, 1, 2)
    levels = layout.noise_levels(torch.tensor([0.9, 0.5]), torch.tensor([[0.7] * 4, [0.1] * 4]))
    expected = torch.tensor([[0, 0.9, 0, 0.7], [0, 0.5, 0, 0.1]])
    torch.testing.assert_close(levels, expected)
    torch.testing.assert_close(layout.per_token(levels)[0], torch.tensor([0, 0, 0.9, 0.9, 0, 0, 0.7, 0.7]))


def test_warp_slots_belong_to_their_targets():
    layout = grid(2, 2)
    assert [slot.role for slot in layout.slots] == ["source"] * 2 + ["target"] * 2 + ["warp"] * 2
    assert layout.targets == [2, 3] and layout.pictures() == [0, 1, 2, 3, 2, 3]
    assert layout.warps_apart().tolist() == [False, False, True, True, False, False]
    assert not replace(layout, slots=layout.slots[:4]).warps_apart().any()
    mixed = (Slot(1, 0, "warp"), Slot(0, 0, "source"), Slot(1, 0, "target"))
    assert TokenLayout(mixed).pictures() == [1, 0, 1]
    with pytest.raises(ValueError, match="no target"):
        TokenLayout(mixed[:2]).pictures()


def test_what_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        Slot(0, 0, "hole")
    with pytest.raises(ValueError, match="from 0"):
        Slot(0, -1, "target")
    with pytest.raises(ValueError, match="each once"):
        TokenLayout((Slot(0, 0, "target"),) * 2, 1, 1)
    with pytest.raises(ValueError, match="no attention rule"):
        TokenLayout((Slot(0, 0, "target"),), 1, 1, "some")
