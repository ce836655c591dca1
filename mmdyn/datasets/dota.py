"""A data set in the folders and text files of DOTA, read in place."""

from pathlib import Path

from mmengine.logging import print_log
from mmyolo.registry import DATASETS

from mmdyn.annotations import Annotations, read_dota
from mmdyn.annotations.image_files import ImageFiles
from mmdyn.annotations.yolo import images_of, orphans

from .array_dataset import ArrayDataset


@DATASETS.register_module()
class DOTADataset(ArrayDataset):
    """Images and DOTA's text labels, see :mod:`mmdyn.annotations.dota`; large images are better cut into tiles before.

    Args:
        labels: Folder of the label files, below ``data_root``.
        images: Folder of the images, below ``data_root``.
        **kwargs: As in :class:`ArrayDataset`; without ``metainfo`` the classes are those of the files.

    Raises:
        UserError: There are no images, or lines are not labels.

    Example:
        >>> for name in ('images', 'labelTxt'):
        ...     (folder / name).mkdir()
        >>> _ = (folder / 'images' / digits_image.name).write_bytes(digits_image.read_bytes())
        >>> line = '10 20 50 10 60 30 20 40 ship 0'
        >>> _ = (folder / 'labelTxt' / digits_image.with_suffix('.txt').name).write_text(line)
        >>> dataset = DOTADataset(data_root=str(folder), corners=True)
        >>> dataset.metainfo['classes'], dataset[0]['instances'][0]['mask']
        (('ship',), [[10.0, 20.0, 50.0, 10.0, 60.0, 30.0, 20.0, 40.0]])
    """

    def __init__(self, *args, labels: str = 'labelTxt', images: str = 'images', data_root: str = '', **kwargs) -> None:
        self.images, self.labels = Path(data_root, images), Path(data_root, labels)
        super().__init__(*args, data_root=data_root, data_prefix=dict(img=''), **kwargs)

    @property
    def source(self) -> str:
        """The folder of the label files."""
        return str(self.labels)

    def read(self) -> tuple[Annotations, ImageFiles | None]:
        """Read the labels, or take what was read from them before."""
        images = images_of([self.images], self.source)
        annotations, files = read_dota(images, self.labels, self.source, self._metainfo.get('classes'))
        texts = [self.labels / f'{image.stem}.txt' for image in images]
        absent = sum(not text.is_file() for text in texts)
        print_log(
            f'{self.source}: {len(images)} images, {len(annotations.boxes)} objects, {annotations.crowd.sum()} of them '
            f'difficult; {absent} images have no label file, {orphans(texts)} label files have no image',
            'current',
        )
        return annotations, files

    def _folder(self) -> Path:
        return Path()
