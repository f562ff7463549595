"""Trees of image files: a folder for each class, in one set or below train/ and test/ (or val/).

Classes are numbered in the order of their folders' names, which are those of the training part
where there is one: a test part need not have images of every class. Where the files are of several
sizes, `size` must say which one they are brought to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch.data.labelled import LabelledImages
from mixsolve_torch.data.pictures import pixels

# The folders that hold a part; the first that is there counts.
_PARTS = {"train": ("train",), "test": ("test", "val")}
_ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TREE = "ROOT/train/CLASS/image.png and ROOT/test/CLASS/image.png, or ROOT/CLASS/image.png"


def splits(root: Path) -> tuple[str, ...]:
    """Return which parts a tree has, none if it is one set."""
    return tuple(_parts(root))


def read(root: Path, split: str | None, *, size: int | None, limit: int | None) -> LabelledImages:
    """Read one part of a tree; `split`, `size` and `limit` are those of `mixsolve_torch.load_data`.

    Returns
    -------
    LabelledImages
        uint8, in the order of classes and of names within a class. A picture with colours has three
        channels, and so have all if the first one has.

    Raises
    ------
    MissingDependencyError
        Pillow is not installed.
    MixsolveError
        A tree without class folders or without the part, classes that differ between the parts, a
        file that is no image, or images of several sizes without `size`.
    """
    files = FileImages(root, split, size=size, limit=limit)
    return LabelledImages(
        torch.from_numpy(_read_all(files.files, size)),
        torch.tensor(files.targets, dtype=torch.int64),
        len(files.classes),
    )


class FileImages(Dataset[tuple[torch.Tensor, int]]):
    """The images of one part of a tree, each read when it is asked for; see `read`.

    Attributes
    ----------
    files : list of Path
        In the order of classes and of names within a class.
    targets : list of int
        Their labels.
    classes : list of str
        The names of all classes.
    """

    def __init__(
        self, root: Path, split: str | None, *, size: int | None, limit: int | None
    ) -> None:
        found, self.classes = _listed(root, split, limit)
        self.files = [file for file, _ in found]
        self.targets = [label for _, label in found]
        self._size = size
        self._first: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        """Return an image (C, H, W), uint8, and its label."""
        if self._first is None:
            self._first = _read_one(self.files[0], self._size, colour=False)
        file, first = self.files[k], self._first
        image = _read_one(file, self._size, colour=len(first) == 3)
        _check_shape(image, file, first, self.files[0])
        return torch.from_numpy(np.array(image)), self.targets[k]


def _listed(
    root: Path, split: str | None, limit: int | None
) -> tuple[list[tuple[Path, int]], list[str]]:
    """Return the files of one part with their labels, and the names of the classes."""
    parts = _parts(root)
    if not parts and split is not None:
        raise MixsolveError(
            f"{root} is one set of images, without a {split} part: leave split out (--split) if "
            f"these are the images you mean, or sort them into {root / 'train'} and "
            f"{root / 'test'}"
        )
    if parts and (split or "test") not in parts:
        absent = split or "test"
        raise MixsolveError(
            f"{root} has no {absent} part: its images are those of split={next(iter(parts))!r}; "
            f"put the folders of classes of the {absent} part into {root / absent}"
        )
    folder = parts[split or "test"] if parts else root
    named = list(_classes(parts.get("train", folder)))
    found = _classes(folder)
    if strange := sorted(set(found) - set(named)):
        raise MixsolveError(
            f"{folder} has folders of classes that {parts['train']} has not: "
            f"{', '.join(strange)}; use the same names in both parts"
        )
    if len(named) < 2:
        raise MixsolveError(
            f"{folder} must hold the folders of 2 classes or more; got {', '.join(named)}; a tree "
            f"is {_TREE}"
        )
    files = [(file, named.index(name)) for name in found for file in found[name]]
    if limit is not None:
        files = _in_turn(files, limit)
    return files, named


def _parts(root: Path) -> dict[str, Path]:
    """Return the folders of the parts: those named so that hold folders of their own.

    A class may be called "train", too; its folder holds images.
    """
    found: dict[str, Path] = {}
    for part, names in _PARTS.items():
        for name in names:
            if (root / name).is_dir() and _folders(root / name):
                found.setdefault(part, root / name)
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each class, in the order of names."""
    classes = {
        below.name: sorted(
            path
            for path in below.rglob("*")
            if path.suffix.lower() in _ENDINGS and path.name[0] != "." and path.is_file()
        )
        for below in _folders(folder)
    }
    if not classes:
        raise MixsolveError(
            f"{folder} must hold a folder of images for each class; it has no folders; a tree is "
            f"{_TREE}; of IDX files give the name, 'mnist' or 'fashion-mnist', and the directory "
            "as data_dir (--data-dir, data.dir)"
        )
    for name, files in classes.items():
        if not files:
            raise MixsolveError(
                f"{folder / name} must hold images of the class {name!r} ({', '.join(_ENDINGS)}); "
                "it has none; put them there, or delete the folder"
            )
    return classes


def _in_turn(files: list[tuple[Path, int]], limit: int) -> list[tuple[Path, int]]:
    """Return `limit` of the files, the first of each class, then the second, in their order."""
    seen: dict[int, int] = {}
    ranks = []
    for _, label in files:
        ranks.append(seen.get(label, 0))
        seen[label] = ranks[-1] + 1
    chosen = sorted(range(len(files)), key=ranks.__getitem__)[:limit]
    return [files[k] for k in sorted(chosen)]


def _read_all(files: list[Path], size: int | None) -> np.ndarray:
    """Return the images (N, C, H, W), of the first one's shape."""
    first = _read_one(files[0], size, colour=False)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    for k, file in enumerate(files):
        image = first if not k else _read_one(file, size, colour=len(first) == 3)
        _check_shape(image, file, first, files[0])
        images[k] = image
    return images


def _check_shape(image: np.ndarray, file: Path, first: np.ndarray, first_file: Path) -> None:
    """Refuse an image (C, H, W) that has not the shape of the first one."""
    if image.shape[1:] != first.shape[1:]:
        raise MixsolveError(
            f"the images must have one size; {file} has {image.shape[1]} x {image.shape[2]} "
            f"pixels (height x width), {first_file} {first.shape[1]} x {first.shape[2]}; bring "
            "them to N x N with size=N (--size N, data.size)"
        )
    if len(image) != len(first):
        raise MixsolveError(
            f"the images must be grey or have colours; {file} has colours, {first_file} is grey; "
            "save the grey ones as RGB"
        )


def _read_one(file: Path, size: int | None, *, colour: bool) -> np.ndarray:
    image = _pillow()
    try:
        with image.open(file) as picture:
            return pixels(picture, str(file), size=size, colour=colour)
    except (OSError, SyntaxError, image.DecompressionBombError) as error:
        raise MixsolveError(
            f"{file} cannot be read as an image: {error}; replace it or delete it"
        ) from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            f"image files are read by Pillow, which cannot be imported ({error}); install it with: "
            "pip install 'mixsolve[torch]'"
        ) from error
    return Image
