"""All backends give the same matches, each in its own way."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from skimage import data

import tiepoint
from tiepoint.benchmark import benchmark
from tiepoint.checkpoints import Weights, read_weights, write_pt
from tiepoint.cli import main
from tiepoint.conversion.graphs import write_onnx
from tiepoint.evaluation.methods import Method, Recipe
from tiepoint.formats import read_matches
from tiepoint.match import match
from tiepoint.models.attention import AttentionMatcher
from tiepoint.models.pooled import PooledExtractor
from tiepoint.pose import pose
from tiepoint.registration import register_files
from tiepoint.runtime import Backend, embedded, openvino_graph
from tiepoint.runtime.threads import thread_count

openvino = pytest.importorskip("openvino")
Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def photos() -> Pair:
    """A stereo pair at 320×216 px."""
    left, right = (
        cv2.resize(photo, (320, 216), interpolation=cv2.INTER_AREA) for photo in data.stereo_motorcycle()[:2]
    )
    return left, right


def same(ours: tiepoint.Matches, theirs: tiepoint.Matches) -> float:
    """The smaller share of the matches that have one within 0.01 px on the other side."""
    ends = [np.hstack((matches.keypoints0, matches.keypoints1)) for matches in (ours, theirs)]
    near = np.linalg.norm(ends[0][:, None] - ends[1][None], axis=2) <= 0.01
    return float(min(near.any(1).mean(), near.any(0).mean()))


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_the_embedded_model_gives_the_same_matches(backend: Any, photos: Pair) -> None:
    matcher = tiepoint.load(backend=backend)
    expected, found = tiepoint.load(backend="onnxruntime")(*photos), matcher(*photos)
    assert f"backend={backend} " in matcher.fingerprint
    assert len(expected) > 150
    assert same(expected, found) >= 0.99
    assert np.abs(expected.scores - found.scores[: len(expected)]).max() < 1e-3


def test_auto_is_onnx_runtime(photos: Pair) -> None:
    assert tiepoint.load().fingerprint == tiepoint.load(backend="onnxruntime").fingerprint
    assert "backend=onnxruntime " in tiepoint.load().fingerprint


def test_a_checkpoint_in_torch_finds_what_its_graph_finds(photos: Pair, tmp_path: Path) -> None:
    path = embedded("default")
    assert path is not None
    write_pt(tmp_path / "default.pt", read_weights(path))
    assert same(tiepoint.load()(*photos), tiepoint.load(tmp_path / "default.pt")(*photos)) >= 0.99
    with pytest.raises(tiepoint.InputError, match=r"default\.pt holds torch weights, which openvino cannot run"):
        tiepoint.load(tmp_path / "default.pt", backend="openvino")


@pytest.mark.slow
def test_another_network_with_attention_gives_the_same_matches_everywhere(photos: Pair, tmp_path: Path) -> None:
    torch.manual_seed(0)
    extractor = PooledExtractor(branches=True).train()
    photo = torch.from_numpy(photos[0][:192]).permute(2, 0, 1).unsqueeze(0).float() / 255
    with torch.no_grad():
        for _ in range(40):  # without statistics of images all descriptors are nearly the same
            extractor.maps(photo)
    matcher = AttentionMatcher(dim=extractor.init_args["dim"])
    write_onnx(tmp_path / "mine.onnx", Weights(extractor.eval(), {}, matcher.eval()))
    found = [
        tiepoint.load(tmp_path / "mine.onnx", max_keypoints=400, backend=backend)(photos[0], photos[0][:, 8:])
        for backend in ("onnxruntime", "openvino", "torch")  # type: ignore[arg-type]
    ]
    assert len(found[0]) > 50
    assert same(found[0], found[1]) >= 0.98
    assert same(found[0], found[2]) >= 0.98


# OpenVINO


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The shapes of the inputs of every model that is compiled from now on."""
    shapes: list[list[str]] = []

    class Counted(openvino.Core):  # type: ignore[misc]
        def compile_model(self, model: Any, *args: Any) -> Any:
            shapes.append([str(port.partial_shape) for port in model.inputs])
            return super().compile_model(model, *args)

    monkeypatch.setattr(openvino_graph.openvino, "Core", Counted)
    return shapes


