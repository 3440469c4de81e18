"""How features are paired: closed forms, kornia's own wiring of LightGlue, and the conventions of pixel centres."""

import kornia.feature as kf
import onnx
import pytest
import torch
from torch import Tensor

from tiepoint.errors import InputError
from tiepoint.runtime.kornia_features import Dense, Features
from tiepoint.runtime.kornia_pairing import (
    lighterglue_graph,
    match_dual_softmax,
    match_lightglue,
    match_loftr,
    match_mutual,
)
from tiepoint.runtime.peer_weights import Source

SIZE = (80, 100)


def features(seed: int, count: int, width: int, *, frames: bool = False) -> Features:
    random = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(count, 2, generator=random) * torch.tensor([99.0, 79.0])
    descriptors = torch.nn.functional.normalize(torch.randn(count, width, generator=random), dim=1)
    shapes = torch.randn(count, 2, 2, generator=random) + 5 * torch.eye(2)
    return Features(SIZE, keypoints, descriptors, torch.cat([shapes, keypoints[..., None]], dim=2) if frames else None)


def test_mutual_nearest_neighbours_are_those_of_brute_force() -> None:
    first, second = features(0, 40, 8), features(1, 30, 8)
    paired = match_mutual(first, second)
    cosines = first.descriptors @ second.descriptors.T
    expected = [
        (row, column)
        for row in range(40)
        for column in range(30)
        if cosines[row].argmax() == column and cosines[:, column].argmax() == row
    ]
    rows, columns = (list(several) for several in zip(*expected, strict=True))
    assert torch.equal(paired.points0, first.keypoints[rows])
    assert torch.equal(paired.points1, second.keypoints[columns])
    assert torch.allclose(paired.scores, cosines[rows, columns])


def test_dual_softmax_scores_are_the_product_of_both_softmaxes() -> None:
    first, second = features(0, 12, 4), features(1, 9, 4)
    longer = first._replace(descriptors=first.descriptors * 7)  # DeDoDe's descriptors have any length
    paired = match_dual_softmax(longer, second)
    odds = (20 * first.descriptors @ second.descriptors.T).exp()
    product = odds / odds.sum(0, keepdim=True) * odds / odds.sum(1, keepdim=True)
    mutual = (product == product.amax(0, keepdim=True)) & (product == product.amax(1, keepdim=True)) & (product >= 0.01)
    rows, columns = mutual.nonzero(as_tuple=True)
    assert len(rows) > 2
    assert torch.equal(paired.points0, first.keypoints[rows])
    assert torch.equal(paired.points1, second.keypoints[columns])
    assert torch.allclose(paired.scores, product[rows, columns], atol=1e-6)


def test_dual_softmax_drops_what_is_unlikely() -> None:
    first, second = features(0, 200, 4), features(1, 200, 4)
    everything = match_dual_softmax(first, second, threshold=0.0)
    assert len(match_dual_softmax(first, second).scores) == int((everything.scores >= 0.01).sum())
    assert len(match_dual_softmax(first, second, threshold=1.1).scores) == 0


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_without_keypoints_there_are_no_matches(counts: tuple[int, int]) -> None:
    first, second = features(0, counts[0], 8), features(1, counts[1], 8)
    for match in (match_mutual, match_dual_softmax):
        paired = match(first, second)
        assert paired.points0.shape == paired.points1.shape == (0, 2)
        assert paired.scores.shape == (0,)


@pytest.mark.parametrize("name", ["disk", "sift", "doghardnet", "dog_affnet_hardnet", "keynet_affnet_hardnet"])
def test_lightglue_is_given_what_kornias_own_matcher_gives_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kornia.feature.lightglue.load_state_dict_from_url", lambda *_, **__: {})
    torch.manual_seed(0)
    # no weights: nothing may be dropped for its score, or the comparison would be one of empty sets
    options = {"filter_threshold": 0.0, "depth_confidence": -1, "width_confidence": -1}
    theirs = kf.LightGlueMatcher(name, options).eval()
    theirs.matcher.conf.width_confidence = theirs.matcher.conf.depth_confidence = -1
    first, second = features(0, 60, 128, frames=True), features(1, 50, 128, frames=True)
    with torch.inference_mode():
        scores, indices = theirs(
            first.descriptors, second.descriptors, first.frames[None], second.frames[None], hw1=SIZE, hw2=SIZE
        )
        paired = match_lightglue(theirs.matcher, name, first, second)
    assert len(indices) > 5
    assert torch.allclose(paired.points0, first.keypoints[indices[:, 0]])
    assert torch.allclose(paired.points1, second.keypoints[indices[:, 1]])
    assert torch.allclose(paired.scores, scores[:, 0], atol=1e-6)


