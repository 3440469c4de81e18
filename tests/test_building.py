"""What strangers' weight files may not do: each is refused in one line with exit code 2."""

import base64
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

import tiepoint
from tiepoint.building import build, check_plain
from tiepoint.checkpoints import Weights, read_weights, write_pt, write_safetensors
from tiepoint.cli import main
from tiepoint.models.base import Extractor
from tiepoint.models.blocks import deployed
from tiepoint.models.pyramid import PyramidExtractor

SHIPPED = Path(tiepoint.__file__).parent / "weights" / "default.onnx"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "small.pt"
    write_pt(path, Weights(PyramidExtractor(widths=(8, 16, 24, 24, 24), dim=24).eval(), {}))
    return path


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which a file is refused."""
    assert main(["convert", str(path), str(path.with_name("target.pt"))]) == 2
    assert not path.with_name("target.pt").exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(path) in lines[0]
    return lines[0]


@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
def test_a_pickle_that_runs_code(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {}, "hyper_parameters": Bomb(), "class_path": "x"}, tmp_path / f"bomb{suffix}")
    assert "can be read safely" in refused(tmp_path / f"bomb{suffix}", capsys)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors", ".onnx"])
@pytest.mark.parametrize(
    "content", [b"", b"not a network", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(50)]
)
def test_a_file_of_another_kind(
    suffix: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"other{suffix}").write_bytes(content)
    refused(tmp_path / f"other{suffix}", capsys)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors", ".onnx"])
def test_a_truncated_file(suffix: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = SHIPPED if suffix == ".onnx" else small
    if suffix == ".safetensors":
        write_safetensors(whole := tmp_path / "whole.safetensors", read_weights(small))
    content = whole.read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / f"half{suffix}").write_bytes(content[: int(share * len(content))])
        refused(tmp_path / f"half{suffix}", capsys)


def changed(small: Path, tmp_path: Path, **entries: Any) -> Path:
    torch.save(torch.load(small, weights_only=True) | entries, tmp_path / "changed.pt")
    return tmp_path / "changed.pt"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times: int) -> list[Any]:
    """A list of a thousand bytes in a file, which has two to the power of `times` entries."""
    value: list[Any] = [1, 2]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("init_args", "fault"),
    [
        ({"dim": 32}, "does not fit"),
        ({"widths": [8, 16, 24, 24, 24], "dim": 25, "head": 8}, "does not fit"),
        ({"widths": 5 * [10**6]}, "does not fit"),
        ({"dim": 10**15}, "does not fit"),
        ({"widths": 10_000 * [8]}, "more weights than"),
        ({"widths": nested(200)}, "larger or deeper"),
        ({"widths": doubled(60)}, "larger or deeper"),
        ({"widths": "x" * 2_000_000}, "larger or deeper"),
        ({"depth": 3}, "does not fit"),
        ([1], "does not fit"),
    ],
)
def test_arguments_that_do_not_fit_the_weights(
    init_args: Any, fault: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fault in refused(changed(small, tmp_path, init_args=init_args), capsys)


def test_a_state_dict_of_something_else(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(small, weights_only=True)["state_dict"]
    name = next(iter(state))
    claimed = torch.zeros(1).expand(10**12)
    for wrong in (
        {**state, name: state[name][:1].clone()},
        {**state, "more": torch.zeros(1)},
        {key: value for key, value in state.items() if key != name},
        {**state, name: claimed},
        {**state, name: "text"},
        {**state, 5: torch.zeros(1)},
        [1, 2],
    ):
        refused(changed(small, tmp_path, state_dict=wrong), capsys)


def test_the_fused_form_cannot_be_trained(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fused = deployed(read_weights(small).extractor).state_dict()
    assert "fused form" in refused(changed(small, tmp_path, state_dict=fused), capsys)


@pytest.mark.parametrize("metadata", [{"a": nested(200)}, {"a": doubled(60)}, {"a": "x" * 2_000_000}, {"a": {1, 2}}, 3])
def test_metadata_that_are_a_bomb(
    metadata: Any, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(changed(small, tmp_path, metadata=metadata), capsys)


@pytest.mark.parametrize(
    ("class_path", "fault"),
    [
        ("os.system", r"os\.system.*--allow"),
        ("tiepointless.models.Net", "--allow"),
        ("tiepoint.__main__.main", "--allow"),
        ("tiepoint.models.pyramid.nothing", "no class"),
        ("tiepoint.models.nowhere.Net", "no class"),
        ("tiepoint.models.dense.standardise", "is no Network"),
        ("kornia.feature.LoFTR", "tiepoint match --model NAME --weights"),
        ("tiepoint.tasks.base.BaseTask", "is no Network"),
        (["os", "system"], "--allow"),
    ],
)
def test_a_class_from_elsewhere(class_path: Any, fault: str, small: Path, tmp_path: Path) -> None:
    with pytest.raises(tiepoint.InputError, match=fault):
        read_weights(changed(small, tmp_path, class_path=class_path))


def test_a_class_of_a_package_that_is_allowed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "their_nets.py").write_text(
        "from tiepoint.models.pyramid import PyramidExtractor\nclass Mine(PyramidExtractor):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = changed(small, tmp_path, class_path="their_nets.Mine")
    assert "--allow" in refused(path, capsys)
    assert type(read_weights(path, allow=["their_nets"]).extractor).__name__ == "Mine"


def test_a_zip_that_unpacks_to_more_than_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/0", bytes(50_000_000))
    assert "unpacks to more" in refused(tmp_path / "bomb.pt", capsys)


def test_safetensors_of_something_else(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = read_weights(small)
    state = {f"extractor.{name}": value for name, value in weights.extractor.state_dict().items()}
    spec = {"model": weights.specs()["model"], "metadata": {}}
    deep = '{"model": ' + 100_000 * "[" + 100_000 * "]" + "}"
    path = tmp_path / "other.safetensors"
    for told in ({}, {"tiepoint": "{"}, {"tiepoint": "[]"}, {"tiepoint": deep}, {"tiepoint": "{}"}):
        safetensors.torch.save_file(state, path, metadata=told)
        refused(path, capsys)
    safetensors.torch.save_file({"extractor.x": torch.zeros(1)}, path, metadata={"tiepoint": json.dumps(spec)})
    refused(path, capsys)


Change = Callable[[onnx.ModelProto], object]


def entry(name: str, value: str) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        for each in proto.metadata_props:
            if each.key == name:
                each.value = value

    return change


def external(location: str) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def shape_of_first(*dims: int) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer[0].dims[:] = dims

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (external("../secret.bin"), r"\.\./secret\.bin"),
        (external("/etc/passwd"), "/etc/passwd"),
        (external("beside.bin"), "another file"),
        (entry("init_args", 100_000 * "["), "init_args"),
        (entry("init_args", json.dumps({"widths": 100_000 * [1]})), "larger or deeper"),
        (entry("init_args", json.dumps({"widths": 5 * [10**6]})), "does not fit"),
        (entry("init_args", json.dumps({"widths": 10_000 * [8]})), "more weights"),
        (entry("class_path", "os.system"), "--allow"),
        (entry("training", '{"a": ' + 50 * "[" + 50 * "]" + "}"), "larger or deeper"),
        (entry("trainable", "no base64!"), "damaged"),
        (entry("trainable", base64.b64encode(b"no tensors").decode()), "damaged"),
        (entry("trainable", base64.b64encode(safetensors.torch.save({"x": torch.zeros(1)})).decode()), "does not fit"),
        (shape_of_first(10**6, 10**6, 4, 4), "does not fit"),
        (shape_of_first(1, 16, 4, 4), "does not fit"),
        (lambda proto: proto.ClearField("metadata_props"), "does not name"),
    ],
)
def test_onnx_that_is_an_attack(change: Change, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    np.zeros(256, np.float32).tofile(tmp_path / "secret.bin")
    proto = onnx.load(SHIPPED)
    change(proto)
    (tmp_path / "folder" / "attack.onnx").write_bytes(proto.SerializeToString())
    assert fault.replace("\\", "") in refused(tmp_path / "folder" / "attack.onnx", capsys)


def test_matching_refuses_weights_outside_the_folder_too(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    np.zeros(256, np.float32).tofile(tmp_path / "secret.bin")
    proto = onnx.load(SHIPPED)
    external("../secret.bin")(proto)
    (tmp_path / "folder" / "attack.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(tiepoint.InputError, match=r"attack\.onnx"):
        tiepoint.load(tmp_path / "folder" / "attack.onnx")


def test_plain_data_pass() -> None:
    check_plain({"a": [1, 2.5, None, True, "text", (1, 2)], "b": {"c": []}}, title="x")
    with pytest.raises(tiepoint.InputError, match="x holds a set"):
        check_plain({"a": {1}}, title="x")


def test_a_network_is_built_in_evaluation_mode(small: Path) -> None:
    content = torch.load(small, weights_only=True)
    network = build(content, Extractor, title="x")
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])
