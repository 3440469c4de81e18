"""Smaller forms of a graph: what is in them, what they answer, and when they are not kept."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tiepoint
from tiepoint.checkpoints import read_weights
from tiepoint.cli import main
from tiepoint.conversion import check_images, copies, parity
from tiepoint.conversion.check_accuracy import Accuracy
from tiepoint.conversion.graphs import write_onnx
from tiepoint.conversion.report import Bounds
from tiepoint.conversion.smaller import to_fp16, to_int8
from tiepoint.convert import convert

SHIPPED = Path(tiepoint.__file__).parent / "weights" / "default.onnx"


@pytest.fixture(scope="module", autouse=True)
def small_sizes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_images, "SIZES", ((131, 97),))
        patch.setattr(check_images, "VIEWS", 2)
        patch.setattr(check_images, "LONG_SIDE", 256)
        patch.setattr(parity, "KEYPOINTS", 512)
        patch.setattr(copies, "ROUNDS", 1)
        # the shipped file is what it would write, after a quarter of a minute
        patch.setattr(copies, "write_onnx", lambda path, *_, **__: shutil.copyfile(SHIPPED, path))
        yield


@pytest.fixture(scope="module")
def int8() -> onnx.ModelProto:
    return to_int8(onnx.load(SHIPPED), check_images.made_pair(160, 208))


def keypoints(proto: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"image0": image[None], "image1": image[None], "max_keypoints": np.array(200)}
    return session.run(["keypoints0"], feed)[0][0]


def kernels(proto: onnx.ModelProto) -> dict[str, int]:
    """The kinds of numbers in which the kernels are stored, by how many numbers there are."""
    found: dict[str, int] = {}
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == 4:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            found[kind] = found.get(kind, 0) + int(np.prod(tensor.dims))
    return found


def test_float16_holds_the_kernels_and_not_the_places() -> None:
    proto = to_fp16(onnx.load(SHIPPED))
    onnx.checker.check_model(proto, full_check=True)
    assert set(kernels(proto)) == {"FLOAT16"}
    assert len(proto.SerializeToString()) < 0.55 * SHIPPED.stat().st_size
    # beyond 2048 px float16 tells every second pixel alone: the scene lies at the far end of a wide image
    image = np.full((64, 3104, 3), 128, np.uint8)
    image[:, 2976:] = check_images.made_pair(64, 128)[0]
    small, whole = keypoints(proto, image), keypoints(onnx.load(SHIPPED), image)
    distance = np.linalg.norm(small[:, None] - whole[None], axis=2).min(1)
    assert whole[:, 0].max() > 2976
    assert np.median(distance) < 0.05
    assert any(place % 2 for place in np.rint(small[small[:, 0] > 2048][:, 0]))


def test_int8_holds_all_kernels_but_the_outer_ones(int8: onnx.ModelProto) -> None:
    onnx.checker.check_model(int8, full_check=True)
    found = kernels(int8)
    assert found["INT8"] > 0.98 * sum(found.values())
    floats = [t.name for t in int8.graph.initializer if len(t.dims) == 4 and t.data_type == onnx.TensorProto.FLOAT]
    assert sorted(floats) == [
        "extractor.detector.4.weight",
        "extractor.reliability.1.weight",
        "extractor.stem.0.0.weight",
    ]
    scales = {t.name: t for t in int8.graph.initializer}
    assert len(scales["extractor.stem.1.0.weight_scale"].dims) == 1  # one for each channel
    assert {each.domain for each in int8.opset_import} <= {"", "ai.onnx.ml"}


def test_both_images_are_seen_by_equal_scales(int8: onnx.ModelProto) -> None:
    image = check_images.made_pair(160, 208)[0]
    session = onnxruntime.InferenceSession(int8.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"image0": image[None], "image1": image[None], "max_keypoints": np.array(200)}
    first, second = session.run(["keypoints0", "keypoints1"], feed)
    assert np.array_equal(first, second)


def test_int8_as_a_verb_tells_what_it_gains_and_is_for_use_alone(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, report = tmp_path / "small.onnx", tmp_path / "report.json"
    options = ["--precision", "int8", "--calibrate", str(photos), "--tolerance", "50", "--report", str(report)]
    assert main(["convert", str(SHIPPED), str(target), *options]) == 0
    said = capsys.readouterr().out
    sizes = f"{target.stat().st_size / 1e6:.2f} MB for {SHIPPED.stat().st_size / 1e6:.2f} MB"
    assert f"int8 for float32: {sizes}" in said
    assert "photographs held out" in said
    told = json.loads(report.read_text())
    assert told["passed"]
    assert told["tolerance"] == 50
    assert (told["reduction"]["precision"], told["reduction"]["calibrating"]) == ("int8", 6)
    assert set(told["check_set"]["sets"]) == {"check set", "photographs held out"}
    assert told["check_set"]["sets"]["photographs held out"]["before"]["pairs"] == 4
    assert told["check_set"]["sets"]["check set"]["after"]["auc"]["5"] > 30
    metadata = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
    assert metadata["precision"] == "int8"
    assert "trainable" not in metadata
    assert len(tiepoint.load(target)(*check_images.made_pair(160, 208))) > 50
    with pytest.raises(tiepoint.InputError, match="its numbers as int8, which is for use alone"):
        read_weights(target)


def test_a_fall_beyond_the_tolerance_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target, report = tmp_path / "half.onnx", tmp_path / "report.json"

    def spoiled(path: Path, *_: object) -> None:
        proto = onnx.load(path)
        for tensor in proto.graph.initializer:
            if tensor.name.startswith("extractor.fuse"):  # what the descriptors are made of
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
        onnx.save(proto, path)

    monkeypatch.setattr(copies, "write_smaller", spoiled)
    command = ["convert", str(SHIPPED), str(target), "--precision", "fp16", "--report", str(report)]
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "half.onnx was not written: on the check set the AUC@5 falls from" in said
    assert "--tolerance" in said
    assert not target.exists()
    told = json.loads(report.read_text())
    assert not told["passed"]
    sets = told["check_set"]["sets"]["check set"]
    assert sets["after"]["auc"]["5"] < sets["before"]["auc"]["5"] - 2


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["a.pt", "--precision", "fp16"], "only an ONNX graph has"),
        (["a.onnx", "--precision", "int8"], "expected --calibrate FOLDER"),
        (["a.onnx", "--precision", "fp16", "--shape", "matcher"], "a matcher alone has none"),
        (["a.onnx", "--calibrate", "."], "--calibrate is for"),
        (["a.onnx", "--precision", "int8", "--calibrate", "nowhere"], "nowhere does not exist"),
        (["a.onnx", "--precision", "int8", "--calibrate", "few"], "few holds 3 usable photographs, expected 6"),
        (["a.onnx", "--precision", "int4"], "int4"),
        (["a.onnx", "--precision", "fp16", "--as", "kornia.feature.ALIKED"], "--as goes with"),
    ],
)
def test_choices_that_do_not_go_together(
    options: list[str],
    fault: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "few").mkdir()
    for photo in sorted(photos.iterdir())[:3]:
        (tmp_path / "few" / photo.name).write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(SHIPPED), *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("tiepoint: ")
    assert fault in said
    assert not list(tmp_path.glob("a.*"))


def test_the_figure_of_a_fall_has_its_sign() -> None:
    high, low = (Accuracy(4, {"1": 0.0, "3": 0.0, "5": figure}) for figure in (60.0, 55.5))
    assert high.fall_to(low) == pytest.approx(4.5)
    assert low.fall_to(high) == pytest.approx(-4.5)
    assert Bounds().tolerance == 2


@pytest.mark.slow
def test_an_extractor_alone_becomes_smaller_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "write_onnx", write_onnx)
    found = convert(
        SHIPPED, tmp_path / "extractor.onnx", shape="extractor", precision="fp16", bounds=Bounds(tolerance=50)
    )
    change = found.check["check set"]
    assert change.before.auc["5"] > 20
    assert change.after.auc["5"] == pytest.approx(change.before.auc["5"], abs=10)
    session = onnxruntime.InferenceSession(tmp_path / "extractor.onnx", providers=["CPUExecutionProvider"])
    assert {each.type for each in session.get_outputs()} == {"tensor(float)", "tensor(bool)"}
