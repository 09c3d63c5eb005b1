import pytest
import torch
from skimage.metrics import structural_similarity

from lrm4d import losses


def pictures(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(*shape, generator=generator, dtype=torch.float64)
    return first, (first + 0.2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_every_loss_is_zero_for_equal_pictures_and_positive_otherwise():
    first, second = pictures(2, 3, 20, 17)
    for loss in (losses.color_loss, losses.gradient_loss, losses.ssim_loss):
        assert loss(first, first).abs() < 1e-12
        assert loss(first, second) > 1e-3
    assert losses.silhouette_loss(first[:, :1], second[:, :1]) > 1e-3


def test_psnr_loss_is_minus_the_mean_psnr_in_bels_and_finite_for_equal_pictures():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 3, 8, 8, generator=generator)
    errors = torch.tensor([0.05, 0.1, 0.3])[:, None, None, None]
    expected = -(-20 * torch.log10(errors.flatten())).mean() / 10
    assert losses.psnr_loss(truth + errors, truth).item() == pytest.approx(expected.item(), abs=0.02)
    assert losses.psnr_loss(truth, truth).item() == pytest.approx(-4)


def test_ssim_map_is_that_of_skimage_where_the_window_fits():
    first, second = pictures(3, 24, 31)
    _, expected = structural_similarity(
        first.numpy(), second.numpy(), data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inner = torch.from_numpy(expected)[:, 5:-5, 5:-5]
    torch.testing.assert_close(losses.ssim_map(first, second), inner, atol=1e-9, rtol=0)


def test_ssim_refuses_pictures_smaller_than_its_window():
    first, second = pictures(1, 3, 10, 30)
    with pytest.raises(ValueError, match="30 x 10 pixels"):
        losses.ssim_loss(first, second)


def test_gradient_loss_ignores_brightness_and_sees_an_edge():
    dark, edge = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    assert losses.gradient_loss(dark, dark + 0.3) < 1e-6
    assert losses.gradient_loss(dark, edge) == pytest.approx(1 / 7)


def test_losses_have_right_gradients():
    first, second = pictures(1, 1, 13, 12)
    first.requires_grad_()
    for loss in (losses.ssim_loss, losses.silhouette_loss):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, second), first)