def test_sizes_that_come_often_get_a_model_of_their_own(
    photos: Pair, compiled: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("OFTEN", 2), ("KEPT", 1), ("IDLE", 2)):
        monkeypatch.setattr(openvino_graph, name, value)
    matcher = tiepoint.load(backend="openvino", max_keypoints=200)
    small = photos[0][:96, :128], photos[1][:96, :128]
    expected = {pair[0].shape: tiepoint.load(max_keypoints=200)(*pair) for pair in (photos, small)}

    def run(pair: Pair) -> int:
        assert same(expected[pair[0].shape], matcher(*pair)) == 1
        return len(compiled)

    assert [run(photos) for _ in range(3)] == [1, 2, 2]  # any size; its own from the second time on; that one again
    assert [run(small) for _ in range(2)] == [2, 2]  # no room while the other one was asked for lately
    assert [run(small) for _ in range(2)] == [3, 3]
    assert "?" in compiled[0][0]
    assert compiled[1:] == [["[1,216,320,3]"] * 2, ["[1,96,128,3]"] * 2]


def test_float32_is_asked_for_whatever_the_processor_has(photos: Pair) -> None:
    path = embedded("default")
    assert path is not None
    graph = openvino_graph.OpenVinoGraph(path, max_keypoints=50, device="cpu")
    assert graph.facts["precision"] == "f32"
    assert graph._any.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_a_package_that_is_absent_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tiepoint.runtime.openvino_graph")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(tiepoint.InputError, match=r"backend openvino .*pip install 'tiepoint\[openvino\]'"):
        tiepoint.load(backend="openvino")


def test_openvino_has_no_cuda() -> None:
    with pytest.raises(tiepoint.InputError, match="device is cuda, but backend openvino runs on the processor"):
        tiepoint.load(backend="openvino", device="cuda")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_files_of_something_else_are_refused_by_all(
    backend: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    for name in ("text.onnx", "nowhere.onnx"):
        with pytest.raises(tiepoint.InputError, match=name):
            tiepoint.load(tmp_path / name, backend=backend)
    assert capfd.readouterr().err == ""  # the sentence is all that is said


@pytest.mark.parametrize("place", ["beside.bin", "../beside.bin"])
def test_openvino_takes_no_weights_from_other_files(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / place).write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=place)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", *([v] for v in values))
    graph.initializer.append(weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    Path("a.onnx").write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    with pytest.raises(tiepoint.InputError, match=r"a\.onnx is no ONNX graph that ONNX Runtime can run"):
        tiepoint.load("a.onnx", backend="openvino")


# ONNX Runtime


def test_cuda_is_taken_where_it_is_and_never_searches_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Session:
        def __init__(self, source: Any, options: Any, providers: list[Any]) -> None:
            asked.append(providers)
            raise RuntimeError("enough")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for names in (["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda names=names: names)
        for device in ("auto", "cpu"):
            with pytest.raises(tiepoint.InputError, match="enough"):
                tiepoint.load(device=device)  # type: ignore[arg-type]
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"})
    assert asked == [*2 * [["CPUExecutionProvider"]], [cuda, "CPUExecutionProvider"], ["CPUExecutionProvider"]]


@pytest.mark.parametrize(
    ("told", "count"), [("3", 3), ("2,1", 2), (" 5 ", 5), ("", None), ("many", None), ("0", None), ("-1", None)]
)
def test_threads_are_as_many_as_openmp_is_told(told: str, count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(os.cpu_count() or 1)), raising=False)
    assert thread_count() == count


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to cores")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core")
def test_a_process_that_is_bound_to_a_core_stays_there() -> None:
    """ONNX Runtime by itself would start a thread on every core of the machine."""
    code = (
        "import os; core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, {core})\n"
        "import tiepoint; tiepoint.load()\n"
        "print({tuple(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')} == {(core,)})"
    )
    surroundings = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=surroundings, check=True)
    assert done.stdout.strip() == "True"


# the command line


@pytest.mark.parametrize("verb", [match, pose, register_files, benchmark])
def test_every_verb_with_a_matcher_offers_the_same_names(verb: Callable[..., None]) -> None:
    assert get_args(get_type_hints(verb)["backend"]) == get_args(Backend)


def test_match_runs_on_what_is_asked_for(photos: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "left.png", tmp_path / "right.png"]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path)
    found = []
    for backend in ("onnxruntime", "openvino"):
        target = tmp_path / f"{backend}.npz"
        assert main(["match", *map(str, paths), "--backend", backend, "-o", str(target)]) == 0
        found.append(read_matches(target))
    assert same(*found) >= 0.99
    assert main(["match", *map(str, paths), "--backend", "tensorflow"]) == 2
    assert "openvino" in capsys.readouterr().err


def test_a_benchmark_runs_graphs_on_the_backend_and_all_others_on_their_own() -> None:
    recipes = [Recipe(name, (), 64, "cpu", "openvino") for name in ("default", "sift")]
    told = [recipe.load().fingerprint for recipe in recipes]
    assert "backend=openvino " in told[0]
    assert "backend=opencv " in told[1]
    plain = Method(Recipe("default", (), 64, "cpu"), {}, threads=1)
    assert Method(recipes[0], {}, threads=1).signature != plain.signature
