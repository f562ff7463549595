"""A search of the code in a TorchScript archive for unsafe names, before any of it is compiled.

TorchScript contains operators instead of Python: of those that PyTorch registers, `aten::from_file`
maps a file of any name, to write in, and `aten::save` writes one. Other libraries register further
ones, and classes beside them. Since ``__setstate__`` runs while a file is loaded, it is the text
that is searched, for the names themselves: wherever they stand, also as the string that getattr
takes, spelled with escapes or put together from adjacent strings, which the compiler joins.

    torch.from_file, ops.aten.save     refused, in any spelling
    ops.NAME                           aten, prim, quantized and torchvision only
    __torch__.torch.classes.NAME       quantized, rnn and mkldnn only, in code and in pickles

This is no sandbox: TorchScript can loop forever or use up the memory.

References
----------
PyTorch. The TorchScript language reference; torch/csrc/jit/serialization/import_source.cpp.
"""

from __future__ import annotations

import re

from mixsolve.base.errors import MixsolveError, shortened

_PARTS = re.compile(
    r"data\.pkl|constants\.pkl|version|byteorder|\.data/version|\.data/serialization_id"
    r"|(data|constants)/[\w.]+|code/.+\.py"
)
_READ = re.compile(r"code/.+\.py|[^/]+\.pkl")

_GAP = rb"(?:\s|\\|#[^\n]*\n)*"  # what may stand between two words of code
_OF_CODE = (
    (re.compile(rb"\bfrom_file\b"), "reads and writes files"),
    (re.compile(rb"[.\"']" + _GAP + rb"save\b"), "writes files"),
    (
        # As an attribute, in a type or a string, it is something else.
        re.compile(
            rb"(?<![.\w])ops\b(?!\.(?:aten|prim|quantized|torchvision)\.)(?=" + _GAP + rb"[.,)])"
        ),
        "reaches operators that are not PyTorch's own",
    ),
)
# In a pickle anything may stand before a name and after it.
_OF_TYPES = (
    (re.compile(rb"__torch__(?:\.torch)?\b(?!\.\w)"), "reaches classes that are not its own"),
    (
        re.compile(rb"__torch__\.torch\.classes(?!\.(?:quantized|rnn|mkldnn)\.\w)"),
        "reaches classes that are not its own",
    ),
)

_OCTAL = re.compile(rb"\\([0-7]{1,3})")
_JOINED = re.compile(rb"[\"'](?:[\"'\s\\]|#[^\n]*\n)*[\"']")


def is_part(part: str) -> bool:
    """Whether PyTorch needs a part of an archive to load the module in it."""
    return _PARTS.fullmatch(part) is not None


def is_searched(part: str) -> bool:
    """Whether a part may name what `search` looks for."""
    return _READ.fullmatch(part) is not None


def search(part: str, content: bytes) -> None:
    """Refuse code or a pickle, a part of an archive, that names what could reach files."""
    if part.endswith(".pkl"):
        # A pickle names a class in two lines.
        texts, rules = [content.replace(b"\n", b".")], [*_OF_TYPES]
    else:
        spelled = _OCTAL.sub(_letter, content).replace(b"\\\n", b"")
        texts, rules = [content, spelled, _JOINED.sub(b"", spelled)], [*_OF_CODE, *_OF_TYPES]
    for text in texts:
        for rule, what in rules:
            if found := rule.search(text):
                around = text[max(0, found.start() - 30) : found.end() + 30]
                raise MixsolveError(
                    f"it {what}: {part} has {shortened(repr(around.decode(errors='replace')), 200)}"
                )


def _letter(escape: re.Match[bytes]) -> bytes:
    """Return the letter that an octal escape stands for, or what stood there if it is none."""
    code = int(escape[1], 8)
    letter = bytes([code]) if code < 128 else b""
    return letter if re.fullmatch(rb"\w", letter) else escape[0]
