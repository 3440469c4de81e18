import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiepoint.models.attention import AttentionMatcher, AttentiveTwoViewMatcher, centred
from tiepoint.models.base import Keypoints, spec_of
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.models.twoview import TwoViewMatches
from tiepoint.ops.assignment import Assignment, log_assignment, mutual_assignment
from tiepoint.ops.matching import mutual_nearest, similarity

SIZE = (96, 128)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keypoints(count: int = 40, *, batch: int = 1, seed: int = 0, dim: int = 16) -> Keypoints:
    places = torch.rand((batch, count, 2), generator=generator(seed)) * torch.tensor((SIZE[1] - 1.0, SIZE[0] - 1.0))
    descriptors = F.normalize(torch.randn((batch, count, dim), generator=generator(seed + 1)), dim=2)
    return Keypoints(places, descriptors, torch.ones(batch, count), torch.ones(batch, count, dtype=torch.bool))


def with_padding(features: Keypoints, count: int, *, seed: int = 0) -> Keypoints:
    """The same with padding at the end, whose content is arbitrary."""
    batch = len(features.mask)
    more = keypoints(count, batch=batch, seed=seed + 50)._replace(mask=torch.zeros(batch, count, dtype=torch.bool))
    return Keypoints(*(torch.cat(pair, dim=1) for pair in zip(features, more, strict=True)))


def small(**kwargs: Any) -> AttentionMatcher:
    torch.manual_seed(0)
    return AttentionMatcher(**{"inputs": 16, "dim": 24, "layers": 2, "heads": 2, "width": 8} | kwargs).eval()


@pytest.fixture
def stirred() -> AttentionMatcher:
    """A matcher of which every layer takes part, as after training."""
    matcher = small()
    with torch.no_grad():
        for parameter in matcher.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(parameter.numel()))
    return matcher


@torch.no_grad()
def assign(matcher: AttentionMatcher, features0: Keypoints, features1: Keypoints) -> Assignment:
    return matcher(features0, features1, SIZE, SIZE)


def close(a: Assignment, b: Assignment) -> bool:
    return all(torch.allclose(x, y, atol=2e-4, rtol=1e-3) for x, y in zip(a, b, strict=True))


def test_untrained_it_is_the_matcher_of_the_descriptors() -> None:
    features0, features1 = keypoints(60), keypoints(60, seed=7)
    found = assign(small(), features0, features1)
    cosines = similarity(features0.descriptors, features1.descriptors, features0.mask, features1.mask)
    assert torch.allclose(found.similarity, 20 * cosines, atol=1e-3)
    same = keypoints(60)._replace(descriptors=F.normalize(features0.descriptors + 0.1, dim=2))
    matches0, scores = mutual_assignment(assign(small(), features0, same), min_score=0.0)
    nearest, _ = mutual_nearest(similarity(features0.descriptors, same.descriptors, same.mask, same.mask))
    assert torch.equal(matches0[nearest >= 0], nearest[nearest >= 0])
    assert 0 < scores.max() <= 0.25  # whether a keypoint can be matched at all, it does not know yet


