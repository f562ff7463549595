"""What an import costs: the core loads no framework until it needs one."""

import json
import subprocess
import sys

import pytest

HEAVY = {"numba", "cvxpy", "torch", "jax", "cupy", "matplotlib", "dask", "pandas", "sklearn"}


def modules_after(code):
    """Names of the top-level packages loaded in a fresh interpreter after running `code`."""
    script = (
        f"import sys\n{code}\nimport json\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_check_sees_an_import():
    assert "numba" in modules_after("import numba")


@pytest.mark.parametrize(
    "code",
    [
        "import mixsolve",
        "import mixsolve; mixsolve.solve; mixsolve.Solution; mixsolve.Status",
        "import mixsolve; dir(mixsolve); mixsolve.bounds; mixsolve.games.line_game()",
        "from mixsolve import *",
        "import mixsolve.commands.main",
        "import mixsolve.commands.solve",
        "from mixsolve.commands.main import main; assert main(['--help']) == 0",
        "from mixsolve.commands.main import main; assert main(['--version']) == 0",
        "from mixsolve.commands.main import main; assert main(['solve', '--help']) == 0",
    ],
)
def test_loads_none_of_the_heavy_packages(code):
    assert not HEAVY & modules_after(code)


def test_solving_numpy_arrays_loads_no_framework():
    loaded = modules_after(
        "import mixsolve\n"
        "mixsolve.solve([[[0.0, 1.0], [1.0, 0.0]]])\n"
        "mixsolve.solve([[[0.0, 1.0], [1.0, 0.0]]], 0.1)"
    )
    assert not (HEAVY - {"numba"}) & loaded


def test_every_public_name_is_there():
    import mixsolve

    for name in mixsolve.__all__:
        assert getattr(mixsolve, name) is not None
        assert name in dir(mixsolve)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mixsolve.no_such_name
