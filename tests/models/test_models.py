import copy
import inspect
import pickle
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiepoint import models
from tiepoint.models.base import Extractor, Keypoints, spec_of
from tiepoint.models.twoview import TwoViewMatcher, TwoViewMatches
from tiepoint.ops.sampling import sample


def _extractors() -> list[type[Extractor]]:
    """Every extractor of the room that can be built without arguments; a new file is found by itself."""
    found = []
    for module in iter_modules(models.__path__):
        if module.name in ("base", "twoview"):
            continue
        for value in vars(import_module(f"{models.__name__}.{module.name}")).values():
            own = inspect.isclass(value) and value.__module__ == f"{models.__name__}.{module.name}"
            if own and issubclass(value, Extractor) and not inspect.isabstract(value):
                required = [p for p in inspect.signature(value).parameters.values() if p.default is p.empty]
                if not required:
                    found.append(value)
    return found


EXTRACTORS = _extractors()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textured(height: int, width: int, *, batch: int = 1, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth random texture with some sharp detail, in [0, 1]."""
    coarse = torch.rand((batch, channels, height // 8 + 2, width // 8 + 2), generator=generator(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return (0.7 * smooth + 0.3 * torch.rand(smooth.shape, generator=generator(seed + 1))).clamp(0, 1)


@pytest.fixture(scope="module", params=EXTRACTORS, ids=lambda extractor: extractor.__name__)
def extractor(request: pytest.FixtureRequest) -> Extractor:
    """One that finds keypoints even untrained, in evaluation mode."""
    torch.manual_seed(0)
    model: Extractor = request.param()
    return model.eval()


@torch.inference_mode()
def extract(model: Extractor, image: Tensor, count: int = 64) -> Keypoints:
    return model(image, count)


def test_the_room_is_not_empty() -> None:
    assert "PyramidExtractor" in {extractor.__name__ for extractor in EXTRACTORS}


def test_it_is_small(extractor: Extractor) -> None:
    assert 0 < sum(parameter.numel() for parameter in extractor.parameters()) < 1_000_000


@pytest.mark.parametrize("size", [(97, 131), (131, 97), (64, 96), (8, 8), (1, 1), (1, 50)])
@pytest.mark.parametrize("count", [1, 300])
def test_images_of_any_size_give_as_many_keypoints_as_asked_for(
    extractor: Extractor, size: tuple[int, int], count: int
) -> None:
    found = extract(extractor, textured(*size), count)
    assert found.keypoints.shape == (1, count, 2)
    assert found.scores.shape == found.mask.shape == (1, count)
    assert found.descriptors.shape[:2] == (1, count)
    assert found.mask.dtype == torch.bool
    assert all(value.isfinite().all() for value in found)
    assert torch.allclose(found.descriptors.norm(dim=2), torch.ones(1, count), atol=1e-4)
    assert (found.keypoints >= 0).all()
    assert (found.keypoints <= torch.tensor([size[1] - 1.0, size[0] - 1.0])).all()


def test_keypoints_come_best_first_and_padding_last(extractor: Extractor) -> None:
    found = extract(extractor, textured(97, 131), 2000)
    assert 10 < found.mask.sum() < 2000
    assert (found.scores[0, :-1] >= found.scores[0, 1:]).all()
    assert found.scores.max() <= 1
    assert (found.scores[found.mask] > 0).all()
    assert (found.scores[~found.mask] == 0).all()
    assert (found.mask[0, :-1] | ~found.mask[0, 1:]).all()
    places = found.keypoints[found.mask]
    assert torch.cdist(places, places).fill_diagonal_(9).min() > 0.1


def test_fewer_keypoints_are_the_best_of_more(extractor: Extractor) -> None:
    image = textured(97, 131)
    few, many = extract(extractor, image, 10), extract(extractor, image, 100)
    for value, more in zip(few, many, strict=True):
        assert torch.allclose(value.float(), more[:, :10].float(), atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_blank_image_has_no_keypoint(extractor: Extractor, level: float) -> None:
    found = extract(extractor, torch.full((1, 3, 70, 90), level))
    assert not found.mask.any()
    assert all(value.isfinite().all() for value in found)


def test_a_blank_image_does_not_blind_the_rest_of_its_batch(extractor: Extractor) -> None:
    image = textured(64, 64)
    found = extract(extractor, torch.cat((torch.full_like(image, 0.5), image)))
    assert not found.mask[0].any()
    assert found.mask[1].any()


def test_grey_and_rgb_of_the_same_content_agree(extractor: Extractor) -> None:
    grey = textured(64, 96, channels=1)
    alone, coloured = extract(extractor, grey), extract(extractor, grey.expand(-1, 3, -1, -1))
    assert torch.equal(alone.mask, coloured.mask)
    assert torch.allclose(alone.keypoints, coloured.keypoints, atol=1e-2)
    assert torch.allclose(alone.descriptors, coloured.descriptors, atol=1e-2)


def test_brightness_and_contrast_do_not_matter(extractor: Extractor) -> None:
    image = textured(64, 96)
    bright, dim = extract(extractor, image), extract(extractor, 0.5 * image + 0.2)
    assert torch.allclose(bright.keypoints[:, :20], dim.keypoints[:, :20], atol=0.05)
    assert torch.allclose(bright.descriptors[:, :20], dim.descriptors[:, :20], atol=0.01)


def test_a_batch_of_two_is_two_batches_of_one(extractor: Extractor) -> None:
    images = textured(80, 72, batch=2)
    both = extract(extractor, images)
    for index in range(2):
        alone = extract(extractor, images[index : index + 1])
        assert torch.equal(both.mask[index], alone.mask[0])
        assert torch.allclose(both.keypoints[index], alone.keypoints[0], atol=1e-3)
        assert torch.allclose(both.descriptors[index], alone.descriptors[0], atol=1e-3)
        assert torch.allclose(both.scores[index], alone.scores[0], atol=1e-4)


def test_maps_have_the_shapes_that_training_relies_on(extractor: Extractor) -> None:
    model = copy.deepcopy(extractor).train()
    maps = model.maps(textured(64, 96, batch=2))
    assert maps.detection.shape == (2, 1, 64, 96)
    stride = 96 // maps.descriptors.shape[-1]
    assert maps.reliability.shape == (2, 1, 64 // stride, 96 // stride)
    assert maps.descriptors.shape[::2] == (2, 64 // stride)
    assert maps.descriptors.shape[1] == extract(extractor, textured(64, 96)).descriptors.shape[2]


def test_keypoints_are_read_off_the_maps_where_training_reads_them(extractor: Extractor) -> None:
    """A map of stride s has the centre of its first pixel at pixel (s - 1) / 2 of the image."""
    image = textured(64, 96)
    with torch.inference_mode():
        maps = extractor.maps(image)
    found = extract(extractor, image, 20)
    assert found.mask.all()
    pixels = found.keypoints[0].round().long()
    at = maps.detection[0, 0, pixels[:, 1], pixels[:, 0]]
    assert (at > maps.detection.median()).float().mean() > 0.9
    stride = 96 // maps.descriptors.shape[-1]
    descriptors = sample(maps.descriptors, (found.keypoints - (stride - 1) / 2) / stride)
    assert torch.allclose(found.descriptors, F.normalize(descriptors, dim=-1), atol=1e-3)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_no_channel_is_overlooked(extractor: Extractor, channel: int) -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    image[:, channel] = textured(64, 64, channels=1)[:, 0]
    assert extract(extractor, image).mask.sum() > 5


def test_gradients_reach_every_parameter(extractor: Extractor) -> None:
    model = copy.deepcopy(extractor).train()
    maps = model.maps(textured(64, 64, batch=2))
    weights = [torch.randn(value.shape, generator=generator(3)) for value in maps]
    sum((value * weight).sum() for value, weight in zip(maps, weights, strict=True)).backward()  # type: ignore[union-attr]
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# a model and the plain data that describes it


def rebuilt(spec: dict[str, object]) -> Extractor:
    module, _, name = str(spec["class_path"]).rpartition(".")
    model: Extractor = getattr(import_module(module), name)(**spec["init_args"])  # type: ignore[arg-type]
    return model.eval()


def test_the_spec_rebuilds_the_same_architecture(extractor: Extractor) -> None:
    copied = rebuilt(spec_of(extractor))
    copied.load_state_dict(extractor.state_dict(), strict=True)
    image = textured(64, 64)
    for value, again in zip(extract(extractor, image), extract(copied, image), strict=True):
        assert torch.equal(value, again)


def test_the_spec_remembers_what_differs_from_the_defaults() -> None:
    from tiepoint.models.pyramid import PyramidExtractor

    model = PyramidExtractor((8, 16, 32, 32, 32), dim=32, border=5)
    spec = spec_of(model)
    assert spec["class_path"] == "tiepoint.models.pyramid.PyramidExtractor"
    assert spec["init_args"]["widths"] == [8, 16, 32, 32, 32]
    assert spec["init_args"] | {"dim": 32, "border": 5} == spec["init_args"]
    assert set(spec["init_args"]) == set(inspect.signature(PyramidExtractor).parameters)
    rebuilt(spec).load_state_dict(model.state_dict(), strict=True)


def test_the_spec_is_a_copy(extractor: Extractor) -> None:
    spec_of(extractor)["init_args"].clear()
    assert spec_of(extractor)["init_args"]


def test_copies_and_pickles_remember_their_arguments() -> None:
    from tiepoint.models.pyramid import PyramidExtractor

    model = PyramidExtractor(dim=32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert spec_of(twin) == spec_of(model)
        assert twin.init_args is not model.init_args
        twin.load_state_dict(model.state_dict(), strict=True)


def test_wrong_arguments_are_refused_by_name() -> None:
    from tiepoint.models.pyramid import PyramidExtractor

    with pytest.raises(TypeError, match="depth"):
        PyramidExtractor(depth=3)  # type: ignore[call-arg]


# two photographs


def uint8(image: Tensor) -> Tensor:
    return (255 * image.permute(0, 2, 3, 1)).round().to(torch.uint8)


@torch.inference_mode()
def match(model: Extractor, image0: Tensor, image1: Tensor, count: int = 256, **kwargs: float) -> TwoViewMatches:
    return TwoViewMatcher(model, **kwargs).eval()(uint8(image0), uint8(image1), torch.tensor(count))


def matched_places(matches: TwoViewMatches) -> tuple[Tensor, Tensor]:
    chosen = matches.matches0[0] >= 0
    return matches.keypoints0[0, chosen], matches.keypoints1[0, matches.matches0[0, chosen]]


def test_an_image_matches_itself(extractor: Extractor) -> None:
    image = textured(96, 128)
    matches = match(extractor, image, image)
    found = (matches.keypoint_scores0[0] > 0).sum()
    assert found > 50
    own = torch.arange(256)
    chosen = matches.matches0[0] >= 0
    assert chosen.sum() >= 0.95 * found
    assert (matches.matches0[0, chosen] == own[chosen]).float().mean() > 0.95
    assert matches.scores[0, chosen].min() > 0.99
    assert not chosen[matches.keypoint_scores0[0] == 0].any()
    assert (matches.scores[0, ~chosen] == 0).all()


@pytest.mark.parametrize("shift", [(32, 0), (0, 64), (64, 32)])
def test_matches_move_with_the_content(extractor: Extractor, shift: tuple[int, int]) -> None:
    scene = textured(224, 256)
    dx, dy = shift
    places0, places1 = matched_places(
        match(extractor, scene[..., :160, :192], scene[..., dy : dy + 160, dx : dx + 192])
    )
    off = (places0 - places1 - torch.tensor(shift)).norm(dim=1)
    assert (off < 0.5).sum() >= 30
    assert (off < 0.5).float().mean() > 0.5


def test_images_of_different_sizes_match(extractor: Extractor) -> None:
    scene = textured(128, 160)
    matches = match(extractor, scene, scene[..., :96, :101])
    places0, places1 = matched_places(matches)
    assert ((places0 - places1).norm(dim=1) < 0.5).sum() > 20


def test_a_blank_image_matches_nothing(extractor: Extractor) -> None:
    image = textured(64, 64)
    for pair in ((image, torch.zeros_like(image)), (torch.zeros_like(image), image), 2 * (torch.zeros_like(image),)):
        matches = match(extractor, *pair)
        assert (matches.matches0 == -1).all()
        assert all(value.isfinite().all() for value in matches)


def test_matches_are_one_to_one_scored_and_above_the_least(extractor: Extractor) -> None:
    images = textured(96, 96), textured(96, 96, seed=7)
    matches = match(extractor, *images)
    strict = match(extractor, *images, min_similarity=float(matches.scores[matches.scores > 0].median()))
    partners = matches.matches0[matches.matches0 >= 0]
    assert len(partners.unique()) == len(partners) > 0
    assert 0 <= matches.scores.min() <= matches.scores.max() <= 1
    assert 0 < (strict.matches0 >= 0).sum() < (matches.matches0 >= 0).sum()
    kept = strict.matches0 >= 0
    assert torch.equal(strict.matches0[kept], matches.matches0[kept])