def test_padding_takes_no_part(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(30, batch=2), keypoints(30, batch=2, seed=3)
    alone = assign(stirred, features0, features1)
    for seed in (0, 1):
        found = assign(stirred, with_padding(features0, 10, seed=seed), with_padding(features1, 10, seed=seed + 5))
        cut = Assignment(found.similarity[:, :30, :30], found.odds0[:, :30], found.odds1[:, :30])
        assert close(cut, alone)
        assert log_assignment(found)[:, 30:].max() < -1000
        assert log_assignment(found)[:, :, 30:].max() < -1000


def test_views_of_nothing_but_padding_match_nothing(stirred: AttentionMatcher) -> None:
    some, nothing = keypoints(20), keypoints(20)._replace(mask=torch.zeros(1, 20, dtype=torch.bool))
    for pair in ((some, nothing), (nothing, some), (nothing, nothing)):
        found = assign(stirred, *pair)
        assert all(value.isfinite().all() for value in found)
        assert (mutual_assignment(found, min_score=0.0)[0] == -1).all()


def test_the_order_of_the_keypoints_does_not_matter(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(), keypoints(seed=3)
    order = torch.randperm(40, generator=generator())
    shuffled = Keypoints(*(value[:, order] for value in features1))
    similarity, odds0, odds1 = assign(stirred, features0, features1)
    assert close(assign(stirred, features0, shuffled), Assignment(similarity[:, :, order], odds0, odds1[:, order]))


def test_views_exchanged_are_matched_the_same(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(), keypoints(seed=3)
    similarity, odds0, odds1 = assign(stirred, features0, features1)
    assert close(assign(stirred, features1, features0), Assignment(similarity.transpose(1, 2), odds1, odds0))


def test_a_batch_is_its_pairs_one_by_one(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(batch=3), keypoints(batch=3, seed=3)
    together = assign(stirred, features0, features1)
    for index in range(3):
        one = [Keypoints(*(value[index : index + 1] for value in features)) for features in (features0, features1)]
        assert close(assign(stirred, *one), Assignment(*(value[index : index + 1] for value in together)))


def test_only_relative_places_count(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(), keypoints(seed=3)
    before = assign(stirred, features0, features1)
    moved = features0._replace(keypoints=features0.keypoints + torch.tensor((9.0, -4.0)))
    assert close(assign(stirred, moved, features1), before)
    mirrored = features0._replace(keypoints=features0.keypoints * torch.tensor((-1.0, 1.0)))
    assert not close(assign(stirred, mirrored, features1), before)


def test_the_size_of_the_images_does_not_matter(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(), keypoints(seed=3)
    double = features0._replace(keypoints=(features0.keypoints + 0.5) * 2 - 0.5)
    with torch.no_grad():
        found = stirred(double, features1, (2 * SIZE[0], 2 * SIZE[1]), SIZE)
    assert close(found, assign(stirred, features0, features1))


@pytest.mark.parametrize(("size", "half"), [((96, 128), 64.0), ((128, 96), 64.0), ((1, 1), 0.5)])
def test_the_centre_is_0_and_half_the_long_side_1(size: tuple[int, int], half: float) -> None:
    centre = torch.tensor(((size[1] - 1) / 2, (size[0] - 1) / 2))
    assert torch.allclose(centred(centre, size), torch.zeros(2))
    assert torch.allclose(centred(centre + half, size), torch.ones(2))


def test_every_layer_is_supervised_and_the_last_one_used(stirred: AttentionMatcher) -> None:
    features0, features1 = keypoints(), keypoints(seed=3)
    with torch.no_grad():
        every = stirred.assignments(features0, features1, SIZE, SIZE)
    assert len(every) == 2
    assert close(every[-1], assign(stirred, features0, features1))
    assert not close(every[0], every[1])


def test_gradients_reach_every_parameter_and_are_finite(stirred: AttentionMatcher) -> None:
    features0, features1 = with_padding(keypoints(batch=2), 8), with_padding(keypoints(batch=2, seed=3), 8)
    every = stirred.assignments(features0, features1, SIZE, SIZE)
    sum((log_assignment(each)[:, :40, :40].square().mean() for each in every), torch.zeros(())).backward()
    silent = [name for name, p in stirred.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stirred.parameters())


def test_half_precision_agrees_roughly(stirred: AttentionMatcher) -> None:
    features0, features1 = with_padding(keypoints(), 8), with_padding(keypoints(seed=3), 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = stirred.assignments(features0, features1, SIZE, SIZE)[-1]
    full = assign(stirred, features0, features1)
    assert half.similarity.dtype == torch.float32
    real, rounded = (each.similarity[:, :40, :40] for each in (full, half))
    assert (rounded - real).std() < 0.05 * real.std()


def ambiguous(batch: int, seed: int) -> tuple[Keypoints, Keypoints, Tensor]:
    """Each descriptor stands for two keypoints, which only the landmark beside them tells apart; the true partners."""
    half = 6
    common = F.normalize(torch.randn((batch, half, 16), generator=generator(seed)), dim=2)
    landmarks = torch.eye(16)[:2].expand(batch, -1, -1)
    descriptors = torch.cat((common, landmarks[:, :1], common, landmarks[:, 1:]), dim=1)
    near = torch.rand((batch, half + 1, 2), generator=generator(seed + 1)) * 30
    places = torch.cat((near, near + torch.tensor((80.0, 40.0))), dim=1)
    scores = torch.ones(descriptors.shape[:2])
    shuffle = torch.rand(scores.shape, generator=generator(seed + 2)).argsort(1)
    shuffled = (value.gather(1, shuffle.unsqueeze(2).expand_as(value)) for value in (places, descriptors))
    mask = scores > 0
    return Keypoints(places, descriptors, scores, mask), Keypoints(*shuffled, scores, mask), shuffle.argsort(1)


def test_it_learns_what_descriptors_alone_cannot_tell() -> None:
    steps, matcher = 120, small(dim=32, layers=1, width=16).train()
    # at twice the rate, and without clipping, it came to a halt on one kind of processor
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for step in range(steps):
        features0, features1, partners = ambiguous(32, 100 * step)
        (assignment,) = matcher.assignments(features0, features1, SIZE, SIZE)
        optimizer.zero_grad()
        (-log_assignment(assignment).gather(2, partners.unsqueeze(2)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(matcher.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    features0, features1, partners = ambiguous(32, 10**6)
    right = []
    for each in (small(dim=32, layers=1, width=16), matcher):
        matches0, _ = mutual_assignment(assign(each, features0, features1), min_score=0.0)
        right.append(float((matches0 == partners).float().mean()))
    assert right[0] < 0.75  # the landmarks, and by chance half of the others
    assert right[1] > 0.9


# the network as plain data


def test_it_has_at_most_a_million_parameters() -> None:
    assert 100_000 < sum(parameter.numel() for parameter in AttentionMatcher().parameters()) <= 1_000_000


def test_the_spec_rebuilds_it(stirred: AttentionMatcher) -> None:
    spec = spec_of(stirred)
    assert spec["class_path"] == "tiepoint.models.attention.AttentionMatcher"
    again = AttentionMatcher(**spec["init_args"]).eval()
    again.load_state_dict(stirred.state_dict())
    assert close(assign(again, keypoints(), keypoints(seed=3)), assign(stirred, keypoints(), keypoints(seed=3)))
    for twin in (copy.deepcopy(stirred), pickle.loads(pickle.dumps(stirred))):
        assert spec_of(twin) == spec


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"inputs": 64, "dim": 32}, "dim is 32, expected at least 64"),
        ({"width": 7}, "width is 7, expected an even number"),
        ({"width": 2}, "width is 2"),
        ({"layers": 0}, "layers are 0"),
        ({"heads": 0}, "heads 0"),
        ({"min_score": 1.5}, "min_score is 1.5, expected a probability"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        AttentionMatcher(**arguments)


# two photographs


def photograph(height: int, width: int, *, seed: int = 0) -> Tensor:
    """(1, height, width, 3) uint8: smooth random texture with some sharp detail."""
    coarse = torch.rand((1, 3, height // 8 + 2, width // 8 + 2), generator=generator(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    mixed = 0.7 * smooth + 0.3 * torch.rand(smooth.shape, generator=generator(seed + 1))
    return (255 * mixed.clamp(0, 1)).permute(0, 2, 3, 1).round().to(torch.uint8)


@torch.inference_mode()
def match(image0: Tensor, image1: Tensor, count: int = 128, **kwargs: float) -> TwoViewMatches:
    torch.manual_seed(0)
    network = AttentiveTwoViewMatcher(PyramidExtractor((8, 16, 16, 16, 16), dim=16), small(**kwargs)).eval()
    return network(image0, image1, torch.tensor(count))


def test_an_image_matches_itself() -> None:
    image = photograph(96, 128)
    matches = match(image, image, min_score=0.0)
    chosen = matches.matches0[0] >= 0
    assert chosen.sum() > 20
    assert (matches.matches0[0, chosen] == torch.arange(128)[chosen]).float().mean() > 0.95
    assert (matches.scores[0, ~chosen] == 0).all()
    assert 0 < matches.scores.max() <= 1


def test_images_of_different_sizes_and_batches_match() -> None:
    scene = photograph(128, 160)
    matches = match(scene.repeat(2, 1, 1, 1), scene[:, :96, :101].repeat(2, 1, 1, 1), min_score=0.0)
    assert torch.equal(matches.matches0[0], matches.matches0[1])
    chosen = matches.matches0[0] >= 0
    off = matches.keypoints0[0, chosen] - matches.keypoints1[0, matches.matches0[0, chosen]]
    assert (off.norm(dim=1) < 0.5).sum() > 10


def test_a_blank_image_matches_nothing() -> None:
    image, blank = photograph(64, 64), torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    for pair in ((image, blank), (blank, image), (blank, blank)):
        matches = match(*pair, min_score=0.0)
        assert (matches.matches0 == -1).all()
        assert all(value.isfinite().all() for value in matches)


def test_the_least_score_is_an_argument() -> None:
    image = photograph(96, 128)
    every = match(image, image, min_score=0.0)
    least = float(every.scores[every.scores > 0].median())
    some = match(image, image, min_score=least)
    assert torch.equal(some.matches0, torch.where(every.scores >= least, every.matches0, -1))
    assert (match(image, image, min_score=1.0).matches0 == -1).all()
