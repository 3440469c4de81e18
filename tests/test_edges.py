"""`tiepoint edges`: its files, its sentence, its JSON, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import tiepoint
from tiepoint.catalogue import read_card
from tiepoint.checkpoints import read_weights, sha256
from tiepoint.cli import main
from tiepoint.edges import EMBEDDED, EdgeDetector
from tiepoint.models.edges import EdgeNetwork

DEFAULT = EMBEDDED.parents[1] / "default.onnx"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["edges", *map(str, args)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs, and what is wrong."""
    folder = tmp_path_factory.mktemp("edges")
    Image.fromarray(data.astronaut()[:255, :301]).save(folder / "astronaut.png")
    (folder / "several").mkdir()
    for name, pixels in (("coffee", data.coffee()[:201, :303]), ("grey", data.camera()[:150, :170])):
        Image.fromarray(pixels).save(folder / "several" / f"{name}.jpg")
    (folder / "empty").mkdir()
    (folder / "broken.jpg").write_bytes((folder / "several" / "coffee.jpg").read_bytes()[:900])
    (folder / "mixed").mkdir()
    for name in ("broken.jpg", "astronaut.png"):
        (folder / "mixed" / name).write_bytes((folder / name).read_bytes())
    (folder / "twice").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.fromarray(data.camera()[:64, :64]).save(folder / "twice" / name)
    return folder


def test_files_of_an_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, folder / "astronaut.png", "-o", tmp_path, "--svg")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert "lines" in out
    names = {f"astronaut{ending}" for ending in ("-edges.png", "-thinned.png", "-overlay.png", ".svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    image = np.asarray(Image.open(folder / "astronaut.png"))
    found = EdgeDetector()(image)
    for name, values in (("edges", found.probability), ("thinned", found.thinned)):
        picture = np.asarray(Image.open(tmp_path / f"astronaut-{name}.png").convert("L"))
        assert picture.shape == image.shape[:2]
        assert np.abs(picture - 255 * values).max() <= 0.51
    overlay = np.asarray(Image.open(tmp_path / "astronaut-overlay.png"))
    assert overlay.shape == image.shape
    assert ((overlay == (74, 222, 128)).all(2) == (found.thinned >= 0.6)).mean() > 0.999
    assert (tmp_path / "astronaut.svg").read_text().count("<polyline") == len(found.lines())


def test_a_folder_and_an_image_as_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder / "several", folder / "astronaut.png", "-o", tmp_path, "--json")
    assert code == 0
    rows = json.loads(out)["images"]
    assert [Path(row["image"]).name for row in rows] == ["coffee.jpg", "grey.jpg", "astronaut.png"]
    assert rows[0]["size"] == [201, 303]
    assert all(0 < row["share"] < 0.3 for row in rows)
    assert len(list(tmp_path.iterdir())) == 9


def test_edges_are_where_things_end() -> None:
    image = np.full((120, 160, 3), 60, np.uint8)
    image[30:90, 40:120] = (200, 180, 90)
    found = EdgeDetector()(image)
    border = np.zeros((120, 160), bool)
    border[28:92, 38:122] = True
    border[33:87, 43:117] = False
    shown = found.thinned >= 0.6
    assert shown[border].sum() > 200
    assert shown[~border].sum() < 0.1 * shown[border].sum()
    assert max(len(line) for line in found.lines(0.5)) >= 4


def test_a_large_image_has_a_map_of_its_size() -> None:
    image = data.astronaut()[:200, :300]
    found = EdgeDetector(long_side=160)(image)
    assert found.probability.shape == found.thinned.shape == (200, 300)
    whole = EdgeDetector()(image).probability
    assert np.corrcoef(found.probability.ravel(), whole.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("kind", ["uint8", "float", "grey", "pillow"])
def test_images_of_every_kind(kind: str) -> None:
    image = data.camera()[:65, :97]
    given = {
        "uint8": np.dstack([image] * 3),
        "float": image.astype(np.float32) / 255,
        "grey": image,
        "pillow": Image.fromarray(image),
    }[kind]
    expected = EdgeDetector()(np.dstack([image] * 3)).probability
    assert np.abs(EdgeDetector()(given).probability - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "no image is given"),
        (["missing.jpg"], "missing.jpg does not exist"),
        (["broken.jpg"], "broken.jpg is damaged"),
        (["empty"], "empty holds no image"),
        (["twice"], "two images are called a"),
        (["astronaut.png", "--threshold", "1.5"], "--threshold is 1.5"),
        (["astronaut.png", "--long_side", "4"], "long_side is 4"),
        (["astronaut.png", "-o", "broken.jpg"], "broken.jpg is a file"),
        (["astronaut.png", "-o", "broken.jpg/deeper"], "cannot be written"),
        (["astronaut.png", "--model", "missing.onnx"], "missing.onnx does not exist"),
        (["astronaut.png", "--model", "broken.jpg"], "broken.jpg is no ONNX graph"),
        (["astronaut.png", "--model", str(DEFAULT)], "expected one from image to probability"),
    ],
)
def test_what_is_wrong_is_one_line(
    args: list[str], named: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run(capsys, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert not (folder / "edges").exists()


def test_an_image_of_the_command_is_never_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, folder / "astronaut.png", "-o", tmp_path)[0] == 0
    first = (tmp_path / "astronaut-edges.png").read_bytes()
    code, _, err = run(capsys, folder / "astronaut.png", tmp_path / "astronaut-edges.png", "-o", tmp_path)
    assert code == 2
    assert "an image of this very command" in err
    assert (tmp_path / "astronaut-edges.png").read_bytes() == first


def test_a_broken_image_among_others_costs_none_of_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, folder / "mixed", "-o", tmp_path)
    assert code == 1
    assert "broken.jpg is damaged" in out
    assert "1 of 2 images" in err.splitlines()[-1]
    assert (tmp_path / "astronaut-edges.png").exists()


def test_the_embedded_weights_are_what_their_card_says() -> None:
    card = EMBEDDED.with_suffix(".md")
    assert sha256(EMBEDDED) in card.read_text()
    assert EMBEDDED.stat().st_size < 4e6
    weights = read_weights(EMBEDDED)
    assert isinstance(weights.model, EdgeNetwork)
    assert sum(each.numel() for each in weights.model.parameters()) <= 500_000
    assert weights.metadata["task"]["class_path"] == "tiepoint.tasks.edges.EdgeTask"
    assert read_card(card)["licence"]


def test_it_is_public() -> None:
    assert tiepoint.EdgeDetector is EdgeDetector
