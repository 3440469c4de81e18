"""What verbs share that take many images: their files, one bar, and an image that cannot be used costs no other."""

import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tiepoint.errors import InputError, WorkError
from tiepoint.files import check_writable, json_line
from tiepoint.images import SUFFIXES

Row = dict[str, Any]


def image_files(images: Sequence[str]) -> list[Path]:
    """The files named, and for a folder the images in it, sorted.

    Raises:
        InputError: there are none, or one does not exist.
    """
    if not images:
        raise InputError("no image is given, expected images or folders of them")
    found: list[Path] = []
    for path in map(Path, images):
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path} holds no image, expected {', '.join(SUFFIXES)}")
        if not path.exists():
            raise InputError(f"{path} does not exist, expected an image file or a folder of them")
        found += inside
    return found


def check_outputs(paths: Sequence[Path], folder: Path, endings: Sequence[str]) -> None:
    """Make sure that the files of each image can be written, and that none is an image of the command.

    They are called as the image, without its suffix, and with the endings.

    Args:
        paths: the images.
        folder: that receives the files.
        endings: of the files that an image may get.

    Raises:
        InputError: one cannot be written, would replace an image of the command, or two images have one name.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output: {folder} is a file, expected a folder")
    stems = [folder / path.stem for path in paths]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"two images are called {twice.name}, which would be written over each other")
    given = {path.resolve() for path in paths}
    for stem in stems:
        for ending in endings:
            target = folder / f"{stem.name}{ending}"
            if target.resolve() in given:
                raise InputError(f"--output: {target} is an image of this very command")
            check_writable(target)


def do_each(
    paths: Sequence[Path],
    work: Callable[[Path, Callable[[], object]], Row],
    *,
    title: str,
    unit: str = "image",
    steps: Sequence[int] | None = None,
) -> list[Row]:
    """Do the same with each image, under one bar, which a single step does not need.

    Args:
        paths: the images.
        work: what is done with one; it tells its figures, and may call its second argument after each step.
        title: of the bar.
        unit: what the bar counts.
        steps: how many each image takes; one if None.

    Returns:
        The figures of each; of one that could not be done, `image` and `failed`, a sentence.

    Raises:
        InputError: there is only one image, and it cannot be used.
        WorkError: likewise.
    """
    ends = list(accumulate(steps or [1] * len(paths)))
    rows: list[Row] = []
    with tqdm(total=ends[-1], desc=title, unit=unit, disable=None if ends[-1] > 1 else True) as bar:
        for path, end in zip(paths, ends, strict=True):
            try:
                rows.append(work(path, bar.update))
            except (InputError, WorkError) as error:
                if len(paths) == 1:
                    raise
                rows.append({"image": str(path), "failed": str(error)})
            bar.update(end - bar.n)
    return rows


def tell_each(rows: Sequence[Row], sentence: Callable[[Row], str], *, as_json: bool, failure: str) -> None:
    """Print the figures, and only then complain of what could not be done.

    Args:
        rows: of `do_each`.
        sentence: what is said of an image that was done.
        as_json: a line of JSON instead of sentences.
        failure: what the images that failed lack, such as "have no edges found".

    Raises:
        WorkError: some failed.
    """
    if as_json:
        sys.stdout.write(json_line({"images": list(rows)}))
    else:
        for row in rows:
            sys.stdout.write(f"{row['image']}: {row['failed'] if 'failed' in row else sentence(row)}\n")
    failed = [row for row in rows if "failed" in row]
    if failed:
        raise WorkError(f"{len(failed)} of {len(rows)} images {failure}, the first: {failed[0]['failed']}")
