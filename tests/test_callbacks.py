"""Progress where a person watches and nowhere else."""

import io

import pytest

from tiepoint.callbacks import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


BARS = ["init_sanity_tqdm", "init_train_tqdm", "init_validation_tqdm", "init_test_tqdm", "init_predict_tqdm"]


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    callback = Progress()
    # Lightning sets the trainer in setup(); a bar only asks which verb runs
    monkeypatch.setattr(Progress, "trainer", type("Stub", (), {"state": type("State", (), {"fn": "fit"})}))
    return callback


@pytest.mark.parametrize("name", BARS)
def test_bars_are_drawn_on_stderr_alone(
    name: str, progress: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = getattr(progress, name)()
    bar.total = 4
    bar.update(3)
    bar.refresh()
    bar.close()
    assert "3/4" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", BARS)
def test_no_bar_where_stderr_is_no_terminal(name: str, progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    bar = getattr(progress, name)()
    bar.update(3)
    bar.close()
    assert capsys.readouterr() == ("", "")
