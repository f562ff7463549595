"""Importing the plugin: what is public, what it loads, and what it says without PyTorch."""

import subprocess
import sys

import pytest

BLOCKER = """
import sys

missing = "torch"

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return None

sys.meta_path.insert(0, Blocker())
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("module", ["mixsolve_torch", "mixsolve_torch.attacks"])
def test_without_torch_the_message_says_what_to_install(module):
    done = run(BLOCKER + f"import {module}")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "mixsolve.base.errors.MissingDependencyError: mixsolve_torch needs PyTorch, which is not "
        "installed; install it with: pip install 'mixsolve[torch]'"
    )


def test_without_torch_the_error_is_an_import_error_and_the_core_works():
    done = run(
        BLOCKER + "try:\n    import mixsolve_torch\nexcept ImportError as error:\n"
        "    print(type(error).__name__, type(error.__cause__).__name__)\n"
        "import mixsolve\nassert mixsolve.solve([[[0.0, 1.0], [1.0, 0.0]]]).success"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MissingDependencyError", "ModuleNotFoundError"]


def test_another_missing_module_is_not_blamed_on_torch():
    done = run(BLOCKER + "missing = 'part_of_torch'\nimport mixsolve_torch")
    assert done.returncode == 1
    assert "part_of_torch" in done.stderr.strip().splitlines()[-1]
    assert "MissingDependencyError" not in done.stderr


def test_importing_loads_neither_plots_nor_data():
    done = run(
        "import mixsolve_torch, sys\n"
        "print([n for n in ('matplotlib', 'sklearn', 'torchvision', 'cvxpy') if n in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    import mixsolve_torch

    for name in mixsolve_torch.__all__:
        assert getattr(mixsolve_torch, name).__doc__
