"""Weights go from each file format to each other one and answer the same."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage import data

import tiepoint
from tiepoint import convert as conversion
from tiepoint.checkpoints import Shape, Weights, read_weights, sha256, write_pt
from tiepoint.cli import main
from tiepoint.conversion import check_images, copies, parity
from tiepoint.conversion.parity import Parity
from tiepoint.conversion.report import Bounds
from tiepoint.convert import convert
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.edges import EdgeNetwork
from tiepoint.models.pyramid import PyramidExtractor
from tiepoint.runtime.image_graph import ImageGraph

Part = tuple[Path, list[Parity]]


@pytest.fixture(scope="module", autouse=True)
def small_sizes() -> Iterator[None]:
    """An odd and a portrait one of those of a conversion, which takes ten seconds with all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_images, "SIZES", ((333, 517), (131, 97)))
        patch.setattr(check_images, "VIEWS", 1)
        patch.setattr(parity, "KEYPOINTS", 512)
        yield


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
def exported(source: Path) -> tuple[Path, list[Parity]]:
    target, card = source.with_suffix(".onnx"), source.with_name("card.md")
    card.write_text("---\nlicence: CC0\npose_auc_5: 73.5\nsummary: small\n---\n")
    return target, convert(source, target, card=card).pairs


def test_onnx_gives_the_same_answer(exported: tuple[Path, list[Parity]]) -> None:
    _, report = exported
    assert {row.name for row in report} >= {"517×333", "97×131", "blank", "noise", "batch of 4", "photo, cut"}
    for row in report:
        assert row.same >= 0.99
    assert max(row.matches or 0 for row in report) > 50
    assert next(row for row in report if row.name == "blank").matches == 0


def test_onnx_runs_on_real_photos_like_torch(exported: tuple[Path, list[Parity]], source: Path) -> None:
    target, _ = exported
    pair = data.astronaut()[:301, :407], data.astronaut()[40:341, 30:]
    graph, eager = (tiepoint.load(path, max_keypoints=300)(*pair) for path in (target, source))
    assert len(eager) > 30
    ends = {tuple(np.rint(row * 20)) for row in np.hstack((graph.keypoints0, graph.keypoints1))}
    same = [tuple(np.rint(row * 20)) in ends for row in np.hstack((eager.keypoints0, eager.keypoints1))]
    assert np.mean(same) > 0.95


def test_onnx_tells_what_it_is(exported: tuple[Path, list[Parity]]) -> None:
    model = onnx.load(exported[0])
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["class_path"] == "tiepoint.models.pyramid.PyramidExtractor"
    assert '"dim": 24' in metadata["init_args"]
    assert '"steps": 7' in metadata["training"]
    assert (metadata["opset"], metadata["shape"], metadata["form"]) == ("18", "pair", "fused")
    assert (metadata["licence"], json.loads(metadata["figures"])) == ("CC0", {"pose_auc_5": 73.5})
    assert metadata["source_sha256"] == sha256(exported[0].with_suffix(".pt"))
    assert not [t for t in model.graph.initializer if t.external_data]


def test_onnx_holds_no_path_of_this_machine(exported: tuple[Path, list[Parity]]) -> None:
    content = exported[0].read_bytes()
    assert str(Path(conversion.__file__).parent).encode() not in content
    assert str(Path.home()).encode() not in content


def test_pt_round_trip_keeps_every_weight(source: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "copy.pt").pairs
    assert all(row.largest_px == row.largest_score == 0 for row in report)
    before, after = read_weights(source), read_weights(tmp_path / "copy.pt")
    assert after.metadata == before.metadata
    for name, value in before.extractor.state_dict().items():
        assert torch.equal(value, after.extractor.state_dict()[name])


