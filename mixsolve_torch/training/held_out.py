"""The images of a run: those trained on, those the best epoch is selected on, those of the test.

A run reports accuracies on images that it was not trained on. So a data set without a test part
needs another file for it, and images that are among those trained on are no test set. A resumed run
compares the digests of its images.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data.arrays import count_shared
from mixsolve_torch.data.batching import Data, in_memory
from mixsolve_torch.data.datasets import load_data, splits
from mixsolve_torch.data.image_folder import FileImages
from mixsolve_torch.data.labelled import to_unit
from mixsolve_torch.data.pairs import is_dataset
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.streamed import StreamedSet, streamed

logger = logging.getLogger(__name__)

_HOW_TO_TEST = (
    "put train_images, train_labels, test_images and test_labels into one .npz file, name another "
    "file of images in data.test, or take evaluation.final = 'none' and evaluation.select = "
    "'validation'"
)
_HOW_TO_GIVE = (
    "give them as test=, name them in data.test, or take evaluation.final = 'none' and "
    "evaluation.select = 'validation'"
)


@dataclass(frozen=True)
class RunData:
    """The images of a run, in the hosts' memory.

    Attributes
    ----------
    fitted : ImageSet
        Those trained on.
    validation : ImageSet
        Those of the training images that are held out.
    measured : ImageSet
        Those that the most robust epoch is selected on.
    test : ImageSet or None
        Those of the final attacks; None without final attacks.
    classes : int
        Number of classes.
    digests : dict of str to str
        Of "train", all images for training, and of "test", if the best epoch is selected on it.
    """

    fitted: ImageSet
    validation: ImageSet
    measured: ImageSet
    test: ImageSet | None
    classes: int
    digests: dict[str, str]


def load(config: TrainConfig, data: Data | None = None, test: Data | None = None) -> RunData:
    """Load the images of a run.

    Parameters
    ----------
    config : TrainConfig
        The settings; ``config.data`` names the images that are not given.
    data, test : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches, optional
        Images to train on, and of the test.

    Raises
    ------
    MixsolveError
        Data that cannot be read or do not fit together, or a test on the images trained on.
    """
    options = config.data
    parts = splits(options.name) if data is None else ()
    called = f"data.name {options.name!r}" if data is None else "data"
    given = options.name if data is None else data
    whole, classes, shown = _read(config, given, "train" if parts else None, options.limit)
    draws = torch.Generator().manual_seed(config.run.seed)
    fitted, validation = whole.split(options.validation, draws)
    digests = {"train": shown}
    selects = config.evaluation.select == "test"
    if not selects and config.evaluation.final == "none":
        return RunData(fitted, validation, validation, None, classes, digests)
    if test is None and options.test is None and "test" not in parts:
        why = "evaluation.select" if selects else "evaluation.final"
        raise MixsolveError(
            f"{why} = {config.evaluation.select if selects else config.evaluation.final!r} needs "
            f"images that were not trained on, and {called} has no test part; "
            f"{_HOW_TO_TEST if data is None else _HOW_TO_GIVE}"
        )
    if test is None:
        name = options.name if options.test is None else options.test
        tested, _, shown = _read(config, name, "test" if splits(name) else None, test=True)
    else:
        name = "test"
        tested, _, shown = _read(config, test, None, test=True)
    _check(whole, tested, classes, name)
    if selects:
        digests["test"] = shown
    measured = tested if selects else validation
    return RunData(fitted, validation, measured, tested, classes, digests)


def _read(
    config: TrainConfig,
    source: str | Data,
    split: str | None,
    limit: int | None = None,
    *,
    test: bool = False,
) -> tuple[ImageSet, int, str]:
    """Return the images of a source, the number of their classes, and a digest.

    With ``data.workers`` they stay on the disk.
    """
    options = config.data
    tree = isinstance(source, str) and Path(source).is_dir()
    size = options.size if tree or not test else None
    if options.workers and (tree or is_dataset(source)):
        dataset: Any = source
        if isinstance(source, str):
            dataset = FileImages(Path(source), split, size=size, limit=limit)
            limit = None
        found, classes = streamed(dataset, options.workers, limit)
        return found, classes, found.digest(classes)
    if options.workers and not test:
        raise MixsolveError(
            f"data.workers must be 0 for {source!r}, which is read into memory; got "
            f"{options.workers}; a directory of class folders and a Dataset are read by workers"
            if isinstance(source, str)
            else "data.workers must be 0 unless data is a Dataset with a length; got "
            f"{options.workers}"
        )
    if isinstance(source, str):
        read = partial(load_data, data_dir=options.dir, download=options.download)
        images, labels, classes = read(source, split=split, limit=limit, size=size)
    else:
        images, labels, classes = in_memory(source, limit)
    parts = (images, labels) if test else (images, labels, str(classes))
    return ImageSet(images, labels), classes, digest(*parts)


def _check(train: ImageSet, test: ImageSet, classes: int, name: str) -> None:
    """Refuse a test set that does not fit the training set, or that is part of it."""
    if test.shape() != train.shape():
        raise MixsolveError(
            f"the test images of {name!r} must have the shape of those trained on, "
            f"{train.shape()}; got {test.shape()}"
        )
    if int(test.labels.max()) >= classes:
        raise MixsolveError(
            f"the test labels of {name!r} must be below the {classes} classes of the "
            f"training images; got {int(test.labels.max())}; a larger number of classes can stand "
            "in the training file, as the array 'classes'"
        )
    if isinstance(train, StreamedSet) or isinstance(test, StreamedSet):
        return  # to compare all images they would have to be read
    images = train.images, test.images
    if images[0].dtype != images[1].dtype:
        images = to_unit(images[0]), to_unit(images[1])
    shared = count_shared(*images)
    if shared == len(test.images):
        raise MixsolveError(
            f"all {shared} test images of {name!r} stand among the images trained on: accuracy on "
            f"them says nothing about others; {_HOW_TO_TEST}"
        )
    if shared:
        logger.warning(
            "%d of the %d test images stand among the images trained on: accuracy on them flatters",
            shared,
            len(test.images),
        )
