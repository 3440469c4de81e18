"""The network in half precision, and nothing else."""

from typing import Any

import pytest
import torch

from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.precision import HalfWeights


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("16-true", torch.float16)])
def test_weights_are_halved_and_the_batch_is_not(precision: Any, dtype: torch.dtype) -> None:
    half = HalfWeights(precision)
    batch = {"scale0": torch.tensor([1.0009765625 / 3], dtype=torch.float64), "warp_0to1": torch.tensor([257.25])}
    kept = half.convert_input(batch)
    assert all(torch.equal(kept[name], value) and kept[name].dtype == value.dtype for name, value in batch.items())
    assert {weights.dtype for weights in half.convert_module(PyramidExtractor(dim=32)).parameters()} == {dtype}
    with half.train_step_context(), half.val_step_context():
        assert torch.rand(1).dtype == torch.float32


@torch.no_grad()
def test_an_extractor_and_a_matcher_in_half_precision_answer_nearly_the_same() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 64, 96)
    extractor, matcher = PyramidExtractor(dim=32).eval(), AttentionMatcher(32, dim=32, layers=1).eval()
    features = extractor(images, 64)
    whole = matcher(features, features, (64, 96), (64, 96))
    halved = matcher.bfloat16()(features, features, (64, 96), (64, 96))
    assert halved.similarity.dtype == torch.float32
    assert (halved.similarity - whole.similarity).abs().max() < 0.03 * whole.similarity.abs().max()
    maps, half_maps = extractor.maps(images), extractor.bfloat16().maps(images)
    assert half_maps.descriptors.dtype == torch.bfloat16
    assert (half_maps.descriptors - maps.descriptors).abs().max() < 0.05 * maps.descriptors.abs().max()
    keypoints = extractor(images, 64).keypoints  # of the halved one
    assert keypoints.dtype == torch.float32
    assert (keypoints % 1 > 0).any()
