"""What verbs share that take many images; the verbs' own tests hold the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tiepoint.each_image import Row, do_each, tell_each
from tiepoint.errors import InputError, WorkError


def fails_at_b(path: Path, moved: Callable[[], object]) -> Row:
    moved()
    if path.name == "b":
        raise InputError("b is broken")
    return {"image": path.name}


def test_a_failure_among_others_is_told_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    rows = do_each([Path("a"), Path("b"), Path("c")], fails_at_b, title="working", steps=[1, 5, 2])
    assert [row.get("failed") for row in rows] == [None, "b is broken", None]
    with pytest.raises(WorkError, match=r"1 of 3 images have nothing, the first: b is broken"):
        tell_each(rows, lambda row: "done", as_json=False, failure="have nothing")
    assert capsys.readouterr().out.splitlines() == ["a: done", "b: b is broken", "c: done"]


def test_a_single_failure_is_the_error_itself() -> None:
    with pytest.raises(InputError, match="b is broken"):
        do_each([Path("b")], fails_at_b, title="working")
