"""The wan backend on a checkpoint of random weights, made, saved and loaded in diffusers' layout; budgets on meta."""

import json
import resource

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACEPipeline, WanVACETransformer3DModel

from lrm4d.cameras import Cameras, intrinsics_from_fov
from lrm4d.generation.budget import build_on_meta, estimate_budget, measure_speed
from lrm4d.generation.flow import make_scheduler
from lrm4d.generation.layout import Slot, TokenLayout
from lrm4d.generation.transformer import add_lora, load_lora, save_lora
from lrm4d.generation.wan import WanInpainter, fit_video, load_view_transformer, to_picture, videos_of

pytestmark = pytest.mark.usefixtures("one_thread")

TRANSFORMER = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16, "ffn_dim": 24}


def tiny_tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", "a", "frog", "sighs"))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A VACE pipeline of 0.08 M random parameters, as a folder."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    text = UMT5Config(vocab_size=6, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipeline = WanVACEPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=UMT5EncoderModel(text),
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=make_scheduler("unipc", 3.0),
        transformer=WanVACETransformer3DModel(num_layers=3, vace_layers=[0, 2], **TRANSFORMER),
    )
    folder = tmp_path_factory.mktemp("wan") / "vace"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def inpaint(checkpoint):
    return WanInpainter.from_pretrained(checkpoint, "cpu", torch.float32, sampler="dpm", references=1)


LAYOUT = TokenLayout((Slot(0, 0, "source"), Slot(1, 0, "target"), Slot(1, 1, "target"), Slot(1, 2, "context")))


def given(height: int = 20, width: int = 24):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 4, 3, height, width, generator=generator)
    visibility = torch.ones(1, 4, 1, height, width, dtype=torch.bool)
    visibility[:, 1:3, :, :, :12] = False
    cameras = Cameras(
        torch.eye(4).expand(1, 4, 4, 4), intrinsics_from_fov(0.8, width, height).expand(1, 4, 3, 3), width, height
    )
    return images, visibility, cameras


def test_a_saved_checkpoint_completes_pictures_of_any_size(inpaint):
    steps = []
    images, visibility, cameras = given()
    args = (LAYOUT, images, visibility, cameras)
    made = inpaint(*args, text="a frog", steps=2, guidance=2.0, progress=lambda *step: steps.append(step))
    assert made.shape == (1, 2, 3, 20, 24) and made.isfinite().all() and made.min() >= 0 and made.max() <= 1
    assert steps == [("generate", 1, 2), ("generate", 2, 2)]
    assert torch.equal(made, inpaint(*args, text="a frog", steps=2, guidance=2.0))
    assert not torch.equal(made, inpaint(*args, text="sighs", steps=2, guidance=2.0))
    assert not torch.equal(made, inpaint(*args, text="a frog", steps=2, guidance=2.0, seed=1))


def test_holes_are_made_known_pixels_kept_and_what_lies_in_holes_is_not_seen(inpaint):
    images, visibility, cameras = given()
    hidden = torch.where(visibility, images, torch.rand(images.shape))
    made = [inpaint(LAYOUT, these, visibility, cameras, steps=1, guidance=1.0) for these in (images, hidden)]
    assert torch.equal(*made)
    kept = inpaint(LAYOUT, images, visibility, cameras, steps=1, guidance=1.0, keep_known=True)
    seen = visibility[:, 1:3].expand_as(kept)
    assert torch.equal(kept[seen], images[:, 1:3][seen]) and torch.equal(kept[~seen], made[0][~seen])


def test_references_and_known_frames_of_the_view_are_heard(inpaint):
    images, visibility, cameras = given()
    made = inpaint(LAYOUT, images, visibility, cameras, steps=1, guidance=1.0)
    for picture in (0, 3):  # the source view's, a finished frame of the same view
        other = images.clone()
        other[:, picture] = 1 - other[:, picture]
        assert not torch.equal(made, inpaint(LAYOUT, other, visibility, cameras, steps=1, guidance=1.0))


