"""Weights of others load into kornia's classes, key by key, or are refused; no code of theirs runs."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import kornia.feature as kf
import pytest
import safetensors.torch
import torch

import tiepoint
from tiepoint.cli import main
from tiepoint.conversion import check_images
from tiepoint.conversion.adoption import adopt
from tiepoint.conversion.fitting import fit
from tiepoint.conversion.foreign import read_foreign

PEERS = Path(__file__).parents[3] / "shared" / "peers"
LOFTR, ALIKED, XFEAT = "kornia.feature.LoFTR", "kornia.feature.ALIKED", "kornia.feature.XFeat"


@pytest.fixture(scope="module", autouse=True)
def few_pairs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiepoint.conversion.adoption._VIEWS", 1)
        patch.setattr(check_images, "LONG_SIDE", 128)
        yield


@pytest.fixture(scope="module")
def loftr() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(kf.LoFTR(pretrained=None).state_dict())


@pytest.fixture(scope="module")
def tiny() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(kf.ALIKED("aliked-t16").state_dict())


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Modules as they are there where a checkpoint is written, and not where it is read."""
    made = {name: ModuleType(name) for name in ("yacs", "yacs.config", "their_lab", "pytorch_lightning.callbacks.old")}

    def named(kind: type, module: str) -> type:
        kind.__module__, kind.__qualname__ = module, kind.__name__
        setattr(made[module], kind.__name__, kind)
        return kind

    named(type("CfgNode", (dict,), {}), "yacs.config")
    named(type("Settings", (), {}), "their_lab")
    named(type("ModelCheckpoint", (), {}), "pytorch_lightning.callbacks.old")
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    holder = ModuleType("holder")
    holder.modules = made  # type: ignore[attr-defined]
    yield holder
    for name in made:
        sys.modules.pop(name, None)


def lightning_file(path: Path, state: dict[str, torch.Tensor], version: str, **entries: Any) -> Path:
    """The layout of a checkpoint of PyTorch Lightning, the network being its `matcher`."""
    content = {
        "epoch": 29,
        "global_step": 100,
        "pytorch-lightning_version": version,
        "state_dict": {f"matcher.{name}": value for name, value in state.items()},
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [],
        "callbacks": {},
    }
    torch.save(content | entries, path)
    return path


