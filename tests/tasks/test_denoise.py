"""What a denoiser learns from: the strength of the noise beside the image."""

import pytest
import torch

from tiepoint.models.denoise import DenoiseNetwork
from tiepoint.ops.noise import gaussian_noise
from tiepoint.tasks.denoise import DenoiseTask, with_level


@pytest.mark.parametrize("sigma", [5.0, 25.0, 50.0])
def test_the_strength_of_the_noise_is_estimated(sigma: float) -> None:
    ramp = torch.linspace(0, 1, 96).expand(2, 3, 96, 96)
    noisy = gaussian_noise(ramp, torch.tensor([sigma, 0.0]), generator=torch.Generator().manual_seed(0))
    told = with_level(noisy)
    assert torch.equal(told[:, :3], noisy)
    assert told[0, 3].unique().tolist() == pytest.approx([sigma / 255], rel=0.05)
    assert told[1, 3].abs().max() < 1e-3


def test_the_network_goes_by_the_strength_that_it_is_told() -> None:
    torch.manual_seed(0)
    network = DenoiseNetwork(widths=(8, 8), blocks=1).eval()
    torch.nn.init.normal_(network.leave.weight)  # it begins as an identity
    told = with_level(torch.rand(1, 3, 32, 32))
    with torch.inference_mode():
        usual = network(told)
        told[:, 3] += 0.1
        assert not torch.allclose(network(told), usual)


def test_what_it_makes_of_noise_is_made_of_the_estimate() -> None:
    torch.manual_seed(0)
    task = DenoiseTask(DenoiseNetwork(widths=(8, 8), blocks=1)).eval()
    noisy = torch.rand(2, 3, 33, 40)
    with torch.inference_mode():
        assert torch.equal(task(noisy), task.model(with_level(noisy)))
