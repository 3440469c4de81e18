"""`tiepoint denoise`: what comes out of what goes in, its tiles, its strength, its JSON, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save
from PIL import ExifTags, Image
from skimage import data

import tiepoint
from tiepoint import denoise
from tiepoint.catalogue import read_card
from tiepoint.checkpoints import read_weights, sha256
from tiepoint.cli import main
from tiepoint.denoise import EMBEDDED, Denoiser, noise_level, tiles
from tiepoint.models.denoise import DenoiseNetwork
from tiepoint.ops.noise import noise_level as noise_level_of_tensors
from tiepoint.stored import StoredImage, read_stored, write_stored

DEFAULT = EMBEDDED.parents[1] / "default.onnx"
Array = np.ndarray


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["denoise", *map(str, args)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser()


@pytest.fixture(scope="module")
def noisy() -> Array:
    """A photograph with noise of 25 grey levels, eight bits."""
    clean = data.astronaut()[:150, 150:371]
    grain = np.random.default_rng(0).normal(0, 25, clean.shape)
    return np.rint(clean + grain).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, noisy: Array) -> Path:
    """Photographs, and what is wrong."""
    folder = tmp_path_factory.mktemp("denoise")
    Image.fromarray(noisy).save(folder / "noisy.png")
    (folder / "several").mkdir()
    Image.fromarray(noisy).save(folder / "several" / "colour.jpg", quality=98)
    Image.fromarray(noisy[..., 1]).save(folder / "several" / "grey.jpg", quality=98)
    (folder / "empty").mkdir()
    (folder / "broken.jpg").write_bytes((folder / "several" / "colour.jpg").read_bytes()[:900])
    (folder / "mixed").mkdir()
    for name in ("broken.jpg", "noisy.png"):
        (folder / "mixed" / name).write_bytes((folder / name).read_bytes())
    (folder / "twice").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.fromarray(noisy[:64, :64]).save(folder / "twice" / name)
    Image.fromarray(noisy[:64, :64]).convert("CMYK").save(folder / "printed.tif")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "h", "w", 3]) for name in ("image", "clean")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["clean"])], "blind", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "colours.onnx")
    return folder


def psnr(found: Array, clean: Array) -> float:
    return float(-10 * np.log10(np.square(found.astype(float) - clean).mean() / 255**2))


def test_noise_goes_and_the_photograph_stays(noisy: Array, denoiser: Denoiser) -> None:
    clean = data.astronaut()[:150, 150:371]
    found = denoiser(noisy)
    assert found.image.dtype == np.uint8
    assert found.image.shape == noisy.shape
    assert psnr(found.image, clean) > psnr(noisy, clean) + 7
    assert 20 < found.removed < 27
    assert 20 < found.noise < 30


@pytest.mark.parametrize("kind", ["uint16", "float", "grey", "one channel", "alpha", "pillow", "path"])
def test_images_of_every_kind_give_the_same(kind: str, noisy: Array, denoiser: Denoiser, folder: Path) -> None:
    expected = denoiser(noisy).image.astype(float)
    plain = noisy[..., :1].repeat(3, axis=2)
    opaque = np.dstack((noisy, np.arange(noisy[..., 0].size, dtype=np.uint8).reshape(noisy.shape[:2])))
    found = {
        "uint16": lambda: denoiser(noisy.astype(np.uint16) * 257).image / 257,
        "float": lambda: 255 * denoiser(noisy.astype(np.float32) / 255).image.clip(0, 1),
        "grey": lambda: denoiser(noisy[..., 0]).image,
        "one channel": lambda: denoiser(noisy[..., :1]).image,
        "alpha": lambda: denoiser(opaque).image,
        "pillow": lambda: denoiser(Image.fromarray(noisy)).image,
        "path": lambda: denoiser(folder / "noisy.png").image,
    }[kind]()
    if kind in ("grey", "one channel"):
        wide = denoiser(plain).image
        assert (wide == wide[..., :1]).all()
        expected = wide[..., 0] if kind == "grey" else wide[..., :1]
    if kind == "alpha":
        assert np.array_equal(found[..., 3], opaque[..., 3])
        found = found[..., :3]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 0.51


def test_sixteen_bits_are_not_rounded_to_eight(noisy: Array, denoiser: Denoiser) -> None:
    deep = (noisy.astype(np.float64) * 257 * 0.1).astype(np.uint16)  # 25 levels of 255 in all
    found = denoiser(deep).image
    assert found.dtype == np.uint16
    assert len(np.unique(found)) > 1000


@pytest.mark.parametrize("size", [(150, 221), (131, 64), (3, 290)])
def test_tiles_give_what_the_whole_gives(size: tuple[int, int], denoiser: Denoiser) -> None:
    image = np.random.default_rng(1).random((*size, 3), np.float32)
    tiled = Denoiser(tile=64)
    assert tiled.count_tiles(size) > 1
    assert np.abs(tiled(image).image - denoiser(image).image).max() < 1e-6


def test_smaller_margins_would_leave_seams(noisy: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test above can fail."""
    monkeypatch.setattr("tiepoint.denoise._reach", lambda _: (4, 4))
    image = noisy.astype(np.float32) / 255
    assert np.abs(Denoiser(tile=64)(image).image - Denoiser()(image).image).max() > 1e-4