def test_loftr_of_an_old_lightning_loads_and_no_class_of_theirs_is_made(
    loftr: dict[str, torch.Tensor], theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # it takes long; the other tests have it
    monkeypatch.setattr("tiepoint.conversion.adoption._measured", lambda *_: None)
    node = theirs.modules["yacs.config"].CfgNode(LOFTR={"RESOLUTION": [8, 2]})
    node.__dict__["__immutable__"] = True
    callback = theirs.modules["pytorch_lightning.callbacks.old"].ModelCheckpoint
    entries = {"hyper_parameters": {"config": node, "path": Path("a/b")}, "callbacks": {callback: {"best": 0.5}}}
    source = lightning_file(tmp_path / "outdoor.ckpt", loftr, "1.3.5", **entries)
    for name in theirs.modules:
        del sys.modules[name]
    target, report = tmp_path / "loftr.pt", tmp_path / "report.json"
    found = adopt(source, target, class_path=LOFTR, report=report)
    assert len(found.fit.of("renamed")) == len(loftr)
    assert not found.fit.of("matched", "missing", "other shape", "left over")
    assert found.fit.prefix == "matcher."
    assert not set(theirs.modules) & set(sys.modules)
    told = json.loads(report.read_text())
    assert told["passed"]
    assert {"yacs.config.CfgNode", "pytorch_lightning.callbacks.old.ModelCheckpoint"} <= set(told["passed_over"])
    names = {entry["name"]: entry["source"] for entry in told["entries"]}
    assert names["backbone.conv1.weight"] == "matcher.backbone.conv1.weight"
    held = read_foreign(target).tensors
    assert held.keys() == loftr.keys()
    assert all(torch.equal(held[name], value) for name, value in loftr.items())
    # what the runtime makes of the file is the network that it came from
    matcher = tiepoint.load("loftr", weights=target)
    network = matcher.backend._extraction.module  # type: ignore[attr-defined]
    assert all(torch.equal(value, loftr[name]) for name, value in network.state_dict().items())


def test_lightning_2_writes_numbers_of_numpy_and_torch_modules(tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    import numpy as np

    settings = {"lr": np.float64(0.1), "loss": torch.nn.L1Loss(), "size": torch.Size([3])}
    source = lightning_file(tmp_path / "tiny.ckpt", tiny, "2.5.0", hyper_parameters=settings)
    state = read_foreign(source)
    assert state.told == {"pytorch-lightning_version": "2.5.0", "epoch": 29, "global_step": 100}
    found = adopt(source, tmp_path / "tiny.pt", class_path=ALIKED)
    assert found.init_args == {"model_name": "aliked-t16"}
    assert found.matchers == ("aliked-t16",)
    assert found.accuracy is not None
    assert len(tiepoint.load("aliked-t16", weights=tmp_path / "tiny.pt")(*check_images.made_pair(97, 131))) >= 0


def test_files_of_before_torch_1_6_are_read(tiny: dict[str, torch.Tensor], theirs: Any, tmp_path: Path) -> None:
    path, other = tmp_path / "old.pth", tmp_path / "other.pth"
    settings = theirs.modules["yacs.config"].CfgNode(a=1)
    torch.save({"state_dict": tiny, "config": settings}, path, _use_new_zipfile_serialization=False)
    unknown = {"state_dict": tiny, "config": theirs.modules["their_lab"].Settings()}
    torch.save(unknown, other, _use_new_zipfile_serialization=False)
    assert read_foreign(path).passed_over == ["yacs.config.CfgNode"]
    assert all(torch.equal(tiny[name], value) for name, value in read_foreign(path).tensors.items())
    with pytest.raises(tiepoint.InputError, match=r"names their_lab\.Settings"):
        read_foreign(other)


def test_a_class_that_is_not_known_must_be_vouched_for(
    tiny: dict[str, torch.Tensor], theirs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = theirs.modules["their_lab"].Settings()
    settings.depth = 3
    source = str(lightning_file(tmp_path / "a.ckpt", tiny, "1.9.0", hyper_parameters=settings))
    target = str(tmp_path / "a.pt")
    assert main(["convert", source, target, "--as", ALIKED]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "their_lab.Settings" in said
    assert "--allow their_lab" in said
    assert main(["convert", source, target, "--as", ALIKED, "--allow", "their_lab"]) == 0
    said = capsys.readouterr().out
    assert "77 renamed, 0 missing" in said
    assert "aliked-t16" in said


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_runs_code_is_refused_whatever_is_allowed(
    old: bool, tiny: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"state_dict": tiny, "x": Bomb()}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not old)
    command = ["convert", str(tmp_path / "a.ckpt"), str(tmp_path / "a.pt"), "--as", ALIKED]
    assert main(command) == 2
    assert "exec" in capsys.readouterr().err
    # allowed, it is still not called: nothing stands in its place
    main([*command, "--allow", "builtins", "--allow+", "__builtin__"])
    assert not (tmp_path / "ran").exists()


def test_what_does_not_fit_is_refused_and_told(
    tiny: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "block2.conv1.weight"
    wrong = tiny | {name: torch.zeros(4, 8)}
    cases = {
        f"{name} is missing": {key: value for key, value in tiny.items() if key != name},
        f"{name} is (4, 8), expected {tuple(tiny[name].shape)}": wrong,
        "another architecture": tiny | {"block5.conv1.weight": torch.zeros(8, 8)},
    }
    for fault, state in cases.items():
        source = lightning_file(tmp_path / "a.ckpt", state, "1.9.0")
        report = tmp_path / "report.json"
        assert main(["convert", str(source), str(tmp_path / "b.pt"), "--as", ALIKED, "--report", str(report)]) == 2
        said = capsys.readouterr().err
        assert fault in said
        assert str(source) in said
        assert not (tmp_path / "b.pt").exists()
        told = json.loads(report.read_text())
        assert not told["passed"]
        assert len(told["entries"]) >= len(tiny)


def test_weights_of_another_network_are_refused(tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    source = lightning_file(tmp_path / "a.ckpt", tiny, "2.0.0")
    with pytest.raises(tiepoint.InputError, match=r"does not fit kornia\.feature\.DISK: 0 matched, 0 renamed"):
        adopt(source, tmp_path / "b.pt", class_path="kornia.feature.DISK")


def test_what_lies_beside_the_network_is_left_over(tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    source = lightning_file(tmp_path / "a.ckpt", tiny, "2.0.0")
    content = torch.load(source, weights_only=True)
    content["state_dict"] |= {"loss.weight": torch.ones(3), "matcher.dkd.hw_grid": torch.zeros(7, 2)}
    torch.save(content, source)
    found = adopt(source, tmp_path / "a.safetensors", class_path=ALIKED)
    assert [entry.source for entry in found.fit.of("left over")] == ["loss.weight"]
    held = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(held[name], tiny[name]) for name, _ in kf.ALIKED("aliked-t16").named_parameters())


def test_lightglue_of_the_first_release_is_renamed() -> None:
    arguments = {"input_dim": 8, "descriptor_dim": 16, "n_layers": 2, "num_heads": 1}
    glue = kf.LightGlue(None, **arguments)
    swapped = re.compile(r"transformers\.(\d)\.(self|cross)_attn")
    old = {"matcher." + swapped.sub(r"\2_attn.\1", name): value for name, value in glue.state_dict().items()}
    assert "matcher.self_attn.1.Wqkv.weight" in old
    assert not fit(kf.LightGlue(None, **arguments), old).faults()


def test_xfeat_may_lack_what_only_xfeat_star_uses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in kf.XFeat().net.state_dict().items() if "fine" not in name}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    found = adopt(tmp_path / "a.safetensors", tmp_path / "x.pt", class_path=XFEAT)
    assert {str(entry.name).split(".")[1] for entry in found.fit.of("missing")} == {"fine_matcher"}
    assert found.matchers == ("xfeat",)
    with pytest.raises(tiepoint.InputError, match="expected for xfeat-star"):
        tiepoint.load("xfeat-star", weights=tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("target", "class_path", "fault"),
    [
        ("b.onnx", ALIKED, "--as makes .pt and .safetensors"),
        ("b.pt", "kornia.feature.EfficientLoFTR", "has no EfficientLoFTR"),
        ("b.pt", "os.system", "names the class os.system"),
        ("b.pt", "kornia.feature.get_laf_scale", "is no Module"),
    ],
)
def test_what_it_cannot_be_is_said(target: str, class_path: str, fault: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises(tiepoint.InputError) as refused:
        adopt(tmp_path / "a.pth", tmp_path / target, class_path=class_path)
    assert fault in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(50), b"no weights", b"\x80\x02}q\x00."])
def test_files_of_another_kind_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(tiepoint.InputError, match=r"a\.ckpt"):
        read_foreign(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("name", "class_path", "matcher"),
    [("aliked-t16.pth", ALIKED, "aliked-t16"), ("xfeat.safetensors", XFEAT, "xfeat")],
)
def test_real_weights_give_the_same_matches(name: str, class_path: str, matcher: str, tmp_path: Path) -> None:
    if not (PEERS / name).is_file():
        pytest.skip("needs the peers' weights in ../shared/peers")
    adopt(PEERS / name, tmp_path / "copy.pt", class_path=class_path)
    images = check_images.made_pair(160, 208)
    before, after = (tiepoint.load(matcher, weights=path)(*images) for path in (PEERS / name, tmp_path / "copy.pt"))
    assert len(before) > 50
    assert (before.keypoints0 == after.keypoints0).all()
    assert (before.keypoints1 == after.keypoints1).all()
