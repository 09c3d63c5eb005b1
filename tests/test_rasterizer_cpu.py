"""The C++ operator against the reference in float64, over scenes of every kind; and how it is found."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterizer_scenes import (
    random_scene,
    random_weights,
    render_with_gradients,
    tensors,
    to_double,
    undecided_pixels,
)

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D, pack_symmetric
from lrm4d.operators import find_compiler
from lrm4d.rasterizer import cpu, rasterize

pytestmark = pytest.mark.skipif(find_compiler() is None and not cpu.is_available(), reason="no C++ compiler")
BACKGROUND = torch.tensor([0.1, 0.5, 0.9])
NAMES = ("means", "covariances", "opacities", "colors", "background")


def assert_agrees_with_reference(gaussians, cameras, low_pass=0.3, compensate=False):
    """Images within 1e-4, gradients of every input within 1e-3, but at pixels that rounding may decide (few)."""
    decided = ~undecided_pixels(gaussians, cameras, low_pass, compensate)
    assert decided.double().mean() > 0.9
    weights = [weight * decided for weight in random_weights(cameras)]
    options = dict(low_pass=low_pass, compensate=compensate)
    got, gradients = render_with_gradients(gaussians, cameras, BACKGROUND, weights, backend="cpu", **options)
    expected, exact = render_with_gradients(
        to_double(gaussians), cameras, BACKGROUND.double(), weights, backend="reference", **options
    )
    for plane in ("image", "alpha"):
        difference = (getattr(got, plane) - getattr(expected, plane)) * decided
        assert difference.abs().max() < 1e-4, (plane, difference.abs().max())
    difference = (got.depth - expected.depth) * decided
    assert difference.abs().max() < 1e-4 * expected.depth.abs().max().clamp(min=1)
    for name, gradient, right in zip(NAMES, gradients, exact, strict=True):
        assert (gradient - right).norm() <= 1e-3 * right.norm() + 1e-6, (name, gradient, right)
        if right.numel():
            assert (gradient - right).abs().max() <= 1e-3 * right.abs().max() + 1e-6, (name, gradient, right)


@pytest.mark.parametrize(
    ("n", "scale", "opaque", "size"),
    [
        (1, 0.1, False, (24, 18)),
        (300, 0.02, False, (24, 18)),
        (300, 0.1, False, (37, 21)),
        (300, 0.1, True, (24, 18)),
        (150, 1.0, False, (21, 37)),
        (40, 0.1, False, (1, 1)),
        (40, 0.1, False, (65, 1)),
        (1000, 0.003, True, (64, 48)),
    ],
)
def test_random_scenes(n, scale, opaque, size):
    gaussians, cameras = random_scene(n, n, views=2, width=size[0], height=size[1], scale=scale, opaque=opaque)
    assert_agrees_with_reference(gaussians, cameras)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    scale=st.floats(0.001, 0.6),
    low_pass=st.floats(0.05, 1.0),
    compensate=st.booleans(),
    opaque=st.booleans(),
)
def test_any_scene(seed, n, size, scale, low_pass, compensate, opaque):
    gaussians, cameras = random_scene(seed, n, width=size[0], height=size[1], scale=scale, opaque=opaque)
    assert_agrees_with_reference(gaussians, cameras, low_pass, compensate)


@pytest.mark.parametrize("axes", [(1.0, 1e-3, 1e-3), (2.0, 2.0, 1e-4), (30.0, 30.0, 30.0), (1e-6, 1e-6, 1e-6)])
def test_needles_plates_and_giants(axes):
    gaussians, cameras = random_scene(11, 12, views=3)
    turns = torch.linalg.qr(torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(0))).Q
    factors = turns * torch.tensor(axes)
    gaussians = Gaussians3D(
        gaussians.means, pack_symmetric(factors @ factors.mT), gaussians.opacities, gaussians.colors
    )
    assert_agrees_with_reference(gaussians, cameras)


def test_gaussians_beside_and_behind_the_camera():
    gaussians, cameras = random_scene(12, 200, views=4)
    around = Gaussians3D(gaussians.means * 8, *tensors(gaussians)[1:])  # the cameras stand among them
    assert_agrees_with_reference(around, cameras)


def test_a_camera_with_skew():
    gaussians, cameras = random_scene(13, 50, views=2)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., 0, 1] = 4.0
    assert_agrees_with_reference(gaussians, Cameras(cameras.camera_to_world, intrinsics, 24, 18))


def test_many_opaque_layers_keep_gradients_bounded():
    """Light divided back through Gaussians that were never drawn once grew to 1e12."""
    gaussians, cameras = random_scene(14, 3000, scale=0.15, opaque=True, width=16, height=16)
    assert_agrees_with_reference(gaussians, cameras)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_gradients_of_one_plane_alone(kept):
    gaussians, cameras = random_scene(15, 60)
    weights = [w * (k == kept) for k, w in enumerate(random_weights(cameras))]
    leaves = [x.clone().requires_grad_() for x in tensors(gaussians)]
    rendering = rasterize(Gaussians3D(*leaves), cameras, BACKGROUND, backend="cpu")
    plane = (rendering.image, rendering.alpha, rendering.depth)[kept]
    loss = (plane * weights[kept]).sum()
    gradients = torch.autograd.grad(loss, leaves)
    _, exact = render_with_gradients(to_double(gaussians), cameras, BACKGROUND.double(), weights, backend="reference")
    for gradient, right in zip(gradients, exact, strict=False):
        torch.testing.assert_close(gradient.double(), right, rtol=0, atol=1e-3 * float(right.abs().max()) + 1e-6)


def test_expanded_and_transposed_inputs_need_no_preparation():
    gaussians, cameras = random_scene(16, 30, batch=(2, 3), views=1)
    shared = gaussians.covariances[:, :1].expand(2, 3, 30, 6)  # the same at all times, without a copy
    turned = gaussians.means.movedim(-2, 0).contiguous().movedim(0, -2)
    odd = Gaussians3D(turned, shared, gaussians.opacities[..., None].expand(2, 3, 30, 2)[..., 1], gaussians.colors)
    plain = Gaussians3D(gaussians.means, shared.contiguous(), gaussians.opacities, gaussians.colors)
    a = rasterize(odd, cameras, BACKGROUND, backend="cpu")
    b = rasterize(plain, cameras, BACKGROUND, backend="cpu")
    assert torch.equal(a.image, b.image)

    leaf = gaussians.covariances[:, :1].clone().requires_grad_()
    scene = Gaussians3D(gaussians.means, leaf.expand(2, 3, 30, 6), gaussians.opacities, gaussians.colors)
    rasterize(scene, cameras, BACKGROUND, backend="cpu").image.sum().backward()
    full = plain.covariances.clone().requires_grad_()
    scene = Gaussians3D(gaussians.means, full, gaussians.opacities, gaussians.colors)
    rasterize(scene, cameras, BACKGROUND, backend="cpu").image.sum().backward()
    torch.testing.assert_close(leaf.grad, full.grad.sum(1, keepdim=True))


def test_threads_do_not_change_a_bit():
    gaussians, cameras = random_scene(17, 5000, views=3, width=64, height=48, scale=0.03)
    weights, before = random_weights(cameras), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            rendering, gradients = render_with_gradients(gaussians, cameras, BACKGROUND, weights, backend="cpu")
            results.append((rendering.image, rendering.depth, *gradients[:4]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_baseline_instructions_agree(monkeypatch):
    gaussians, cameras = random_scene(18, 400, views=2, width=40, height=30)
    weights = random_weights(cameras)
    fast, fast_gradients = render_with_gradients(gaussians, cameras, BACKGROUND, weights, backend="cpu")
    monkeypatch.setenv("LRM4D_CPU_ISA", "baseline")
    slow, slow_gradients = render_with_gradients(gaussians, cameras, BACKGROUND, weights, backend="cpu")
    torch.testing.assert_close(fast.image, slow.image, rtol=0, atol=1e-5)
    for name, x, y in zip(NAMES, fast_gradients, slow_gradients, strict=True):
        assert (x - y).norm() < 1e-4 * y.norm(), name


def test_background_alone_gets_its_gradient():
    gaussians, cameras = random_scene(20, 30)
    background = BACKGROUND.clone().requires_grad_()
    rendering = rasterize(gaussians, cameras, background, backend="cpu")
    rendering.image.sum().backward()
    torch.testing.assert_close(background.grad, (1 - rendering.alpha).sum().expand(3))


def test_autocast_leaves_the_picture_alone():
    gaussians, cameras = random_scene(21, 60)
    plain = rasterize(gaussians, cameras, BACKGROUND, backend="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rasterize(gaussians, cameras, BACKGROUND, backend="cpu")
    assert torch.equal(plain.image, cast.image)


def test_second_derivatives_are_refused_not_wrong():
    gaussians, cameras = random_scene(22, 10)
    leaves = [x.requires_grad_() for x in tensors(gaussians)]
    image = rasterize(Gaussians3D(*leaves), cameras, BACKGROUND, backend="cpu").image
    (gradient,) = torch.autograd.grad(image.square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.sum().backward()


def test_torch_knows_the_operator():
    cpu.is_available()
    gaussians, cameras = random_scene(19, 20, batch=(2,), views=1)
    leaves = [x.requires_grad_() for x in tensors(gaussians)]
    arguments = (*leaves, cameras.world_to_camera, cameras.intrinsics, BACKGROUND, 24, 18, 0.3, False, 1, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.lrm4d.rasterize_forward, arguments, test_utils=checks)