@pytest.mark.parametrize(("widths", "blocks"), [((4,), 1), ((4, 4), 2), ((4, 4, 4), 1)])
def test_margins_are_what_the_network_sees(widths: tuple[int, ...], blocks: int) -> None:
    found = denoise._reach({"init_args": json.dumps({"widths": widths, "blocks": blocks})})
    assert found is not None
    multiple, margin = found
    torch.manual_seed(0)
    model = DenoiseNetwork(widths, blocks).double()
    for weights in model.parameters():  # without zeros, and none of its units asleep
        torch.nn.init.uniform_(weights, 0.1, 0.2)
    farthest = 0
    for place in range(160, 160 + multiple):
        image = torch.rand(1, DenoiseNetwork.CHANNELS, 320, 320, dtype=torch.float64, requires_grad=True)
        model(image)[0, :, place, place].sum().backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None
        seen = image.grad[0].abs().sum((0, 1)).nonzero()
        farthest = max(farthest, place - int(seen.min()), int(seen.max()) - place)
    assert margin - multiple <= farthest <= margin


def test_a_graph_that_does_not_tell_its_network_runs_on_whole_images(denoiser: Denoiser) -> None:
    assert denoise._reach({}) is None
    assert denoise._reach({"init_args": "[]"}) is None
    assert denoise._reach({"init_args": "{"}) is None


def test_tiles_cover_an_image_once() -> None:
    count = np.zeros((150, 221), int)
    for cut, kept in tiles((150, 221), side=64, margin=40):
        count[kept] += 1
        assert all(c.start <= k.start < k.stop <= c.stop for c, k in zip(cut, kept, strict=True))
        assert all(c.start % 4 == 0 for c in cut)
    assert (count == 1).all()


def test_the_strength_is_estimated_or_given(noisy: Array, denoiser: Denoiser) -> None:
    image = noisy.astype(np.float32) / 255
    usual = denoiser(image)
    assert np.array_equal(denoiser(image, strength=usual.noise).image, usual.image)
    removed = [denoiser(image, strength=strength).removed for strength in (5.0, 15.0, 25.0, 45.0)]
    assert removed[:2] == [5.0, 15.0]
    assert 15.0 < removed[2] < removed[3] < 45.0
    taken = 255 * np.sqrt(np.square(image - usual.image, dtype=np.float64).mean())
    assert taken == pytest.approx(usual.removed, rel=1e-4)