def test_a_matcher_by_attention_becomes_one_graph(attentive: Path) -> None:
    target = attentive.with_suffix(".onnx")
    report = convert(attentive, target).pairs
    for row in report:
        assert row.same >= 0.99
    assert max(row.matches or 0 for row in report) > 50
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
    assert all(row.largest_px == row.largest_score == 0 for row in convert(attentive, tmp_path / "copy.pt").pairs)
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

    monkeypatch.setattr(copies, "write_pt", other_weights)
    target = tmp_path / "wrong.pt"
    with pytest.raises(tiepoint.WorkError, match="was not written"):
        convert(source, target)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_nan_is_not_converted(source: Path, tmp_path: Path) -> None:
    content = torch.load(source, weights_only=True)
    content["state_dict"] = {name: value * float("nan") for name, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(tiepoint.WorkError, match="no match"):
        convert(tmp_path / "nan.pt", tmp_path / "copy.pt")
    assert not (tmp_path / "copy.pt").exists()


@pytest.mark.parametrize(
    ("source_name", "target_name"), [("a.bin", "b.pt"), ("a.pt", "b.txt"), ("a", "b.pt"), ("a.ckpt", "b.ckpt")]
)
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


def test_what_was_shipped_as_onnx_becomes_a_checkpoint_and_onnx_again(
    exported: tuple[Path, list[Parity]], source: Path, tmp_path: Path
) -> None:
    convert(exported[0], tmp_path / "back.pt")
    before, back = read_weights(source), read_weights(tmp_path / "back.pt")
    state = back.extractor.state_dict()
    for name, value in before.extractor.state_dict().items():
        assert torch.allclose(value, state[name], rtol=1e-5, atol=1e-7), name
    assert back.metadata["steps"] == 7
    assert (back.metadata["licence"], back.metadata["figures"]) == ("CC0", {"pose_auc_5": 73.5})
    report = convert(tmp_path / "back.pt", tmp_path / "back.ckpt").pairs
    assert all(row.largest_px == row.largest == 0 for row in report)


def test_the_shipped_file_can_be_trained_again() -> None:
    shipped = Path(conversion.__file__).parent / "weights" / "default.onnx"
    weights = read_weights(shipped)
    card = shipped.with_suffix(".md").read_text()
    assert sha256(shipped) in card
    assert weights.metadata["steps"] == 8000
    assert weights.metadata["licence"].startswith("Apache-2.0")
    assert any(not torch.equal(each, torch.ones_like(each)) for each in weights.extractor.buffers())


def test_a_matcher_in_onnx_comes_back(attentive: Path, tmp_path: Path) -> None:
    if not attentive.with_suffix(".onnx").exists():
        convert(attentive, attentive.with_suffix(".onnx"))
    convert(attentive.with_suffix(".onnx"), tmp_path / "back.ckpt")
    before, back = read_weights(attentive).matcher, read_weights(tmp_path / "back.ckpt").matcher
    assert before is not None
    assert back is not None
    for name, value in before.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


def test_safetensors_hold_the_same(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "a.safetensors")
    report = convert(tmp_path / "a.safetensors", tmp_path / "a.pt").pairs
    assert all(row.largest_px == row.largest == 0 for row in report)
    assert read_weights(tmp_path / "a.pt").metadata == read_weights(source).metadata
    assert len(tiepoint.load(tmp_path / "a.safetensors")(*check_images.made_pair(97, 131))) > 20


@pytest.fixture(scope="module", params=["source", pytest.param("attentive", marks=pytest.mark.slow)])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    """Features and their matching as graphs of their own, with the report of each."""
    folder, weights = tmp_path_factory.mktemp("parts"), request.getfixturevalue(request.param)
    targets: dict[Shape, Path] = {"extractor": folder / "extractor.onnx", "matcher": folder / "matcher.onnx"}
    return {shape: (target, convert(weights, target, shape=shape).pairs) for shape, target in targets.items()}


def test_features_and_their_matching_are_graphs_of_their_own(parts: dict[str, Part]) -> None:
    for target, report in parts.values():
        assert all(row.same >= 0.99 for row in report)
        onnx.checker.check_model(onnx.load(target), full_check=True)
        with pytest.raises(tiepoint.InputError, match="expected one from image0"):
            tiepoint.load(target)
    target, report = parts["extractor"]
    assert all(row.matches is None and row.largest_descriptor is not None for row in report)
    assert read_weights(target).matcher is None
    target, report = parts["matcher"]
    assert max(row.matches or 0 for row in report) > 50
    with pytest.raises(tiepoint.InputError, match="a matcher alone"):
        read_weights(target)


def test_openvino_gives_the_same_answer(exported: tuple[Path, list[Parity]]) -> None:
    openvino = pytest.importorskip("openvino")
    images = [image[None] for image in check_images.made_pair(97, 131)]
    graph = openvino.Core().compile_model(str(exported[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = graph({"image0": images[0], "image1": images[1], "max_keypoints": np.array(256, np.int64)})
    expected = tiepoint.load(exported[0], max_keypoints=256)(images[0][0], images[1][0])
    chosen = found["matches0"][0] >= 0
    ends = {tuple(np.rint(20 * place)) for place in found["keypoints0"][0][chosen]}
    same = [tuple(np.rint(20 * place)) in ends for place in expected.keypoints0]
    assert len(expected) > 30
    assert np.mean(same) > 0.95


def test_openvino_opens_features_and_their_matching(parts: dict[str, Part]) -> None:
    openvino = pytest.importorskip("openvino")
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    graphs = {
        shape: (core.compile_model(str(target), "CPU", exact), onnxruntime.InferenceSession(target))
        for shape, (target, _) in parts.items()
    }
    pairs: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    extractor, reference = graphs["extractor"]
    for number, image in enumerate(check_images.made_pair(97, 131)):
        feed = {"image": image[None], "max_keypoints": np.array(256, np.int64)}
        found = extractor(feed)
        names = [output.name for output in reference.get_outputs()]
        expected = dict(zip(names, reference.run(None, feed), strict=True))
        places = {tuple(np.rint(20 * place)) for place in found["keypoints"][0][found["mask"][0]]}
        wanted = [tuple(np.rint(20 * place)) for place in expected["keypoints"][0][expected["mask"][0]]]
        assert len(wanted) > 50
        assert np.mean([place in places for place in wanted]) > 0.95
        size = np.array([image.shape[:2]], np.int64)
        pairs |= {f"{name}{number}": expected[name] for name in ("keypoints", "descriptors", "mask")}
        pairs |= {f"size{number}": size}

    matcher, reference = graphs["matcher"]
    feed = {each.name: pairs[each.name] for each in reference.get_inputs()}
    matches, scores = reference.run(["matches0", "scores"], feed)
    found = matcher(feed)
    assert (matches >= 0).sum() > 30
    assert np.mean(found["matches0"] == matches) > 0.99
    assert np.abs(found["scores"] - scores)[found["matches0"] == matches].max() < 1e-3


def test_the_report_is_written_in_either_case(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "copy.pt", report=tmp_path / "parity.json")
    told = json.loads((tmp_path / "parity.json").read_text())
    assert told["passed"]
    assert told["source_sha256"] == sha256(source)
    assert {row["name"] for row in told["pairs"]} >= {"517×333", "noise", "blank", "batch of 4"}
    with pytest.raises(tiepoint.WorkError, match="was not written"):
        convert(source, tmp_path / "worse.pt", report=tmp_path / "worse.json", bounds=Bounds(limit=-1.0))
    assert not json.loads((tmp_path / "worse.json").read_text())["passed"]
    assert not (tmp_path / "worse.pt").exists()


def test_it_is_a_verb(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, report = tmp_path / "a.ckpt", tmp_path / "parity.json"
    assert main(["convert", str(source), str(target), "--report", str(report)]) == 0
    said = capsys.readouterr().out
    assert "100.00% of the keypoints" in said
    assert f"tiepoint fit --ckpt_path {target}" in said
    assert report.exists()
    for wrong in (["--shape", "extractor"], ["--card", "nowhere.md"], ["--report", str(source)], ["--shape", "both"]):
        assert main(["convert", str(source), str(tmp_path / "b.pt"), *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) >= 4


# networks of single images


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("edges") / "edges.pt"
    write_pt(path, Weights(EdgeNetwork(widths=(8, 8, 8), dim=8).eval(), {"steps": 5}))
    return path


def test_a_network_of_single_images_tells_its_maps_differences(edges: Path, tmp_path: Path) -> None:
    found = convert(edges, tmp_path / "a.onnx", report=tmp_path / "a.json")
    assert found.pairs == []
    assert {row.name for row in found.images} >= {"517×333", "97×131", "blank", "noise", "batch of 4", "photo, cut"}
    assert {row.batch for row in found.images} == {1, 4}
    assert all(row.largest <= 1e-5 and row.mean <= row.largest for row in found.images)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["passed"]
    assert told["map_limit"] == Bounds.map_limit
    assert told["images"][0]["size"] == [333, 517]
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert metadata["shape"] == "image"
    assert metadata["class_path"] == "tiepoint.models.edges.EdgeNetwork"
    back = convert(tmp_path / "a.onnx", tmp_path / "back.ckpt")
    assert max(row.largest for row in back.images) <= 1e-5
    assert read_weights(tmp_path / "back.ckpt").metadata["steps"] == 5


def test_maps_that_differ_are_not_kept(edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_weights(path: Path, weights: Weights) -> None:
        torch.manual_seed(2)
        write_pt(path, Weights(EdgeNetwork(**weights.model.init_args).eval(), {}))

    monkeypatch.setattr(copies, "write_pt", other_weights)
    with pytest.raises(tiepoint.WorkError, match=r"b\.pt was not written: on \S+ the maps differ by"):
        convert(edges, tmp_path / "b.pt")
    assert list(tmp_path.iterdir()) == []


def test_maps_of_nan_are_not_kept(edges: Path, tmp_path: Path) -> None:
    content = torch.load(edges, weights_only=True)
    content["state_dict"] = {name: value * float("nan") for name, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(tiepoint.WorkError, match="differ by nan"):
        convert(tmp_path / "nan.pt", tmp_path / "nan.onnx")
    assert not (tmp_path / "nan.onnx").exists()


@pytest.mark.parametrize("options", [["--shape", "extractor"], ["--precision", "fp16"]])
def test_what_only_matchers_can_become_is_refused(
    options: list[str], edges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(edges), str(tmp_path / "a.onnx"), *options]) == 2
    err = capsys.readouterr().err
    assert f"{options[0]} is {options[1]}, which is for networks that match" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_graph_of_another_kind_is_not_run_for_maps(exported: tuple[Path, list[Parity]], edges: Path) -> None:
    with pytest.raises(tiepoint.InputError, match="expected one from image to probability"):
        ImageGraph(exported[0], output="probability")
    with pytest.raises(tiepoint.InputError, match="finds no keypoints"):
        tiepoint.load(edges)
