"""gsplat behind our interface gives our pictures and gradients. Needs a GPU and gsplat (compiled at first use)."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from rasterizer_scenes import random_scene, random_weights, render_with_gradients, tensors

from lrm4d.gaussians3d import Gaussians3D
from lrm4d.rasterizer import choose_backend, cuda, rasterize

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available() or not cuda.is_available(), reason="needs a GPU and gsplat"),
]
BACKGROUND = torch.tensor([0.1, 0.5, 0.9])


def on_gpu(gaussians: Gaussians3D) -> Gaussians3D:
    return Gaussians3D(*(x.cuda() for x in tensors(gaussians)))


@pytest.mark.parametrize("compensate", [False, True])
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_gsplat_agrees_with_the_reference(batch, compensate):
    # Faint enough that neither clamp (0.99 and 0.999) nor the end of a pixel plays a part.
    gaussians, cameras = random_scene(1, 60, batch=batch, views=2, width=40, height=30)
    gaussians = Gaussians3D(gaussians.means, gaussians.covariances, 0.3 * gaussians.opacities, gaussians.colors)
    weights = random_weights(cameras)
    ours, expected = render_with_gradients(
        gaussians, cameras, BACKGROUND, weights, backend="reference", compensate=compensate
    )
    theirs, gradients = render_with_gradients(
        on_gpu(gaussians),
        cameras.to("cuda"),
        BACKGROUND.cuda(),
        [w.cuda() for w in weights],
        backend="cuda",
        compensate=compensate,
    )
    # A pixel at the edge of a Gaussian may be decided otherwise: 1/255 at most, and seldom.
    difference = (theirs.image.cpu() - ours.image).abs()
    assert difference.max() < 0.005 and (difference > 1e-4).double().mean() < 1e-3
    for gradient, right in zip(gradients, expected, strict=True):
        assert (gradient.cpu() - right).norm() < 2e-2 * right.norm()


def test_auto_is_gsplat_and_bad_numbers_are_not_drawn():
    gaussians, cameras = random_scene(2, 40)
    bad = Gaussians3D(*(torch.cat([x, x[:1] * float("nan")]) for x in tensors(gaussians)))
    assert choose_backend(on_gpu(bad)) == "cuda"
    clean = rasterize(on_gpu(gaussians), cameras.to("cuda"), BACKGROUND.cuda())
    got = rasterize(on_gpu(bad), cameras.to("cuda"), BACKGROUND.cuda())
    torch.testing.assert_close(got.image, clean.image)


def test_nothing_to_draw():
    gaussians, cameras = random_scene(3, 0)
    rendering = rasterize(on_gpu(gaussians), cameras.to("cuda"), BACKGROUND.cuda())
    assert rendering.alpha.eq(0).all()