@pytest.mark.parametrize("sigma", [2.0, 15.0, 50.0])
def test_the_noise_is_estimated(sigma: float) -> None:
    image = np.linspace(0.2, 0.8, 301, dtype=np.float32)[None, :, None] + np.random.default_rng(0).normal(
        0, sigma / 255, (201, 301, 3)
    ).astype(np.float32)
    assert noise_level(image) == pytest.approx(sigma, rel=0.02)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    assert noise_level(image) == pytest.approx(float(noise_level_of_tensors(tensor)), rel=1e-3)
    assert noise_level(image[:1]) == 0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_a_file_says_is_kept(
    bits: int, suffix: str, channels: int, noisy: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = (noisy if bits == 8 else noisy.astype(np.uint16) * 257)[..., 0 if channels == 1 else slice(3)]
    alpha = pixels[::-1, ::-1, 0].copy() if channels == 4 else None
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 6400
    write_stored(tmp_path / f"a{suffix}", StoredImage(pixels, alpha, suffix, exif.tobytes(), b"a profile", (300, 300)))
    code, _, err = run(capsys, tmp_path / f"a{suffix}", "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    found = read_stored(tmp_path / "out" / f"a-denoised{suffix}")
    upright = np.rot90(pixels, -1)
    assert found.pixels.dtype == pixels.dtype
    assert found.pixels.shape == upright.shape
    assert np.array_equal(found.pixels, Denoiser()(np.ascontiguousarray(upright)).image)
    assert found.alpha is None if alpha is None else np.array_equal(found.alpha, np.rot90(alpha, -1))
    assert found.profile == b"a profile"
    with Image.open(tmp_path / "out" / f"a-denoised{suffix}") as image:
        kept = image.getexif()
        assert kept[ExifTags.Base.Make] == "Maker"
        assert kept[ExifTags.Base.Orientation] == 1
        assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 6400
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_json_of_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder / "several", folder / "noisy.png", "-o", tmp_path, "--json", "--strength", "5")
    assert code == 0
    rows = json.loads(out)["images"]
    assert [Path(row["output"]).name for row in rows] == [
        "colour-denoised.jpg",
        "grey-denoised.jpg",
        "noisy-denoised.png",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [Path(row["output"]).name for row in rows]
    assert all((row["size"], row["bits"], row["strength"]) == ([150, 221], 8, 5) for row in rows)
    assert all(0 < row["removed"] < row["noise"] for row in rows)
    with Image.open(tmp_path / "grey-denoised.jpg") as image:
        assert (image.mode, image.format) == ("L", "JPEG")


def test_a_sentence_of_an_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, folder / "noisy.png", "-o", tmp_path)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert str(tmp_path / "noisy-denoised.png") in out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "no image is given"),
        (["missing.jpg"], "missing.jpg does not exist"),
        (["broken.jpg"], "broken.jpg is damaged"),
        (["printed.tif"], "printed.tif holds CMYK, expected grey or RGB"),
        (["empty"], "empty holds no image"),
        (["twice"], "two images are called a"),
        (["noisy.png", "--strength", "0"], "--strength is 0, expected"),
        (["noisy.png", "--strength", "300"], "--strength is 300, expected"),
        (["noisy.png", "--strength", "much"], "strength"),
        (["noisy.png", "-o", "broken.jpg"], "broken.jpg is a file"),
        (["noisy.png", "-o", "broken.jpg/deeper"], "cannot be written"),
        (["noisy.png", "--model", "missing.onnx"], "missing.onnx does not exist"),
        (["noisy.png", "--model", "broken.jpg"], "broken.jpg is no ONNX graph"),
        (["noisy.png", "--model", str(DEFAULT)], "expected one from image to clean"),
        (["noisy.png", "--model", "colours.onnx"], "colours.onnx takes images of 3 channels, expected 4"),
    ],
)
def test_what_is_wrong_is_one_line(
    args: list[str], named: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run(capsys, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert not (folder / "denoised").exists()


def test_an_image_of_the_command_is_never_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, folder / "noisy.png", "-o", tmp_path)[0] == 0
    first = (tmp_path / "noisy-denoised.png").read_bytes()
    code, _, err = run(capsys, folder / "noisy.png", tmp_path / "noisy-denoised.png", "-o", tmp_path)
    assert code == 2
    assert "an image of this very command" in err
    assert (tmp_path / "noisy-denoised.png").read_bytes() == first


def test_a_broken_image_among_others_costs_none_of_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, folder / "mixed", "-o", tmp_path)
    assert code == 1
    assert "broken.jpg is damaged" in out
    assert "1 of 2 images" in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["noisy-denoised.png"]


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((3, 40, 40), np.uint8), "channels come last"),
        (np.zeros((40, 40), np.int64), "holds int64"),
        (np.full((40, 40), np.nan, np.float32), "not finite"),
    ],
)
def test_arrays_of_other_kinds_are_refused(image: Array, named: str, denoiser: Denoiser) -> None:
    with pytest.raises(tiepoint.InputError, match=named):
        denoiser(image)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("inf"), float("nan")])
def test_strengths_that_are_none(strength: float, denoiser: Denoiser) -> None:
    with pytest.raises(tiepoint.InputError, match="strength is"):
        denoiser(np.zeros((9, 9), np.uint8), strength=strength)


def test_the_embedded_weights_are_what_their_card_says() -> None:
    card = EMBEDDED.with_suffix(".md")
    assert sha256(EMBEDDED) in card.read_text()
    assert EMBEDDED.stat().st_size < 4e6
    weights = read_weights(EMBEDDED)
    assert isinstance(weights.model, DenoiseNetwork)
    assert weights.metadata["task"]["class_path"] == "tiepoint.tasks.denoise.DenoiseTask"
    assert read_card(card)["licence"]


def test_it_is_public() -> None:
    assert tiepoint.Denoiser is Denoiser
