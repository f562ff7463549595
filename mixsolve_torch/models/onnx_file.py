"""Classifiers in ONNX files, run by ONNX Runtime as black boxes.

A file names operators and no code. ONNX Runtime reads weights that lie beside it, and refuses those
that the file looks for outside its own directory.

References
----------
ONNX. Open Neural Network Exchange, IR specification, "External tensor data".
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mixsolve.base.errors import MissingDependencyError, MixsolveError, shortened
from mixsolve_torch.models.black_box import BlackBox


def load_onnx(path: Path) -> BlackBox:
    """Return a black box of the network in an ONNX file, on the CPU.

    Its network has one input, the images, and returns logits first.

    Raises
    ------
    MissingDependencyError
        ONNX Runtime is not installed.
    MixsolveError
        A file that ONNX Runtime cannot run, or a network of other inputs.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{path} needs ONNX Runtime, which is not installed; install it with: "
            "pip install onnxruntime"
        ) from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of a class for each status, none of them public
        raise MixsolveError(
            f"{path} is no ONNX file that can be run: {shortened(str(error))}"
        ) from error
    version = hashlib.blake2b(path.read_bytes(), digest_size=16)
    for beside in sorted(path.parent.glob(f"{path.name}.data")):
        version.update(beside.read_bytes())
    return BlackBox(session, version=version.hexdigest())
