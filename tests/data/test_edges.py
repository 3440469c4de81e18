"""Images with drawn edges: layouts, splits, crops, augmentations that move both, and wrong folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiepoint.data.edges import EdgeCrops, EdgeMaps, find_samples, read_annotations
from tiepoint.data.order import Draw
from tiepoint.errors import InputError


def draw(seed: int, size: tuple[int, int] = (70, 90)) -> tuple[np.ndarray, np.ndarray]:
    """A bright box on grey, and its border."""
    rng = np.random.default_rng(seed)
    image, edges = np.full((*size, 3), 90, np.uint8), np.zeros(size, bool)
    top, left = (int(each) for each in rng.integers(5, 20, 2))
    edges[top : top + 31, left : left + 41] = True
    edges[top + 1 : top + 30, left + 1 : left + 40] = False
    image[top : top + 31, left : left + 41] = rng.integers(150, 255, 3)
    return image, edges


def bsds(folder: Path, count: int = 6) -> Path:
    for split, number in (("train", count), ("val", 2), ("test", 2)):
        for which in range(number):
            image, edges = draw(which + 10 * len(split))
            both = np.stack([edges, np.zeros_like(edges)])
            for kind in ("images", "boundaries"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "images" / split / f"{split}{which}.png")
            bits = np.packbits(both.reshape(2, -1), axis=1)
            np.savez(folder / "boundaries" / split / f"{split}{which}.npz", bits=bits, shape=both.shape)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bsds(tmp_path_factory.mktemp("bsds"))


def test_bsds_is_read_with_its_splits(folder: Path) -> None:
    samples = find_samples(folder)
    assert [each.split for each in samples].count("train") == 6
    annotations = read_annotations(samples[0].edges)
    assert annotations.shape == (2, 70, 90)
    assert annotations.dtype == bool
    assert annotations[0].sum() == 140
    assert annotations[1].sum() == 0


@pytest.mark.parametrize("layout", [("images", "edges"), ("imgs", "gt"), ("imgs", "edge_maps")])
def test_other_layouts_are_found(layout: tuple[str, str], tmp_path: Path) -> None:
    for kind in layout:
        (tmp_path / kind).mkdir()
    image, edges = draw(0)
    Image.fromarray(image).save(tmp_path / layout[0] / "a.jpg")
    Image.fromarray(255 * edges.astype(np.uint8)).save(tmp_path / layout[1] / "a.png")
    (sample,) = find_samples(tmp_path)
    assert sample.split == ""
    assert np.array_equal(read_annotations(sample.edges), edges[None])


def test_biped_keeps_its_maps_a_folder_higher(tmp_path: Path) -> None:
    image, edges = draw(0)
    for path, pixels in (("imgs/train/rgbr/a.png", image), ("edge_maps/train/a.png", 255 * edges.astype(np.uint8))):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / path)
    (sample,) = find_samples(tmp_path)
    assert (sample.edges.name, sample.split) == ("a.png", "train")


@pytest.mark.parametrize("size", [(32, 48), (96, 128)])
def test_crops_keep_image_and_edges_together(folder: Path, size: tuple[int, int]) -> None:
    """The consensus is half where the box ends: also in windows larger than the image, which are mirrored."""
    crops = EdgeCrops(find_samples(folder), size)
    for seed in range(8):
        item = crops[Draw(seed % 6, seed)]
        assert item["image"].shape == (3, *size)
        assert set(item["consensus"].unique().tolist()) <= {0.0, 0.5}
        bright = item["image"].float().mean(0) > 120
        inner = bright[1:-1, 1:-1]
        around = [
            bright[1 + y : size[0] - 1 + y, 1 + x : size[1] - 1 + x] for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))
        ]
        rim = inner & ~torch.stack(around).all(0)
        assert (item["consensus"][0, 1:-1, 1:-1][rim] == 0.5).all()
    assert all(torch.equal(crops[Draw(1, 5)][name], crops[Draw(1, 5)][name]) for name in ("image", "consensus"))


def test_splits_are_apart_and_always_the_same(folder: Path) -> None:
    modules = [EdgeMaps(folder, size=(32, 32), batch_size=2, num_workers=0, held_out=0.25) for _ in range(2)]
    for module in modules:
        module.setup()
    assert modules[0].splits == modules[1].splits
    assert {name: len(each) for name, each in modules[0].splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert not {each.image for each in modules[0].splits["train"]} & {each.image for each in modules[0].splits["val"]}
    assert {each.split for each in modules[0].splits["test"]} == {"test"}
    assert modules[0].data_hash == modules[1].data_hash


def test_a_resume_goes_on_with_the_same_crops(folder: Path) -> None:
    orders = []
    for _ in range(2):
        module = EdgeMaps(folder, size=(32, 32), batch_size=2, num_workers=0)
        torch.manual_seed(3)
        module.setup()
        orders.append([batch["image"] for batch in module.train_dataloader()])
    assert all(torch.equal(one, other) for one, other in zip(*orders, strict=True))


def test_changes_move_image_and_edges_together(folder: Path) -> None:
    module = EdgeMaps(folder, size=(64, 64), batch_size=2, num_workers=0, photometric=0.0)
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 64).expand(4, 1, 64, 64)
    image, consensus = module.changes(ramp.expand(4, 3, 64, 64).contiguous(), ramp.contiguous())
    # what is no edge at all but a ramp shows where each pixel has come from, in the image as in the map
    assert (image.mean(1, keepdim=True) - consensus).abs().mean() < 0.02
    assert (image - ramp).abs().mean() > 0.05


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": (16, 64)}, "data.size"),
        ({"held_out": 0.7}, "data.held_out"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"zoom": 0.5}, "data.zoom"),
        ({"photometric": 2.0}, "data.photometric"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], named: str, folder: Path) -> None:
    with pytest.raises(InputError, match=named):
        EdgeMaps(folder, **options)  # type: ignore[arg-type]


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_samples(tmp_path / "missing")
    with pytest.raises(InputError, match="holds no images with edge maps"):
        find_samples(tmp_path)
    broken = tmp_path / "a.npz"
    np.savez(broken, bits=np.zeros((1, 3), np.uint8))
    with pytest.raises(InputError, match="holds no drawings"):
        read_annotations(broken)


def test_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    bsds(tmp_path, count=1)
    Image.fromarray(draw(0, (60, 90))[0]).save(tmp_path / "images" / "train" / "train0.png")
    crops = EdgeCrops([each for each in find_samples(tmp_path) if each.split == "train"], None)
    with pytest.raises(InputError, match="90×70 px, and the image is 90×60"):
        crops[0]
