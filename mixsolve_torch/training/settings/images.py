"""The settings of the images."""

from __future__ import annotations

from dataclasses import dataclass

from mixsolve.base.arguments import as_count, as_real


@dataclass(frozen=True)
class DataConfig:
    """The images.

    Parameters
    ----------
    name : str
        "digits", "mnist", "fashion-mnist", "svhn", "cifar10", "cifar100"; a .npz file with
        ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or with ``images``
        and ``labels`` to train on alone; or a directory of class folders, with ``train`` and
        ``test`` (or ``val``) above them, or without to train on alone.
    dir : str, optional
        Where the data sets are, as `load_data` takes it.
    download : bool
        Fetch a data set that is not there.
    limit : int, optional
        Training images to use, from the first on; all of them by default.
    size : int, optional
        Bring the image files of a directory to size x size pixels.
    validation : float
        Share of the training images held out to select the best epoch on, in (0, 1).
    crop : int
        Pixels of zero padding that random crops move in; 0 for none.
    flip : bool
        Mirror half of the images.
    workers : int
        Processes that read batches of a directory's image files, or of a Dataset given to `train`,
        while networks train, for images that do not fit in memory; 0 reads all into memory.
    test : str, optional
        Where the test images are, if not in `name`: a .npz file with ``images`` and ``labels``, or
        with a test part, or a name or directory as above.
    """

    name: str = "digits"
    dir: str | None = None
    download: bool = False
    limit: int | None = None
    size: int | None = None
    validation: float = 0.1
    crop: int = 0
    flip: bool = False
    workers: int = 0
    test: str | None = None

    def check(self) -> None:
        """Refuse values out of their range."""
        as_real("data.validation", self.validation, above=0, below=1)
        as_count("data.crop", self.crop, 0)
        as_count("data.workers", self.workers, 0)
        for name, limit in (("data.limit", self.limit), ("data.size", self.size)):
            if limit is not None:
                as_count(name, limit)
