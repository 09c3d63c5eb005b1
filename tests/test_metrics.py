import math

import pytest
import torch
from skimage.metrics import structural_similarity

from lrm4d import metrics


def test_psnr_of_a_known_error_and_of_equal_pictures():
    target = torch.full((2, 3, 3, 8, 8), 0.5)
    torch.testing.assert_close(metrics.psnr(target + 0.1, target), torch.full((2, 3), 20.0), atol=1e-4, rtol=0)
    assert bool((metrics.psnr(target, target) == metrics.HIGHEST_PSNR).all())


def test_psnr_is_the_mean_over_pictures_not_over_pixels():
    target = torch.zeros(2, 3, 4, 4)
    prediction = torch.stack([target[0] + 0.1, target[1] + 1.0])
    torch.testing.assert_close(metrics.psnr(prediction, target), torch.tensor([20.0, 0.0]), atol=1e-4, rtol=0)


def test_masked_psnr_sees_only_the_mask():
    target, mask = torch.zeros(1, 3, 6, 6), torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., :2, :3] = True
    prediction = torch.where(mask, 0.1, 0.9).expand(1, 3, 6, 6)
    assert metrics.masked_psnr(prediction, target, mask).item() == pytest.approx(20, abs=1e-4)
    assert math.isnan(metrics.masked_psnr(prediction, target, mask & False).item())
    everything = mask | True
    torch.testing.assert_close(
        metrics.masked_psnr(prediction, target, everything), metrics.psnr(prediction, target), atol=1e-4, rtol=0
    )


def test_object_mask_grows_a_pixel_to_a_diamond_of_radius_four():
    alphas = torch.zeros(2, 1, 15, 17)
    alphas[0, 0, 7, 8] = 0.51
    alphas[1, 0, 7, 8] = 0.5
    rows, columns = torch.meshgrid(torch.arange(15), torch.arange(17), indexing="ij")
    diamond = (rows - 7).abs() + (columns - 8).abs() <= 4
    mask = metrics.object_mask(alphas)
    assert torch.equal(mask[0, 0], diamond)
    assert not mask[1].any()
    assert torch.equal(metrics.object_mask(alphas[0]), mask[0])


def test_ssim_is_near_skimage():
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(2, 3, 40, 33, generator=generator)
    prediction = (target + 0.1 * torch.randn(2, 3, 40, 33, generator=generator)).clamp(0, 1)
    # skimage's mean leaves out the same border.
    expected = [
        structural_similarity(
            a.numpy(), b.numpy(), data_range=1.0, channel_axis=0, gaussian_weights=True, use_sample_covariance=False
        )
        for a, b in zip(prediction, target, strict=True)
    ]
    torch.testing.assert_close(metrics.ssim(prediction, target), torch.tensor(expected).float(), atol=1e-4, rtol=0)


def test_lpips_says_why_it_is_missing():
    if metrics.why_no_lpips() is None:
        pytest.skip("lpips is installed")
    with pytest.raises(ValueError, match="pip install lpips"):
        metrics.lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
