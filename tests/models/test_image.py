"""Every network of single images, found by listing the room: sizes, batches, gradients, and its graph."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
import torch

from tiepoint import models
from tiepoint.models.blocks import deployed
from tiepoint.models.image import ImageMaps, ImageNetwork, padded


def _networks() -> list[type[ImageNetwork]]:
    found = []
    for module in iter_modules(models.__path__, f"{models.__name__}."):
        for value in vars(import_module(module.name)).values():
            own = inspect.isclass(value) and value.__module__ == module.name
            if own and issubclass(value, ImageNetwork) and not inspect.isabstract(value):
                found.append(value)
    return found


@pytest.fixture(scope="module", params=_networks(), ids=lambda kind: kind.__name__)
def network(request: pytest.FixtureRequest) -> ImageNetwork:
    torch.manual_seed(0)
    built: ImageNetwork = request.param()
    for parameter in built.parameters():  # one that begins as an identity does something now
        parameter.data += 0.02 * torch.randn_like(parameter)
    return built.eval()


def test_the_room_is_not_empty() -> None:
    assert {"EdgeNetwork", "DenoiseNetwork"} <= {kind.__name__ for kind in _networks()}


@pytest.mark.parametrize("size", [(64, 96), (97, 131), (131, 97), (8, 8), (1, 1), (1, 50)])
def test_maps_have_the_size_of_the_image(network: ImageNetwork, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        maps = network(torch.rand(1, network.CHANNELS, *size, generator=torch.Generator().manual_seed(0)))
    assert maps.shape[0] == 1
    assert maps.shape[2:] == size
    assert maps.isfinite().all()


def test_images_of_a_batch_do_not_know_of_each_other(network: ImageNetwork) -> None:
    images = torch.rand(3, network.CHANNELS, 45, 67, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together, apart = network(images), torch.cat([network(images[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_it_is_small_enough(network: ImageNetwork) -> None:
    most = {"EdgeNetwork": 500_000, "DenoiseNetwork": 700_000}.get(type(network).__name__, 1_000_000)
    assert sum(parameter.numel() for parameter in network.parameters()) <= most


def test_its_fused_form_is_the_same_function(network: ImageNetwork) -> None:
    image = torch.rand(1, network.CHANNELS, 64, 80, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.allclose(network(image), deployed(network)(image), atol=1e-4)


def test_every_parameter_learns(network: ImageNetwork) -> None:
    """From what training supervises: all outputs where a network has several."""
    network.zero_grad()
    image = torch.rand(1, network.CHANNELS, 64, 64, generator=torch.Generator().manual_seed(3))
    outputs = network.logits(image) if hasattr(network, "logits") else [network(image)]
    sum(output.square().sum() for output in outputs).backward()
    assert not [name for name, weights in network.named_parameters() if weights.grad is None]


def test_the_graph_takes_bytes_and_floats(network: ImageNetwork) -> None:
    size = 2, 40, 56, network.CHANNELS
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    graph = ImageMaps(network)
    with torch.inference_mode():
        maps = graph(images)
        assert torch.allclose(maps, graph(images.float() / 255), atol=1e-6)
        expected = network(images.permute(0, 3, 1, 2).float() / 255).permute(0, 2, 3, 1)
    assert torch.equal(maps, expected)


@pytest.mark.parametrize("size", [(31, 32), (33, 64), (40, 17)])
def test_padding_mirrors_the_image(size: tuple[int, int]) -> None:
    image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(5))
    wide = padded(image, 32)
    assert all(side % 32 == 0 and side - own < 32 for side, own in zip(wide.shape[2:], size, strict=True))
    more = [(0, side - own) for side, own in zip(wide.shape[2:], size, strict=True)]
    assert (wide[0].numpy() == np.pad(image[0].numpy(), [(0, 0), *more], mode="reflect")).all()


def test_padding_repeats_what_is_left_when_all_has_been_mirrored() -> None:
    image = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    assert padded(image, 4)[0, 0].tolist() == [[1, 2, 3, 2]] * 4
    assert padded(image, 8)[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]


def test_the_probability_is_that_of_the_last_output() -> None:
    from tiepoint.models.edges import EdgeNetwork

    torch.manual_seed(0)
    model, image = EdgeNetwork().eval(), torch.rand(1, 3, 50, 70)
    with torch.inference_mode():
        outputs = model.logits(image)
        assert len(outputs) == 6
        assert all(output.shape == (1, 1, 50, 70) for output in outputs)
        assert torch.equal(model(image), outputs[-1].sigmoid())
    # an edge is rare, and an untrained network says so
    assert 0.02 < float(outputs[-1].sigmoid().mean()) < 0.35
