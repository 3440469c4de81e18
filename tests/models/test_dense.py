import copy
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tiepoint.checkpoints import Weights, write_pt
from tiepoint.conversion import check_images
from tiepoint.conversion.report import Bounds
from tiepoint.convert import convert
from tiepoint.errors import InputError
from tiepoint.models.base import Extractor, Maps, spec_of
from tiepoint.models.blocks import BranchedBlock, deployed
from tiepoint.models.dense import standardise, to_grey
from tiepoint.models.eighth import EighthExtractor
from tiepoint.models.pooled import PooledExtractor
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.ops.sampling import pixel_grid

SHAPES: dict[str, Callable[[], Extractor]] = {
    "pyramid": PyramidExtractor,
    "pyramid, branches": lambda: PyramidExtractor(branches=True),
    "eighth": EighthExtractor,
    "eighth, branches": lambda: EighthExtractor(branches=True),
    "pooled": PooledExtractor,
    "pooled, branches": lambda: PooledExtractor(branches=True),
}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Extractor:
    """One whose normalisations have seen images, in evaluation mode."""
    torch.manual_seed(0)
    model = SHAPES[request.param]().train()
    with torch.no_grad():
        for seed in range(3):
            model.maps(texture(64, 96, batch=2, seed=seed))
    return model.eval()


