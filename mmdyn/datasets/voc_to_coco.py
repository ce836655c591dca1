"""Pascal VOC annotations to COCO (https://cocodataset.org/#format-data)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmdyn.annotations import Annotations, read_voc
from mmdyn.annotations.voc import files_of_set


class VocAnnotations(NamedTuple):
    """The annotations of an image set."""

    annotations: Annotations

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.annotations.classes)

    @property
    def clipped(self) -> int:
        """Boxes that were clipped to their image."""
        return self.annotations.notes['clipped']

    @property
    def dropped(self) -> int:
        """Boxes that were dropped."""
        return self.annotations.notes['dropped']

    def content(self) -> dict:
        """What goes into the file."""
        return self.annotations.as_coco()

    def __str__(self) -> str:
        return (
            f'{len(self.annotations)} images, {len(self.annotations.boxes)} boxes of {", ".join(self.classes)}; '
            f'{self.clipped} clipped to their image, {self.dropped} dropped (no area, or outside)'
        )


def convert_voc(root: str | Path, image_set: str, classes: Sequence[str] | None = None) -> VocAnnotations:
    """Convert one image set of a Pascal VOC data set.

    Args:
        root: Folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        image_set: Name of a file in ``ImageSets/Main``, without ``.txt``.
        classes: Class names in the order of their ids; None takes those found, sorted.

    Returns:
        The annotations; ids start at 1.

    Raises:
        UserError: A file is missing or not what it should be, or a class is not in ``classes``.
    """
    return VocAnnotations(read_voc(files_of_set(root, image_set), str(root), classes))
