"""The debugger opens where it is asked to and where something fails: a real pdb, at a real terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tiepoint import debugging
from tiepoint.cli import main
from tiepoint.debugging import BreakAt
from tiepoint.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
BROKEN = '''
from tiepoint.tasks.matching import MatchingTask


class Broken(MatchingTask):
    """Fails at step 3, and stops by itself at step 1."""

    def training_step(self, batch, batch_idx):
        if self.global_step == 1:
            breakpoint()
        loss = super().training_step(batch, batch_idx)
        if self.global_step == 3:
            suspicious = 41 + 1
            raise ValueError("step three is broken")
        return loss
'''


@pytest.fixture
def command(small_fit: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """A training of six steps, validated after every second one, in the folder `mine`."""
    run = ("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "mine")
    return partial(
        small_fit, *run, "--data.epoch_pairs", "6", "--trainer.max_steps", "6", "--trainer.val_check_interval", "2"
    )


class Terminal:
    """A program at a pseudo-terminal, typed to and read from."""

    def __init__(self, args: list[str], **env: str) -> None:
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            args, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | env, close_fds=True
        )
        os.close(theirs)
        self._ours = ours

    def until(self, prompt: str, seconds: float = 120) -> str:
        """What it writes up to a prompt, without the codes that move the cursor."""
        seen, deadline = "", time.monotonic() + seconds
        while prompt not in seen:
            assert time.monotonic() < deadline, f"no {prompt} in:\n{seen}"
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    seen += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # it has left
                    assert prompt == "", f"it left without {prompt}:\n{seen}"
                    break
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)

    def rest(self) -> str:
        """What it writes until it leaves."""
        seen, deadline = "", time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                break
        return seen

    def close(self) -> None:
        """End the program, if it has not left."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, typed: str) -> None:
        """A line, whatever comes of it."""
        os.write(self._ours, f"{typed}\n".encode())

    def ask(self, typed: str) -> str:
        """What the debugger answers."""
        self.type(typed)
        return self.until("(Pdb) ")


def test_every_command_of_pdb_on_a_training_that_fails(command: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    options = ["--model", "broken.Broken", "--debug", "--break-at", "train:2"]
    tiepoint = [sys.executable, "-m", "tiepoint", *command("--data.num_workers", "1", *options)]
    terminal = Terminal(tiepoint, PYTHONPATH=str(tmp_path), COLUMNS="120")
    try:
        # breakpoint() in the user's own code
        opened = terminal.until("(Pdb) ")
        assert "one process, no workers" in opened
        assert "loss = super().training_step(batch, batch_idx)" in opened
        assert "'image0'" in terminal.ask("pp sorted(batch)")
        assert "epoch" not in terminal.ask("p self.global_step").lower()  # no bar writes over the answer
        # --break-at
        opened = terminal.ask("c")
        assert "before train step 2" in opened
        assert re.search(r"^2\r?$", terminal.ask("p step"), re.MULTILINE)
        assert "torch.Size([2, 1, 64, 64])" in terminal.ask("p batch['image0'].shape")
        assert "Broken" in terminal.ask("p type(task).__name__")
        assert "True" in terminal.ask("p trainer.num_devices == 1 and trainer.datamodule.num_workers == 0")
        assert "def _prompt" in terminal.ask("l")
        assert "on_train_batch_start" in terminal.ask("w")
        assert "_perhaps" in terminal.ask("u")
        assert "_prompt" in terminal.ask("d")
        assert "Return" in terminal.ask("n")
        assert "debugging.py" in terminal.ask("s")
        # post mortem, in the frame that failed
        opened = terminal.ask("c")
        assert "ValueError: step three is broken" in opened
        assert "42" in terminal.ask("p suspicious")
        assert 'raise ValueError("step three is broken")' in terminal.ask("l")
        assert "training_step" in terminal.ask("w")
        assert "lightning" in terminal.ask("u")
        terminal.type("q")
        assert "tiepoint: ValueError: step three is broken" in terminal.rest()
        assert terminal.process.wait(30) == 1
    finally:
        terminal.close()
    assert (tmp_path / "mine" / "crash" / "batch.pt").exists()


def test_leaving_the_debugger_leaves_the_training(command: Callable[..., list[str]], tmp_path: Path) -> None:
    tiepoint = [sys.executable, "-m", "tiepoint", *command("--break-at", "train:1")]
    terminal = Terminal(tiepoint)
    try:
        terminal.until("(Pdb) ")
        terminal.type("q")
        assert "interrupted" in terminal.rest()
        assert terminal.process.wait(30) == 130
    finally:
        terminal.close()
    assert (tmp_path / "mine" / "last.ckpt").exists()
    assert not (tmp_path / "mine" / "crash").exists()


# when it opens


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where the prompt would have opened."""
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(debugging, "_prompt", lambda stage, step, *_: seen.append((stage, step)))
    return seen


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--break-at", "train:4"], [("train", 4)]),
        (["--break-at", "train:1", "--trainer.accumulate_grad_batches", "2"], [("train", 1)]),
        (["--break-at", "validate:0", "--trainer.max_steps", "2"], [("validate", 0)]),
        (["--break-when", "step >= 4 and matched >= 0"], [("train", 4), ("train", 5)]),
        (["--break-when", "batch['image0'].shape[0] == 3"], []),
        (["--break-at", "train:2", "--break-when", "step == 3 and loss > -100"], [("train", 2), ("train", 3)]),
    ],
)
def test_the_prompt_opens_where_it_was_asked_for(
    command: Callable[..., list[str]], opened: list[tuple[str, int]], options: list[str], expected: list[Any]
) -> None:
    assert main(command(*options)) == 0
    assert opened == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"at": "train"}, "--break-at is train, expected a stage and a step, as train:120"),
        ({"at": "fit:3"}, "--break-at is fit:3, expected"),
        ({"at": "train:-1"}, "--break-at is train:-1, expected"),
        ({"when": "loss >"}, "--break-when is loss >, expected a Python expression"),
        ({"when": "loss = 3"}, "--break-when is loss = 3, expected a Python expression"),
    ],
)
def test_what_is_no_place_is_an_input_error(options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        BreakAt(**options)


def test_a_run_does_not_remember_where_it_was_broken(
    command: Callable[..., list[str]], tmp_path: Path, opened: list[tuple[str, int]]
) -> None:
    assert main(command("--break-at", "train:1", "--debug")) == 0
    assert len(opened) == 1
    config = (tmp_path / "mine" / "config.yaml").read_text()
    assert "break_at" not in config
    assert "debug" not in config
