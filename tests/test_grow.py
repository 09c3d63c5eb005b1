import sys
from dataclasses import replace

import pytest
import torch
from moving_scene import make_views
from test_reconstruction import TINY_WITH_ALL

from lrm4d.reconstruction import ModelConfig, ReconstructionModel
from lrm4d.reconstruction.pretrained import load_pretrained, save_pretrained
from lrm4d.views import Views
from train import grow as command
from train.grow import grow, share, silence
from train.optimizer import make_optimizer

PAPER = ModelConfig(width=64, layers=2, head_width=32, mlp_ratio=2, free_gaussians=3)
WITH_ALL = replace(TINY_WITH_ALL, mlp_ratio=2, free_gaussians=3)
CONFIGS = pytest.mark.parametrize("config", [PAPER, WITH_ALL], ids=["paper", "all"])


def trained(config: ModelConfig) -> ReconstructionModel:
    """A network in which everything has its say: weights as large as training makes them, no two scales alike."""
    torch.manual_seed(0)
    model = ReconstructionModel(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("transformer", "head", "distance_head")):
                value.add_((0.1 if value.ndim > 1 else 0.3) * torch.randn_like(value))
    return model


def random_views(count: int = 4) -> Views:
    """Two scenes of noise, which no network can tell from one another by habit."""
    views = make_views(2 * count, 24, 16)
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(views.images.shape, generator=generator)
    noise = replace(views, images=images, alphas=torch.rand(views.alphas.shape, generator=generator))
    parts = noise.images, noise.alphas, noise.times
    images, alphas, times = (part.unflatten(0, (2, count)) for part in parts)
    return Views(images, alphas, noise.cameras.reshape(2, count), times)


@torch.no_grad()
def difference(one: ReconstructionModel, other: ReconstructionModel) -> float:
    """The largest of any Gaussian's parameters."""
    views = random_views()
    answers = [model(views).gaussians.tensors() for model in (one, other)]
    return max((value - answers[1][name]).abs().max().item() for name, value in answers[0].items())


@CONFIGS
@pytest.mark.parametrize(("width", "layers"), [(64, 2), (128, 2), (64, 4), (128, 4), (192, 5)])
def test_a_grown_network_gives_the_same_gaussians(config, width, layers):
    model = trained(config)
    grown = grow(model, width, layers)
    assert (grown.config.width, grown.config.layers, len(grown.transformer.blocks)) == (width, layers, layers)
    assert difference(model, grown) < 1e-4
    for block in model.transformer.blocks:
        silence(block)
    assert difference(model, grown) > 0.1  # so the blocks matter


def test_the_transformer_is_the_same_in_float64():
    model = trained(PAPER).double()
    grown = grow(model, 128, 3)
    tokens = torch.randn(9, 64, dtype=torch.float64)
    expected = model.transformer(tokens, [5, 4])
    torch.testing.assert_close(grown.transformer(tokens.repeat(1, 2), [5, 4]), expected.repeat(1, 2))


def copies_of_units(model: ReconstructionModel) -> dict[str, torch.Tensor]:
    """What passes through the channels, heads and hidden units of each block, by name: [copy, token, unit]."""
    seen, hooks = {}, []
    for name, module in model.transformer.named_modules():
        if name.endswith(("to_out", "mlp.2", "output_norm")):
            keep = lambda _, inputs, name=name: seen.update({name: inputs[0].detach()})  # noqa: E731
            hooks.append(module.register_forward_pre_hook(keep))
    model(random_views())
    for hook in hooks:
        hook.remove()
    return {name: value.unflatten(-1, (2, -1)).movedim(-2, 0) for name, value in seen.items()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_copies_part_when_the_network_learns(optimizer):
    grown = grow(trained(WITH_ALL), 128, 2)
    before = copies_of_units(grown)
    assert len(before) == 5
    for one, other in before.values():
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    views = random_views()
    stepper = make_optimizer(optimizer, grown, 1e-3, 0.0)
    rendering = grown(views).gaussians.render(views.cameras, views.times)
    (rendering.image - views.composite(torch.ones(3))).square().mean().backward()
    # Gradients that are multiples of one another would make equal steps of AdamW.
    one, other = grown.embed.weight.grad.unflatten(0, (2, -1))
    assert torch.cosine_similarity(one, other).mean() < 0.98
    stepper.step()
    for name, (one, other) in copies_of_units(grown).items():
        apart = (one - other).square().mean(dim=0).sqrt() / one.std()
        assert apart.min() > 2e-4 and apart.mean() > 5e-3, name


def test_new_layers_learn():
    grown = grow(trained(WITH_ALL), 64, 4)
    views = random_views()
    grown(views).gaussians.means.square().mean().backward()
    silent = [block.attention.to_out.weight.abs().max() == 0 for block in grown.transformer.blocks]
    assert silent == [False, True, False, True]
    for block in grown.transformer.blocks:
        assert block.attention.to_out.weight.grad.abs().max() > 0 and block.mlp[2].weight.grad.abs().max() > 0


@pytest.mark.parametrize("copies", [2, 3])
def test_shares_are_uneven_and_sum_exactly_even_when_saved(copies):
    whole = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    parts = share(whole.repeat(1, copies), copies).unflatten(1, (copies, -1))
    assert torch.equal(parts.bfloat16().float(), parts)
    assert torch.equal(parts.sum(dim=1), whole)
    fractions = parts / whole[:, None]
    assert fractions.std(dim=1).mean() > 0.2 / copies and fractions.min() > 0
    torch.testing.assert_close(fractions.mean(dim=(0, 2)), torch.full((copies,), 1 / copies), rtol=0, atol=0.02)


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["grow", *arguments])
    command.main()


def test_the_command_writes_what_can_be_loaded(monkeypatch, tmp_path):
    save_pretrained(trained(WITH_ALL), tmp_path / "small")
    run(monkeypatch, f"{tmp_path}/small", "-o", f"{tmp_path}/grown", "width=128", "layers=3")
    grown = load_pretrained(tmp_path / "grown")
    assert grown.config == replace(WITH_ALL, width=128, layers=3)
    assert difference(load_pretrained(tmp_path / "small"), grown) < 1e-4  # although saved in bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("width=96", "64 .as it is., 128, 192 and so on"),
        ("width=32", "width 32"),
        ("width=0", "width 0"),
        ("layers=1", "2 .as it is. or more"),
        ("patch=4", "'patch' not in .*Growth has: width, layers"),
        ("width=wide", "wide"),
    ],
)
def test_what_would_compute_something_else_is_refused(monkeypatch, tmp_path, change, message):
    save_pretrained(trained(PAPER), tmp_path / "small")
    with pytest.raises(ValueError, match=message):
        run(monkeypatch, f"{tmp_path}/small", "-o", f"{tmp_path}/grown", change)
    assert not (tmp_path / "grown").exists()