def texture(height: int, width: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    """Blurred noise of several scales in [0, 1], (B, 1, height, width)."""
    random = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(
            torch.rand((batch, 1, height // s, width // s), generator=random), (height, width), mode="bicubic"
        )
        for s in (2, 4, 16)
    ]
    return torch.stack(layers).mean(0).clamp(0, 1)


@torch.inference_mode()
def maps_of(model: Extractor, image: Tensor) -> Maps:
    return model.maps(image)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def nearest(points: Tensor, others: Tensor) -> Tensor:
    """Distance of each of (N, 2) points to the nearest of (M, 2) others."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


# where things lie


def mirrored(model: Extractor) -> Extractor:
    """A copy that cannot tell left from right or up from down: every kernel is the mean of its reflections.

    Channels that stand for the pixels of a block change places under a reflection, so they are averaged accordingly.
    """
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            for axis in (2, 3):
                average(layer.weight, lambda w, axis=axis: w.flip(axis))
    detector: nn.Sequential = model.detector  # type: ignore[assignment]
    first, last = (layer for layer in (detector[0], detector[-1]))
    for axis in (0, 1):
        side = 8 if isinstance(model, EighthExtractor) else 2
        out = reflection(side, axis, shuffled=lambda c, f=side // 2: F.pixel_shuffle(F.pixel_shuffle(c, f), 2))
        order = torch.cat((out, torch.arange(side * side, last.out_channels)))  # type: ignore[arg-type]
        spatial = (2 + axis,)
        average(last.weight, lambda w, order=order, spatial=spatial: w[order].flip(spatial))
        average(last.bias, lambda b, order=order: b[order])
        if side == 8:
            order = reflection(8, axis, shuffled=lambda c: F.pixel_shuffle(c, 8))
            average(first[0].weight, lambda w, order=order: w[:, order])
    return model.eval()


def average(parameter: Tensor, reflect: Callable[[Tensor], Tensor]) -> None:
    parameter.data = (parameter.data + reflect(parameter.data)) / 2


def reflection(side: int, axis: int, *, shuffled: Callable[[Tensor], Tensor]) -> Tensor:
    """The channel that takes the place of each when the blocks of side×side pixels are reflected."""
    places = shuffled(torch.arange(side * side, dtype=torch.float32).reshape(1, -1, 1, 1))[0, 0]
    order = torch.empty(side * side, dtype=torch.long)
    order[places.flatten().long()] = places.flip(axis).flatten().long()
    return order


@pytest.mark.parametrize("axis", [2, 3])
def test_maps_of_a_reflected_image_are_reflected(shape: Extractor, axis: int) -> None:
    """So each map's pixel is centred on the pixels that it stands for: a layer half a pixel off would break this."""
    model = mirrored(shape)
    image = texture(64, 96)
    for found, expected in zip(maps_of(model, image.flip(axis)), maps_of(model, image), strict=True):
        mean = expected.mean((2, 3), keepdim=True)  # what is the same everywhere proves nothing
        assert relative(found.flip(axis) - mean, expected - mean) < 1e-3


def test_a_network_that_can_tell_left_from_right_does(shape: Extractor) -> None:
    """The counterpart of the test above, which otherwise a network without any detail would pass."""
    image = texture(64, 96)
    for found, expected in zip(maps_of(shape, image.flip(3)), maps_of(shape, image), strict=True):
        mean = expected.mean((2, 3), keepdim=True)
        assert relative(found.flip(3) - mean, expected - mean) > 0.05


@pytest.mark.parametrize("shift", [(32, 0), (0, -64)])
def test_maps_move_with_the_content(shape: Extractor, shift: tuple[int, int]) -> None:
    """A shift by whole cells of the deepest level moves every map by as many of its own, away from the edges."""
    image = texture(448, 448)
    still, moved = maps_of(shape, image), maps_of(shape, image.roll(shift, (2, 3)))
    for found, expected in zip(moved, still, strict=True):
        stride = 448 // expected.shape[-1]
        inner = slice(192 // stride, 256 // stride)
        back = found.roll([-d // stride for d in shift], (2, 3))
        assert relative(back[..., inner, inner], expected[..., inner, inner]) < 1e-4


def blobs(places: Tensor) -> Tensor:
    """One bright blob in each grey image (B, 1, 64, 64), at pixels (x, y)."""
    away = (pixel_grid(64, 64) - places[:, None, None]).square().sum(-1)
    return (0.3 + 0.5 * (-away / 8).exp()).unsqueeze(1)


# of one cell of 8×8 pixels the outer ones see only half a blob
@pytest.mark.parametrize(
    ("make", "steps", "within"), [(PyramidExtractor, 40, 0.1), (EighthExtractor, 200, 0.5), (PooledExtractor, 40, 0.1)]
)
def test_a_detector_taught_on_blobs_puts_its_keypoints_on_their_centres(
    make: Callable[[], Extractor], steps: int, within: float
) -> None:
    torch.manual_seed(0)
    model = make().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        pixels = torch.randint(8, 56, (8, 2))
        odds = model.maps(blobs(pixels.float())).detection.flatten(1)
        loss = F.cross_entropy(odds, pixels[:, 1] * 64 + pixels[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    places = torch.randint(10, 54, (16, 2)).float()
    with torch.inference_mode():
        found = model.eval()(blobs(places), 1)
    assert (found.keypoints[:, 0] - places).norm(dim=1).median() < within


# the shapes and their form for use


def test_the_deployed_copy_finds_the_same(shape: Extractor) -> None:
    image = texture(97, 131)
    copied = deployed(shape)
    assert not any(isinstance(module, BranchedBlock) for module in copied.modules())
    assert spec_of(copied) == spec_of(shape)
    for found, expected in zip(maps_of(copied, texture(64, 96)), maps_of(shape, texture(64, 96)), strict=True):
        assert relative(found, expected) < 1e-4
    with torch.inference_mode():
        found, expected = copied(image, 50), shape(image, 50)
    assert (nearest(found.keypoints[0], expected.keypoints[0]) < 1e-2).float().mean() > 0.95


def test_deploying_twice_is_deploying_once(shape: Extractor) -> None:
    once, image = deployed(shape), texture(64, 96)
    for found, expected in zip(maps_of(deployed(once), image), maps_of(once, image), strict=True):
        assert torch.equal(found, expected)


def test_the_deployed_pyramid_describes_the_places_that_are_chosen_alone() -> None:
    torch.manual_seed(0)
    model = PyramidExtractor().eval()
    work = {}
    for name, network in (("trained", model), ("deployed", deployed(model))):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(texture(480, 640), 1)
        work[name] = counter.get_total_flops()
    # the last 1×1 convolution of 64 channels, at a quarter of the resolution
    assert work["trained"] - work["deployed"] == pytest.approx(2 * 120 * 160 * 64 * 64, rel=0.05)


def test_gradients_reach_every_parameter(shape: Extractor) -> None:
    model = copy.deepcopy(shape).train()
    maps = model.maps(texture(64, 64, batch=2))
    torch.stack([(value * torch.randn(value.shape)).sum() for value in maps]).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("cls", [EighthExtractor, PooledExtractor, PyramidExtractor])
def test_branches_are_for_training_alone(cls: type[EighthExtractor | PooledExtractor | PyramidExtractor]) -> None:
    plain, branched = cls(), cls(branches=True)
    assert spec_of(branched)["init_args"]["branches"] is True
    assert parameters(branched) > parameters(plain)
    assert parameters(deployed(branched)) == parameters(deployed(plain)) < parameters(plain)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "least", "most"),
    [(EighthExtractor, 640_000, 780_000), (PooledExtractor, 150_000, 175_000)],  # of the papers: 658 k and 155 k
)
def test_the_defaults_have_the_size_of_the_papers_networks(
    make: Callable[[], Extractor], least: int, most: int
) -> None:
    assert least < parameters(make()) < most


@pytest.mark.parametrize(
    ("make", "stride", "length"),
    [
        (lambda: EighthExtractor((4, 8, 16, 24, 32, 40), dim=32, detector=16), 8, 32),
        (lambda: PooledExtractor((8, 12, 16, 24), dim=32, head=4, groups=2, branches=True), 4, 32),
    ],
)
def test_widths_are_arguments(make: Callable[[], Extractor], stride: int, length: int) -> None:
    model = make().eval()
    maps = maps_of(model, texture(64, 96))
    assert maps.detection.shape == (1, 1, 64, 96)
    assert maps.reliability.shape == (1, 1, 64 // stride, 96 // stride)
    assert maps.descriptors.shape == (1, length, 64 // stride, 96 // stride)


@pytest.mark.parametrize(("cls", "count"), [(EighthExtractor, 6), (PooledExtractor, 4)])
def test_a_wrong_number_of_widths_is_refused(cls: type[EighthExtractor | PooledExtractor], count: int) -> None:
    with pytest.raises(InputError, match=rf"widths is \[16, 24\], expected {count} numbers"):
        cls((16, 24))


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: EighthExtractor(branches=True), lambda: PooledExtractor(branches=True)])
def test_the_exported_network_gives_the_same_answer(
    make: Callable[[], Extractor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_images, "SIZES", ((333, 517), (131, 97)))
    monkeypatch.setattr(check_images, "VIEWS", 1)
    torch.manual_seed(1)
    model = make().train()
    # without statistics of images all descriptors are nearly the same, and rounding decides who is nearest
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1).unsqueeze(0).float() / 255
    with torch.no_grad():
        for _ in range(40):
            model.maps(photo)
    source, target = tmp_path / "weights.pt", tmp_path / "weights.onnx"
    write_pt(source, Weights(model.eval(), {}))
    report = convert(source, target, bounds=Bounds(share=0.98, tolerance=100)).pairs
    assert max(row.matches for row in report) > 50
    # no branch and no normalisation that follows a convolution is left in the file
    kernels = [node for node in onnx.load(target).graph.node if node.op_type == "Conv"]
    fused = [layer for layer in deployed(model).modules() if isinstance(layer, nn.Conv2d)]
    assert len(kernels) == 2 * len(fused)  # two images


# the detector of cells


def test_detection_is_against_none() -> None:
    torch.manual_seed(0)
    model = EighthExtractor().eval()
    before = maps_of(model, texture(64, 64)).detection
    choice = model.detector[-1]
    assert isinstance(choice, nn.Conv2d)
    assert choice.bias is not None
    choice.bias.data[-1] += 3.0
    assert torch.allclose(maps_of(model, texture(64, 64)).detection, before - 3.0, atol=1e-5)


def test_the_detector_of_a_cell_sees_that_cell_alone() -> None:
    torch.manual_seed(0)
    model = EighthExtractor().eval()
    grey, _ = standardise(texture(64, 64))
    changed = grey.clone()
    changed[..., 16:24, 40:48] += 1.0
    with torch.inference_mode():
        (before, *_), (after, *_) = model.heads(grey), model.heads(changed)
    differs = (before != after).any(1)[0]
    assert differs[8:12, 20:24].all()
    differs[8:12, 20:24] = False
    assert not differs.any()


# what comes before the heads


def test_standardised_images_have_no_mean_and_unit_deviation() -> None:
    grey = 0.2 + 0.1 * texture(40, 56, batch=3)
    found, contrast = standardise(grey)
    assert contrast.tolist() == [True, True, True]
    assert found.mean((1, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(found.std((1, 2, 3)), torch.ones(3), atol=1e-2)
    assert torch.allclose(found, standardise(3 * grey - 1)[0], atol=1e-2)


def test_an_image_without_contrast_is_told_apart_and_nan_is_not_hidden() -> None:
    blank = torch.full((1, 1, 8, 8), 0.3)
    found, contrast = standardise(torch.cat((blank, texture(16, 16)[..., :8, :8])))
    assert contrast.tolist() == [False, True]
    assert (found[0] == 0).all()
    assert standardise(torch.full_like(blank, torch.nan))[0].isnan().all()


def test_grey_is_the_mean_of_the_channels() -> None:
    colour = torch.rand(2, 3, 4, 5)
    assert torch.allclose(to_grey(colour)[:, 0], colour.sum(1) / 3)
    assert torch.equal(to_grey(colour[:, :1]), colour[:, :1])