def test_a_video_fits_wan_and_its_mask_is_one_where_to_generate():
    images, visibility, _ = given(20, 32)
    video, mask = fit_video(images[0, 1:], visibility[0, 1:])
    assert video.shape == (5, 3, 32, 32) and mask.shape == (5, 1, 32, 32)  # 1 + 4k frames, multiples of 16
    assert (mask[:2, :, :20, :12] == 1).all() and (mask[:2, :, :20, 12:] == 0).all()
    assert (mask[2:, :, :20] == 0).all() and (mask[:, :, 20:] == 1).all()
    assert (video[:2, :, :20, :12] == 0.5).all()
    assert torch.equal(
        video[:3, :, :20][visibility[0, 1:].expand(3, 3, 20, 32)],
        images[0, 1:][visibility[0, 1:].expand(3, 3, 20, 32)],
    )
    assert torch.equal(video[2], video[4])
    counts = {
        count: len(fit_video(torch.rand(count, 3, 4, 4), torch.ones(count, 1, 4, 4).bool())[0])
        for count in (1, 2, 5, 6)
    }
    assert counts == {1: 1, 2: 5, 5: 5, 6: 9}


def test_offloaded_blocks_make_the_same_pictures(inpaint, checkpoint):
    images, visibility, cameras = given()
    offloaded = WanInpainter.from_pretrained(
        checkpoint, "cpu", torch.float32, offload="group", sampler="dpm", references=1
    )
    made = [each(LAYOUT, images, visibility, cameras, steps=1, guidance=1.0) for each in (inpaint, offloaded)]
    assert torch.equal(*made)


def test_lora_of_a_pipeline(inpaint, checkpoint, tmp_path):
    images, visibility, cameras = given()
    args, options = (LAYOUT, images, visibility, cameras), {"steps": 1, "guidance": 1.0}
    before = inpaint(*args, **options)
    for parameter in add_lora(inpaint.pipeline.transformer, rank=2):
        torch.nn.init.normal_(parameter)
    tuned = inpaint(*args, **options)
    assert not torch.equal(before, tuned)
    save_lora(inpaint.pipeline.transformer, tmp_path / "pytorch_lora_weights.safetensors")
    fresh = WanInpainter.from_pretrained(checkpoint, "cpu", torch.float32, sampler="dpm", references=1)
    load_lora(fresh.pipeline.transformer, tmp_path / "pytorch_lora_weights.safetensors")
    torch.testing.assert_close(fresh(*args, **options), tuned)
    other = WanVACEPipeline.from_pretrained(checkpoint, scheduler=make_scheduler("dpm", 3.0))
    other.load_lora_weights(tmp_path)  # diffusers' own reader understands the file
    torch.testing.assert_close(WanInpainter(other, references=1)(*args, **options), tuned)


def test_videos_and_references_of_a_view():
    slots = [Slot(0, time, "source") for time in range(5)] + [Slot(2, 0, "target")]
    slots += [Slot(1, time, "target") for time in (2, 0)] + [Slot(1, 1, "context")]
    layout = TokenLayout(tuple(slots)).with_warp_slots()
    assert videos_of(layout, 1, 3) == ([7, 8, 6], [0, 2, 4])
    assert videos_of(layout, 2, 1) == ([5], [0]) and videos_of(layout, 2, 0) == ([5], [])
    assert to_picture(torch.tensor([1.0, 0.5, 0]).view(3, 1, 1)).getpixel((0, 0)) == (255, 128, 0)


def test_broken_checkpoints_say_what_is_wrong(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        WanInpainter.from_pretrained(checkpoint, offload="disk")
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        WanInpainter.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="expected WanVACEPipeline"):
        WanInpainter.from_pretrained(tmp_path)


