"""The public surface: names, lazy imports, and what may not be imported."""

import subprocess
import sys

import pytest

import tiepoint


def loaded_after(code: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter holds after running `code`."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()}


@pytest.mark.parametrize(
    "code",
    [
        "import tiepoint",
        "from tiepoint.cli import main; main(['--help'])",
        "from tiepoint.cli import main; main(['match', '--help'])",
        "from tiepoint.cli import main; main(['pose', '--help']); main(['register', '--help'])",
        "import tiepoint; tiepoint.register; tiepoint.relative_pose",
        "import tiepoint; tiepoint.load('sift'); tiepoint.load('default'); tiepoint.estimate",
    ],
)
def test_matching_and_help_import_neither_torch_nor_lightning(code: str) -> None:
    assert not loaded_after(code) & {"torch", "lightning", "kornia"}


def test_all_names_exist_and_are_listed() -> None:
    assert set(tiepoint.__all__) <= set(dir(tiepoint))
    for name in tiepoint.__all__:
        assert getattr(tiepoint, name) is not None


def test_estimate_is_the_function_even_after_its_module_is_imported() -> None:
    import tiepoint.geometry

    assert callable(tiepoint.estimate)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = tiepoint.nothing_of_the_kind
