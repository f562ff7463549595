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

import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data.arrays import count_shared
from mixsolve_torch.data.batching import Data, in_memory
from mixsolve_torch.data.datasets import load_data, splits
from mixsolve_torch.data.labelled import LabelledImages, to_unit
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet

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
    read = partial(load_data, data_dir=options.dir, download=options.download)
    if data is None:
        parts, called = splits(options.name), f"data.name {options.name!r}"
        split = "train" if parts else None
        train = read(options.name, split=split, limit=options.limit, size=options.size)
    else:
        parts, called = (), "data"
        train = in_memory(data, options.limit)
    whole = ImageSet(train.images, train.labels)
    draws = torch.Generator().manual_seed(config.run.seed)
    fitted, validation = whole.split(options.validation, draws)
    digests = {"train": digest(train.images, train.labels, str(train.classes))}
    selects = config.evaluation.select == "test"
    if not selects and config.evaluation.final == "none":
        return RunData(fitted, validation, validation, None, train.classes, digests)
    if test is None and options.test is None and "test" not in parts:
        why = "evaluation.select" if selects else "evaluation.final"
        raise MixsolveError(
            f"{why} = {config.evaluation.select if selects else config.evaluation.final!r} needs "
            f"images that were not trained on, and {called} has no test part; "
            f"{_HOW_TO_TEST if data is None else _HOW_TO_GIVE}"
        )
    if test is None:
        name = options.name if options.test is None else options.test
        size = options.size if Path(name).is_dir() else None
        unseen = read(name, split="test" if splits(name) else None, size=size)
    else:
        name, unseen = "test", in_memory(test)
    _check(train, unseen, name)
    if selects:
        digests["test"] = digest(unseen.images, unseen.labels)
    tested = ImageSet(unseen.images, unseen.labels)
    measured = tested if selects else validation
    return RunData(fitted, validation, measured, tested, train.classes, digests)


def _check(train: LabelledImages, test: LabelledImages, name: str) -> None:
    """Refuse a test set that does not fit the training set, or that is part of it."""
    if test.images.shape[1:] != train.images.shape[1:]:
        raise MixsolveError(
            f"the test images of {name!r} must have the shape of those trained on, "
            f"{tuple(train.images.shape[1:])}; got {tuple(test.images.shape[1:])}"
        )
    if int(test.labels.max()) >= train.classes:
        raise MixsolveError(
            f"the test labels of {name!r} must be below the {train.classes} classes of the "
            f"training images; got {int(test.labels.max())}; a larger number of classes can stand "
            "in the training file, as the array 'classes'"
        )
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