@torch.no_grad()
def test_text_to_video_checkpoints_become_view_transformers(tmp_path):
    torch.manual_seed(0)
    wan = WanTransformer3DModel(num_layers=1, in_channels=4, out_channels=4, **TRANSFORMER).eval()
    wan.save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    model = load_view_transformer(tmp_path, dtype=torch.float32).eval()
    layout = TokenLayout(tuple(Slot(0, time, "target") for time in range(3)), 2, 2)
    latents, text = torch.randn(1, 3, 9, 4, 4), torch.randn(1, 2, 16)
    made = model(layout, latents, torch.full((1, 3), 0.3), torch.randn(1, 3, 6, 4, 4), text)
    plain = wan(latents[:, :, :4].transpose(1, 2), torch.tensor([300.0]), text, return_dict=False)[0]
    torch.testing.assert_close(made, plain.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_real_sizes_on_the_meta_device_need_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = build_on_meta("wan2.1-vace-14b")
    assert {p.device.type for part in parts.values() for p in part.parameters()} == {"meta"}
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert 17.0e9 < count["transformer"] < 17.6e9 and 5.5e9 < count["text_encoder"] < 5.9e9
    small = build_on_meta("wan2.1-t2v-1.3b")["transformer"]
    assert 1.4e9 < sum(p.numel() for p in small.parameters()) < 1.45e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes; the weights are 46 GB


def test_a_budget_at_its_closed_form():
    parts = build_on_meta("wan2.1-t2v-1.3b")
    with torch.device("meta"):
        models = [WanTransformer3DModel(num_layers=layers, num_attention_heads=12, ffn_dim=8960) for layers in (1, 2)]
    budgets = [
        estimate_budget({**parts, "transformer": model}, 128, 256, 9, guided=False, tiled=False) for model in models
    ]
    tokens, words, width = 3 * 8 * 16, 512, 1536
    linear = 2 * tokens * width * (4 * width + 2 * width + 2 * 8960) + 2 * words * width * 2 * width
    attention = 4 * tokens * (tokens + words) * width
    assert budgets[1].operations - budgets[0].operations == linear + attention
    assert budgets[1].activations == budgets[0].activations  # one block at a time
    pixels = 9 * 128 * 256
    assert budgets[0].activations > 3 * 4 * pixels + 96 * 2 * 4 * 128 * 256  # the pictures, and a decoder's features
    assert budgets[0].memory["none"] > budgets[0].memory["model"] > budgets[0].memory["group"]
    described = budgets[0].describe(speed=1e10, steps=10)
    assert "text_encoder 11.4 GB" in described and f"about {budgets[0].operations / 1e10:.1f} s" in described


def test_memory_and_time_of_a_real_size_before_it_is_started():
    """81 frames of 832 x 480 with VACE of 1.3 B: tokens attend to each other in 30 blocks and 15 of VACE's own."""
    parts = build_on_meta("wan2.1-vace-1.3b")
    budget = estimate_budget(parts, 480, 832, 81)
    tokens, width = 21 * 30 * 52, 1536
    linear = 2 * sum(p.numel() for p in parts["transformer"].parameters()) * tokens
    attention = 45 * 4 * tokens**2 * width
    assert budget.operations == pytest.approx(2 * (linear + attention), rel=0.05)  # guided: twice
    assert budget.weights["transformer"] + budget.activations < budget.memory["none"] < 24e9
    assert tokens * width * 2 < budget.activations < budget.memory["group"] < 6e9 < budget.memory["model"]
    assert "4.3 min for 30 steps" in budget.describe(speed=1e14, steps=30)


def test_speed_is_measured_and_unknown_models_are_refused():
    assert measure_speed(torch.device("cpu"), torch.float32) > 1e8
    with pytest.raises(ValueError, match="no Wan model"):
        build_on_meta("wan9")


def test_a_loaded_checkpoint_knows_its_budget(inpaint):
    budget = inpaint.budget(20, 24, 3)
    assert set(budget.weights) == {"transformer", "vae", "text_encoder"} and budget.operations > 0
    assert sum(budget.weights.values()) < 1e6