def test_lightglue_takes_keypoints_on_the_very_border() -> None:
    torch.manual_seed(0)
    network = kf.LightGlue(None, input_dim=8, descriptor_dim=16, n_layers=1, num_heads=1).eval()
    border = torch.tensor([[-0.5, -0.5], [99.5, 79.5], [-0.5, 79.5]])
    one = Features(SIZE, border, torch.eye(8)[:3])
    with torch.inference_mode():
        paired = match_lightglue(network, "disk", one, one)
    assert set(map(tuple, paired.points0.tolist())) <= set(map(tuple, border.tolist()))


class Coarse:
    """What LoFTR returns, with pixel centres at halves."""

    def __init__(self) -> None:
        self.points = torch.tensor([[8.0, 16.0], [24.0, 8.0], [40.0, 40.0]])

    def __call__(self, data: dict[str, object]) -> dict[str, Tensor]:
        assert data == {"features0": "maps 0", "features1": "maps 1"}
        confidence = torch.tensor([0.3, 0.9, 0.5])
        return {"keypoints0": self.points, "keypoints1": self.points + 1, "confidence": confidence}


def test_loftr_puts_pixel_centres_at_halves_and_the_best_are_kept() -> None:
    paired = match_loftr(Coarse(), 2, Dense(SIZE, "maps 0"), Dense(SIZE, "maps 1"))
    assert paired.points0.tolist() == [[23.5, 7.5], [39.5, 39.5]]
    assert paired.points1.tolist() == [[24.5, 8.5], [40.5, 40.5]]
    assert paired.scores.tolist() == pytest.approx([0.9, 0.5])


def graph(inputs: tuple[str, ...] = ("kpts0", "kpts1", "desc0", "desc1")) -> bytes:
    """Matches each keypoint with its namesake; the score is the keypoint's y as it was given."""
    make, kinds = onnx.helper, onnx.TensorProto
    shapes = {"kpts0": [1, "m", 2], "kpts1": [1, "n", 2], "desc0": [1, "m", 64], "desc1": [1, "n", 64]}
    nodes = [
        make.make_node("Shape", [inputs[0]], ["shape"]),
        make.make_node("Gather", ["shape", "one"], ["count"]),
        make.make_node("Range", ["zero", "count", "one"], ["range"]),
        make.make_node("Unsqueeze", ["range", "axis1"], ["column"]),
        make.make_node("Concat", ["column", "column"], ["matches"], axis=1),
        make.make_node("Gather", [inputs[0], "one"], ["y"], axis=2),
        make.make_node("Squeeze", ["y", "axis0"], ["scores"]),
    ]
    constants = [
        make.make_tensor("zero", kinds.INT64, [], [0]),
        make.make_tensor("one", kinds.INT64, [], [1]),
        make.make_tensor("axis0", kinds.INT64, [1], [0]),
        make.make_tensor("axis1", kinds.INT64, [1], [1]),
    ]
    shapes = dict(zip(inputs, shapes.values(), strict=True))
    ends = [make.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in shapes.items()]
    results = [
        make.make_tensor_value_info("matches", kinds.INT64, ["k", 2]),
        make.make_tensor_value_info("scores", kinds.FLOAT, ["k"]),
    ]
    model = make.make_model(
        make.make_graph(nodes, "g", ends, results, constants), opset_imports=[make.make_opsetid("", 17)], ir_version=8
    )
    return bytes(model.SerializeToString())


def test_the_exported_lighterglue_sees_the_centre_at_zero_and_the_long_side_up_to_one() -> None:
    run = lighterglue_graph(Source("glue.onnx", "glue.onnx", graph()), "cpu")
    keypoints = torch.tensor([[50.0, 40.0], [0.0, 80.0], [100.0, 50.0], [0.0, 0.0]])
    one = Features(SIZE, keypoints, torch.zeros(4, 64))
    paired = run(one, one._replace(keypoints=keypoints + 3))
    # y is (y - 40) / 50: 0, 0.8, 0.2, -0.8, of which what is not above 0.1 is no match
    assert paired.points0.tolist() == [[0.0, 80.0], [100.0, 50.0]]
    assert paired.points1.tolist() == [[3.0, 83.0], [103.0, 53.0]]
    assert paired.scores.tolist() == pytest.approx([0.8, 0.2])
    assert len(run(one, Features(SIZE, keypoints[:0], torch.zeros(0, 64))).scores) == 0


def test_another_graph_is_no_lighterglue() -> None:
    other = Source("other.onnx", "other.onnx", graph(("a", "b", "c", "d")))
    with pytest.raises(InputError, match=r"other\.onnx is an ONNX graph from a, b, c, d .*expected LighterGlue"):
        lighterglue_graph(other, "cpu")
    with pytest.raises(InputError, match=r"text\.onnx is no ONNX graph"):
        lighterglue_graph(Source("text.onnx", "text.onnx", b"no graph"), "cpu")
