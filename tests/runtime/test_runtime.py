"""tiepoint.load and the matchers that it returns."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

import tiepoint
from tiepoint.geometry import warp_points

SHIFT = 24  # px between the two crops


@pytest.fixture(scope="module")
def crops() -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping crops of a photograph: (x, y) of the first is (x - SHIFT, y) of the second."""
    photo = data.astronaut()[:384]
    return photo[:, : 512 - SHIFT].copy(), photo[:, SHIFT:].copy()


@pytest.fixture(scope="module", params=["default", "sift"])
def matcher(request: pytest.FixtureRequest) -> object:
    return tiepoint.load(request.param)


def shares(matches: tiepoint.Matches, expected: np.ndarray) -> float:
    return float((np.linalg.norm(matches.keypoints1 - expected, axis=1) < 1.0).mean())


def test_finds_a_translation(matcher: object, crops: tuple[np.ndarray, np.ndarray]) -> None:
    matches = matcher(*crops)  # type: ignore[operator]
    assert len(matches) > 200
    assert shares(matches, matches.keypoints0 - (SHIFT, 0)) > 0.85
    assert matches.size0 == (384, 512 - SHIFT)


def test_registers_a_real_homography(matcher: object) -> None:
    photo = data.chelsea()
    H = np.array([[0.9, 0.1, 20.0], [-0.12, 0.95, 30.0], [1e-4, -5e-5, 1.0]])
    warped = cv2.warpPerspective(photo, H, (photo.shape[1], photo.shape[0]))
    geometry = tiepoint.estimate(matcher(photo, warped), "homography")  # type: ignore[operator]
    corners = np.array([[50.0, 50.0], [380.0, 50.0], [50.0, 250.0], [380.0, 250.0]])
    assert np.abs(warp_points(geometry.matrix, corners) - warp_points(H, corners)).max() < 2.0


def test_takes_paths_pillow_and_arrays_alike(crops: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    matcher = tiepoint.load(max_keypoints=256)
    reference = matcher(*crops)
    paths = []
    for name, crop in zip(("a.png", "b.png"), crops, strict=True):
        Image.fromarray(crop).save(tmp_path / name)
        paths.append(tmp_path / name)
    forms = [
        paths,
        [str(path) for path in paths],
        [Image.fromarray(crop) for crop in crops],
        [crop.astype(np.float64) / 255 for crop in crops],
    ]
    for form in forms:
        assert np.array_equal(matcher(*form).keypoints0, reference.keypoints0)


def test_grey_arrays_match(crops: tuple[np.ndarray, np.ndarray]) -> None:
    grey = [crop.mean(2).astype(np.uint8) for crop in crops]
    matches = tiepoint.load()(*grey)
    assert shares(matches, matches.keypoints0 - (SHIFT, 0)) > 0.85


def test_exif_orientation_is_honoured(crops: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    upright = Image.fromarray(crops[0])
    exif = upright.getexif()
    exif[0x0112] = 6  # shown after a turn by 90° clockwise
    path = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    matches = tiepoint.load(max_keypoints=512)(path, crops[1])
    assert matches.size0 == crops[0].shape[:2]
    assert shares(matches, matches.keypoints0 - (SHIFT, 0)) > 0.85


def test_huge_images_are_bounded_and_coordinates_are_theirs(crops: tuple[np.ndarray, np.ndarray]) -> None:
    big = [cv2.resize(crop, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC) for crop in crops]
    matches = tiepoint.load()(*big)
    assert matches.size0 == big[0].shape[:2]
    assert matches.keypoints0.max() > 1500
    error = np.linalg.norm(matches.keypoints1 - (matches.keypoints0 - (6 * SHIFT, 0)), axis=1)
    assert (error < 6).mean() > 0.85


def test_max_keypoints_bounds_the_matches(matcher: object, crops: tuple[np.ndarray, np.ndarray]) -> None:
    name = matcher.name  # type: ignore[attr-defined]
    few = tiepoint.load(name, max_keypoints=50)(*crops)
    assert 0 < len(few) <= 50


@pytest.mark.parametrize("shape", [(8, 8), (17, 9), (9, 300), (64, 64)])
def test_blank_and_small_images_give_no_match(matcher: object, shape: tuple[int, int]) -> None:
    blank = np.full((*shape, 3), 200, np.uint8)
    matches = matcher(blank, blank)  # type: ignore[operator]
    assert len(matches) == 0
    assert not tiepoint.estimate(matches, "homography")


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 7)])
def test_images_smaller_than_a_cell_are_refused(matcher: object, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(tiepoint.InputError, match=f"{shape[1]}×{shape[0]} px"):
        matcher(image, image)  # type: ignore[operator]


def test_a_textured_image_against_a_blank_one(matcher: object, crops: tuple[np.ndarray, np.ndarray]) -> None:
    assert len(matcher(crops[0], np.zeros((100, 120, 3), np.uint8))) == 0  # type: ignore[operator]


def test_same_input_same_answer(matcher: object, crops: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = matcher(*crops), matcher(*crops)  # type: ignore[operator]
    assert np.array_equal(first.keypoints0, second.keypoints0)
    assert np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"model": "resnet"}, "resnet.*default.*sift"),
        ({"model": "nowhere.onnx"}, "nowhere.onnx does not exist"),
        ({"backend": "tensorflow"}, "tensorflow.*auto, onnxruntime, openvino or torch"),
        ({"device": "tpu"}, "tpu"),
        ({"max_keypoints": 0}, "max_keypoints is 0"),
        ({"max_keypoints": 10.5}, "max_keypoints is 10.5"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: dict[str, object], fault: str) -> None:
    with pytest.raises(tiepoint.InputError, match=fault):
        tiepoint.load(**arguments)  # type: ignore[arg-type]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for suffix in ("onnx", "ckpt", "pt"):
        path = tmp_path / f"text.{suffix}"
        path.write_text("not a network")
        with pytest.raises(tiepoint.InputError, match=f"text.{suffix}"):
            tiepoint.load(path)


def test_another_onnx_graph_is_refused(tmp_path: Path) -> None:
    import onnx

    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(tiepoint.InputError, match="expected one from image0"):
        tiepoint.load(tmp_path / "relu.onnx")
