"""Images in folders of their classes, checked when they are loaded."""

from pathlib import Path

from mmpretrain.datasets import CustomDataset
from mmyolo.registry import DATASETS

from mmdyn.annotations.faults import refuse_faults
from mmdyn.annotations.image_files import look_at_images
from mmdyn.datasets.digits import make_digit_crops
from mmdyn.errors import UserError


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset`` of a folder for every class, with clear errors; arguments are the same.

    Args:
        check_images: Look at the header and the end of every image file.

    Raises:
        UserError: The folder is missing, has fewer than two classes, has a class without images, or a file that is no
            image.

    Example:
        >>> for name in ('ants', 'bees'):
        ...     (folder / name).mkdir()
        ...     _ = (folder / name / 'a.jpg').write_bytes(digits_image.read_bytes())
        >>> dataset = ImageFolder(data_root=str(folder))
        >>> len(dataset), dataset.metainfo['classes']
        (2, ('ants', 'bees'))
    """

    def __init__(self, *args, check_images: bool = True, **kwargs) -> None:
        self.check_images = check_images
        super().__init__(*args, **kwargs)

    @property
    def folder(self) -> Path:
        """Where the folders of the classes are."""
        return Path(self.img_prefix or '.')

    def load_data_list(self) -> list[dict]:
        """The images and their classes."""
        root = self.folder
        if not root.is_dir():
            raise UserError(f'there is no folder {root.absolute()}: give a folder that has one for every class')
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith('.'))
        if len(folders) < 2:
            raise UserError(
                f'{root.absolute()} has {len(folders)} folder{"" if len(folders) == 1 else "s"} of classes, and a '
                'classifier tells at least two apart'
            )
        suffixes = tuple(self.extensions)
        empty = [f.name for f in folders if not any(p.suffix.lower() in suffixes for p in f.rglob('*'))]
        if empty:
            raise UserError(f'{root.absolute()}: no image in the folder of class {empty[0]!r}: add some, or remove it')
        wanted = self._metainfo.get('classes')
        names = tuple(folder.name for folder in folders)
        if wanted and tuple(wanted) != names:
            raise UserError(f'{root.absolute()} has the classes {list(names)}, where {list(wanted)} are needed')
        images = super().load_data_list()
        if self.check_images:
            self._check([Path(image['img_path']) for image in images])
        return images

    def _check(self, paths: list[Path]) -> None:
        found = look_at_images(paths, str(self.folder)).faults
        faults = [f'{path}: {fault}' for path, fault in zip(paths, found, strict=True) if fault]
        refuse_faults(f'{len(faults)} files are no images', faults, 'Remove or replace them')


@DATASETS.register_module()
class DigitCrops(ImageFolder):
    """One digit an image, generated in the folder above ``data_root`` if it is missing.

    Args:
        seed: Seed of the generated data.
        **kwargs: As in :class:`ImageFolder`; ``data_root`` ends in ``train`` or ``val``.
    """

    def __init__(self, *args, seed: int = 0, **kwargs) -> None:
        self.seed = seed
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Generate the digits if they are missing, then read them."""
        make_digit_crops(self.folder.parent, self.seed)
        return super().load_data_list()
