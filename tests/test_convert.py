"""Checkpoints become .pt and .onnx and answer the same."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from skimage import data

import tiepoint
from tiepoint import convert as conversion
from tiepoint.checkpoints import Weights, read_weights, write_pt
from tiepoint.convert import convert, parity_pair
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.runtime.matcher import PaddedMatches


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    extractor = PyramidExtractor(widths=(8, 16, 24, 24, 24), dim=24)
    # without statistics of real images all descriptors are nearly the same, and rounding decides who is nearest
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1).unsqueeze(0).float() / 255
    for _ in range(40):
        extractor.maps(photo)
    write_pt(path, Weights(extractor.eval(), {"steps": 7}))
    return path


@pytest.fixture(scope="module")
def attentive(source: Path) -> Path:
    """The same features with a matcher by attention that is no identity, and sure of itself."""
    weights = read_weights(source)
    torch.manual_seed(3)
    matcher = AttentionMatcher(24, dim=24, layers=1, heads=2, width=8)
    with torch.no_grad():
        for parameter in matcher.parameters():
            parameter += 0.005 * torch.randn_like(parameter)
        for output in matcher.outputs:
            output.project.weight *= 3
            output.matchable.bias.fill_(4.0)
    path = source.with_name("attentive.pt")
    write_pt(path, Weights(weights.extractor, {"steps": 9}, matcher))
    return path


@pytest.fixture(scope="module")
def exported(source: Path) -> tuple[Path, list[conversion.Parity]]:
    target = source.with_suffix(".onnx")
    return target, convert(source, target)


def test_onnx_gives_the_same_answer(exported: tuple[Path, list[conversion.Parity]]) -> None:
    _, report = exported
    assert {row.name for row in report} >= {"517×333", "479×641", "blank", "batch of 2"}
    for row in report:
        assert min(row.same_keypoints, row.same_matches) >= 0.99
    assert max(row.matches for row in report) > 50
    assert next(row for row in report if row.name == "blank").matches == 0


def test_onnx_runs_on_real_photos_like_torch(exported: tuple[Path, list[conversion.Parity]], source: Path) -> None:
    target, _ = exported
    pair = data.astronaut()[:301, :407], data.astronaut()[40:341, 30:]
    graph, eager = (tiepoint.load(path, max_keypoints=300)(*pair) for path in (target, source))
    assert len(eager) > 30
    ends = {tuple(np.rint(row * 20)) for row in np.hstack((graph.keypoints0, graph.keypoints1))}
    same = [tuple(np.rint(row * 20)) in ends for row in np.hstack((eager.keypoints0, eager.keypoints1))]
    assert np.mean(same) > 0.95


def test_onnx_tells_what_it_is(exported: tuple[Path, list[conversion.Parity]]) -> None:
    model = onnx.load(exported[0])
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["class_path"] == "tiepoint.models.pyramid.PyramidExtractor"
    assert '"dim": 24' in metadata["init_args"]
    assert '"steps": 7' in metadata["training"]
    assert not [t for t in model.graph.initializer if t.external_data]


def test_onnx_holds_no_path_of_this_machine(exported: tuple[Path, list[conversion.Parity]]) -> None:
    content = exported[0].read_bytes()
    assert str(Path(conversion.__file__).parent).encode() not in content
    assert str(Path.home()).encode() not in content


def test_pt_round_trip_keeps_every_weight(source: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "copy.pt")
    assert all(row.largest_px == row.largest_score == 0 for row in report)
    before, after = read_weights(source), read_weights(tmp_path / "copy.pt")
    assert after.metadata == before.metadata
    for name, value in before.extractor.state_dict().items():
        assert torch.equal(value, after.extractor.state_dict()[name])


def test_a_matcher_by_attention_becomes_one_graph(attentive: Path) -> None:
    target = attentive.with_suffix(".onnx")
    report = convert(attentive, target)
    for row in report:
        assert min(row.same_keypoints, row.same_matches) >= 0.99
    assert max(row.matches for row in report) > 50
    assert next(row for row in report if row.name == "blank").matches == 0
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    # any runtime of ONNX takes it: no operators but the standard's
    assert {opset.domain for opset in model.opset_import} == {""}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["class_path"] == "tiepoint.models.pyramid.PyramidExtractor"
    assert json.loads(metadata["matcher"])["init_args"]["dim"] == 24
    pair = data.astronaut()[:301, :407], data.astronaut()[40:341, 30:437]
    graph, eager = (tiepoint.load(path, max_keypoints=300)(*pair) for path in (target, attentive))
    assert len(graph) == pytest.approx(len(eager), abs=2)
    assert len(eager) > 20
    assert np.allclose(graph.scores[:10], eager.scores[:10], atol=1e-3)


def test_pt_round_trip_keeps_the_matcher(attentive: Path, tmp_path: Path) -> None:
    assert all(row.largest_px == row.largest_score == 0 for row in convert(attentive, tmp_path / "copy.pt"))
    before, after = read_weights(attentive).matcher, read_weights(tmp_path / "copy.pt").matcher
    assert before is not None
    assert after is not None
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])


def test_a_matcher_decides_which_keypoints_match(attentive: Path, source: Path) -> None:
    pair = data.astronaut()[:301, :407], data.astronaut()[40:341, 30:437]
    plain, attended = (tiepoint.load(path, max_keypoints=300)(*pair) for path in (source, attentive))
    assert len(plain) != len(attended)
    assert attended.scores.max() < 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"class_path": "os.system"}, r"os\.system"),
        ({"class_path": "tiepoint.models.pyramid.PyramidExtractor", "init_args": {}}, "is no AttentionMatcher"),
        ({"init_args": {"inputs": 24, "dim": 32}}, "does not fit"),
        ({"init_args": {"inputs": 24, "dim": 8}}, "dim is 8"),
    ],
)
def test_a_matcher_of_something_else_is_refused(
    change: dict[str, object], fault: str, attentive: Path, tmp_path: Path
) -> None:
    content = torch.load(attentive, weights_only=True)
    content["matcher"] |= change
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(tiepoint.InputError, match=fault):
        read_weights(tmp_path / "other.pt")


def test_a_copy_that_differs_is_not_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_weights(path: Path, weights: Weights) -> None:
        torch.manual_seed(2)
        write_pt(path, Weights(PyramidExtractor(**weights.extractor.init_args).eval(), {}))

    monkeypatch.setattr(conversion, "write_pt", other_weights)
    target = tmp_path / "wrong.pt"
    with pytest.raises(tiepoint.WorkError, match="was not written"):
        convert(source, target)
    assert list(tmp_path.iterdir()) == []


def test_more_matches_than_the_original_are_a_difference_too() -> None:
    rng = np.random.default_rng(0)
    points, scores = rng.uniform(0, 500, (1, 40, 2)).astype(np.float32), np.full((1, 40), 0.5, np.float32)
    few, many = np.full((1, 40), -1), np.arange(40)[None]
    few[0, :20] = np.arange(20)
    original, copy = (PaddedMatches(points, points, scores, scores, m, scores) for m in (few, many))
    assert conversion._parity("", original, original, bound=0.01).same_matches == 1
    assert conversion._parity("", original, copy, bound=0.01).same_matches == 0.5
    moved = PaddedMatches(points + np.float32(3), points, scores / 2, scores, few, scores)
    report = conversion._parity("", original, moved, bound=0.01)
    assert report.same_keypoints < 0.1
    assert report.largest_px > 1
    assert report.largest_score == pytest.approx(0.25)


def test_a_network_of_nan_is_not_converted(source: Path, tmp_path: Path) -> None:
    content = torch.load(source, weights_only=True)
    content["state_dict"] = {name: value * float("nan") for name, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(tiepoint.WorkError, match="no match"):
        convert(tmp_path / "nan.pt", tmp_path / "copy.pt")
    assert not (tmp_path / "copy.pt").exists()


@pytest.mark.parametrize(("source_name", "target_name"), [("a.onnx", "b.pt"), ("a.pt", "b.txt"), ("a", "b.pt")])
def test_unknown_endings_are_refused(source_name: str, target_name: str, tmp_path: Path) -> None:
    with pytest.raises(tiepoint.InputError, match="cannot convert"):
        convert(tmp_path / source_name, tmp_path / target_name)


def test_a_class_from_elsewhere_is_never_imported(source: Path, tmp_path: Path) -> None:
    content = torch.load(source, weights_only=True) | {"class_path": "os.system", "init_args": {"command": "true"}}
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(tiepoint.InputError, match=r"os\.system"):
        read_weights(tmp_path / "evil.pt")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    torch.save({"state_dict": {}, "class_path": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(tiepoint.InputError, match=r"bomb\.pt"):
        read_weights(tmp_path / "bomb.pt")
    assert not marker.exists()


def test_weights_of_another_shape_are_refused(source: Path, tmp_path: Path) -> None:
    content = torch.load(source, weights_only=True)
    content["init_args"] = content["init_args"] | {"dim": 32}
    torch.save(content, tmp_path / "shape.pt")
    with pytest.raises(tiepoint.InputError, match="does not fit"):
        read_weights(tmp_path / "shape.pt")


def test_the_parity_images_are_always_the_same_and_textured() -> None:
    first, second = parity_pair(97, 131), parity_pair(97, 131)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].shape == (97, 131, 3)
    assert first[0].std() > 20
