"""A data set of Pascal VOC annotations, read in place."""

from collections.abc import Sequence
from pathlib import Path

from mmyolo.registry import DATASETS

from mmdyn.annotations import Annotations, read_voc
from mmdyn.annotations.cache import cached
from mmdyn.annotations.image_files import ImageFiles, file_states
from mmdyn.annotations.voc import files_of_set
from mmdyn.errors import UserError

from .array_dataset import ArrayDataset


@DATASETS.register_module()
class VOCXmlDataset(ArrayDataset):
    """Images with one XML file each: image sets in VOC's folders, or a folder that has both.

    Args:
        image_set: Name of a file in ``ImageSets/Main`` below ``data_root``, without suffix; None takes all XML files
            directly in ``data_root``.
        metainfo: Has ``classes``; those of the files, sorted, by default.
        **kwargs: As in :class:`ArrayDataset`; images are in ``data_prefix['img']``, by default ``JPEGImages`` of the
            image sets, or the folder.

    Raises:
        UserError: A file is missing or invalid.

    Example:
        >>> box = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
        >>> size = '<size><width>320</width><height>320</height></size>'
        >>> xml = f'<annotation><filename>{{}}</filename>{size}<object><name>cat</name>{box}</object></annotation>'
        >>> _ = (folder / digits_image.name).write_bytes(digits_image.read_bytes())
        >>> _ = (folder / 'a.xml').write_text(xml.format(digits_image.name))
        >>> VOCXmlDataset(data_root=str(folder))[0]['instances']
        [{'ignore_flag': 0, 'bbox': [0.0, 0.0, 9.0, 9.0], 'bbox_label': 0}]
    """

    def __init__(
        self, *args, image_set: str | None = None, data_root: str = '', data_prefix: dict | None = None, **kwargs
    ) -> None:
        self.image_set = image_set
        prefix = data_prefix or dict(img='JPEGImages' if image_set else '')
        super().__init__(*args, data_root=data_root, data_prefix=prefix, **kwargs)

    @property
    def source(self) -> str:
        """The image set, or the folder."""
        return f'{self.data_root} ({self.image_set})' if self.image_set else str(self.data_root)

    def read(self) -> tuple[Annotations, ImageFiles | None]:
        """Read the XML files, or take what was read from them before."""
        folder = Path(self.data_root)
        files = files_of_set(folder, self.image_set) if self.image_set else sorted(folder.glob('*.xml'))
        if not files:
            raise UserError(f'{self.source} is empty: no XML file in {folder.absolute()}')
        classes: Sequence[str] | None = self._metainfo.get('classes')
        arrays, origin = cached(
            f'VOC annotations of {folder.absolute()} {self.image_set}',
            (tuple(classes or ()), file_states(files)),
            lambda: read_voc(files, self.source, classes).arrays(),
        )
        return Annotations.from_arrays(arrays, origin), None
