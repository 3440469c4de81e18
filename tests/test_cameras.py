import pytest
from PIL import ExifTags, Image

from tiepoint.cameras import camera_of_file, camera_of_fov
from tiepoint.errors import InputError


def photo(path, **tags: object) -> str:  # noqa: ANN001
    """A photograph of 600×400 px with tags in its EXIF block."""
    image, exif = Image.new("RGB", (600, 400)), Image.Exif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        (exif if name in ("Make", "Model") else inner)[ExifTags.Base[name]] = value
    image.save(path, exif=exif)
    return str(path)


def test_the_field_of_view_is_along_the_longer_side() -> None:
    for size in ((400, 600), (600, 400)):
        K = camera_of_fov(size, 90.0)
        assert K[0, 0] == K[1, 1] == pytest.approx(300)
        assert K[:2, 2].tolist() == [(size[1] - 1) / 2, (size[0] - 1) / 2]
    for wrong in (0.0, 180.0, -20.0, float("nan")):
        with pytest.raises(InputError, match="--fov"):
            camera_of_fov((400, 600), wrong)


@pytest.mark.parametrize(
    ("tags", "focal", "named"),
    [
        ({"FocalLengthIn35mmFilm": 50}, 50 / 43.2666 * 721.11, "50 mm equivalent"),
        (
            {
                "FocalLength": 20.0,
                "FocalPlaneXResolution": 6000 / 36 * 25.4,
                "FocalPlaneResolutionUnit": 2,
                "ExifImageWidth": 6000,
            },
            20 / 36 * 600,
            "sensor 36.0 mm wide",
        ),
        ({"FocalLength": 35.0, "Make": "Canon", "Model": "Canon EOS 5D Mark II"}, 35 / 36 * 600, "table"),
        ({"FocalLength": 35.0, "Make": "Canon", "Model": "Canon EOS-1Ds Mark II"}, 35 / 36 * 600, "36 mm"),
        ({"FocalLength": 35.0, "Make": "Canon", "Model": "Canon EOS-1D Mark III"}, 35 / 28.7 * 600, "28.7 mm"),
        ({"FocalLength": 35.0, "Make": "Canon", "Model": "Canon EOS 450D"}, 35 / 22.4 * 600, "22.4 mm"),
        ({"FocalLength": 14.0, "Make": "OLYMPUS IMAGING CORP.  ", "Model": "E-PL1"}, 14 / 17.3 * 600, "17.3 mm"),
    ],
)
def test_what_a_camera_writes(tags: dict[str, object], focal: float, named: str, tmp_path) -> None:  # noqa: ANN001
    K, told = camera_of_file(photo(tmp_path / "a.jpg", **tags), (400, 600))
    assert K[0, 0] == pytest.approx(focal, rel=1e-3)
    assert named in told


def test_too_little_is_nothing(tmp_path) -> None:  # noqa: ANN001
    for number, tags in enumerate(
        ({}, {"FocalLength": 35.0}, {"FocalLength": 9.0, "Make": "OLYMPUS", "Model": "E-10"})
    ):
        assert camera_of_file(photo(tmp_path / f"{number}.jpg", **tags), (400, 600)) is None
    assert camera_of_file(str(tmp_path / "missing.jpg"), (400, 600)) is None
