"""Detection data sets whose annotations are arrays that loader workers share, instead of a list in each of them."""

import copy
import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.logging import print_log
from mmyolo.datasets.yolov5_coco import BatchShapePolicyDataset
from mmyolo.registry import TASK_UTILS

from mmdyn.annotations import Annotations
from mmdyn.annotations.coco import SHOWN_FAULTS
from mmdyn.annotations.image_files import ImageFiles, look_at_images
from mmdyn.errors import UserError

from .image_cache import ImageCache, Kind
from .keypoints import mirrored
from .oriented import corners_cross, on_a_line, quadrilaterals
from .transforms import BufferedMosaic, LoadImage, LongSideResize
from .transforms.resize import fitted_size

OnFault = Literal['error', 'skip']

_loaded: dict[str, Annotations] = {}  # of this process: what metrics evaluate against


def annotations_of(metainfo: dict) -> Annotations | None:
    """The annotations of a data set that this process has loaded, by its ``metainfo``; None if it has not."""
    return _loaded.get(metainfo.get('annotations', ''))


class ArrayDataset(BatchShapePolicyDataset):
    """Base of the data sets: checks images and boxes, and makes the record of an image when it is asked for.

    Args:
        check_images: Look at the header and the end of every image file; costs 0.1 ms an image on a local disk, once.
        on_bad_images: ``'error'`` stops at missing, truncated or wrongly sized images, ``'skip'`` leaves them out and
            says how many.
        on_bad_boxes: Likewise for boxes without area or outside of their image; COCO itself has some. They are not
            trained on, but evaluation counts them.
        chosen_classes: Names of the only classes that are trained and evaluated; None for all.
        single_class: Take all objects as of one class, ``'object'``.
        outlines: Objects need an outline, for segmentation; those without are not trained on.
        corners: Likewise four corners or an outline, for oriented boxes; those that are too thin are not trained on.
        keypoints: How many keypoints an object has, for a model of poses, and how many numbers of each are learned: 2,
            or 3 with the visibility; ``(17, 3)``. What ``metainfo`` says of them: ``flip_indices``, which keypoint each
            becomes in a mirrored image, and ``sigmas``.
        cache: ``'ram'`` or ``'disk'`` keeps decoded and resized images, see :class:`mmdyn.datasets.ImageCache`; the
            pipeline must load by ``LoadImage`` and then resize by ``LongSideResize`` or ``BufferedMosaic``.
        **kwargs: As in ``mmdet.BaseDetDataset``, and ``batch_shapes_cfg``.

    Raises:
        UserError: Annotations or an image are invalid.

    Example:
        >>> class Squares(ArrayDataset):  # a format of your own: say what is read, and read it
        ...     source = 'squares'
        ...     def read(self):
        ...         one = [[0, 0, 9, 9]]
        ...         return Annotations.of([str(digits_image)], [(320, 320)], [0], one, [0], ['square']), None
        >>> Squares()[0]['instances'][0]['bbox']
        [0.0, 0.0, 9.0, 9.0]
    """

    METAINFO: dict = {}
    _fully_initialized: bool
    _metainfo: dict[str, Any]
    _labels: np.ndarray

    def __init__(
        self,
        *args,
        check_images: bool = True,
        on_bad_images: OnFault = 'error',
        on_bad_boxes: OnFault = 'skip',
        chosen_classes: Sequence[str] | None = None,
        single_class: bool = False,
        outlines: bool = False,
        corners: bool = False,
        keypoints: Sequence[int] = (0, 3),
        cache: Kind | None = None,
        **kwargs,
    ) -> None:
        if cache not in (None, 'ram', 'disk'):
            raise ValueError(f"cache must be None, 'ram' or 'disk', got {cache!r}")
        for name, value in dict(on_bad_images=on_bad_images, on_bad_boxes=on_bad_boxes).items():
            if value not in ('error', 'skip'):
                raise ValueError(f"{name} must be 'error' or 'skip', got {value!r}")
        self.check_images = check_images
        self.on_bad_images = on_bad_images
        self.on_bad_boxes = on_bad_boxes
        self.chosen_classes = chosen_classes
        self.single_class = single_class
        self.corners = corners
        self.outlines = outlines or corners
        self.keypoints = (keypoints[0], keypoints[1])
        self.cache = cache
        self.cached_rows: np.ndarray | None = None
        super().__init__(*args, **kwargs)

    @property
    @abstractmethod
    def source(self) -> str:
        """What is read, for messages and for the metric."""

    @abstractmethod
    def read(self) -> tuple[Annotations, ImageFiles | None]:
        """The annotations, and what the images' headers say if that was needed for them."""

    def full_init(self) -> None:
        """Read and check the annotations, and settle which images are used, and in which order."""
        if self._fully_initialized:
            return
        self.annotations, files = self.read()
        self._settle_classes(self.annotations.classes)
        if self.chosen_classes is not None:
            self._metainfo['classes'] = tuple(self.chosen_classes)
            self._settle_classes(self.annotations.classes)
        if self.single_class:
            self.annotations = self.annotations.as_one_class(self._metainfo['classes'])
            self._metainfo['classes'] = self.annotations.classes
            self._settle_classes(self.annotations.classes)
        _loaded[self.source] = self.annotations
        self._metainfo['annotations'] = self.source
        faults = self._image_faults(files) if self.check_images else {}
        bad = [
            f'{self.annotations.files[self.annotations.image_of_object[i]]}: box {self.annotations.boxes[i].tolist()}'
            for i in np.flatnonzero(~self.annotations.trainable)
        ]
        self._report('boxes', bad, self.on_bad_boxes)
        self._report('images', [f'{self.annotations.files[i]}: {f}' for i, f in faults.items()], self.on_bad_images)
        self._metainfo['skipped_images'] = [self.annotations.image_id(i) for i in faults]
        self.rows = np.setdiff1d(np.arange(len(self.annotations)), list(faults)).astype(np.int64)
        if not len(self.rows):
            raise UserError(f'{self.source}: no usable image in {self._folder().absolute()}')
        self.shapes: np.ndarray | None = None
        if self.batch_shapes_cfg:
            self._sort_by_shape()
        table = self.annotations
        self._trained = table.trainable & ~table.ignored & (self._labels[table.labels] >= 0)
        if self.outlines:
            self._trained &= table.outlined | table.crowd
            self._report_outlines()
        if self.corners:
            self._check_corners()
        if self.keypoints[0]:
            self._settle_keypoints()
        if not self.test_mode:
            self._choose(self._kept())
        if self._indices is not None:
            self._choose(self._positions(self._indices))
        if self.cache is not None:
            self._cache_images(self.cache)
        self._fully_initialized = True

    def _folder(self) -> Path:
        return Path(self.data_prefix.get('img') or '.')

    def path(self, image: int) -> Path:
        """Where an image is."""
        return self._folder() / self.annotations.files[image]

    def _settle_classes(self, in_data: Sequence[str]) -> None:
        """Take the classes from the data, or check those given: labels are numbered in the order of the data."""
        if isinstance(self._metainfo.get('classes'), str):
            raise UserError(f'metainfo.classes must be a tuple of names, got the string {self._metainfo["classes"]!r}')
        classes = tuple(self._metainfo.get('classes') or in_data)
        unknown = [name for name in classes if name not in in_data]
        if unknown:
            raise UserError(
                f'{self.source} has no category {unknown[0]!r} named in metainfo.classes; it has {list(in_data)}'
            )
        in_order = tuple(name for name in in_data if name in classes)
        if classes != in_order:
            raise UserError(f'metainfo.classes must be in the order of {self.source}: {in_order}, got {classes}')
        self._metainfo['classes'] = classes
        self._labels = np.array([classes.index(name) if name in classes else -1 for name in in_data])

    def _image_faults(self, files: ImageFiles | None) -> dict[int, str]:
        if files is None:
            paths = [self.path(i) for i in range(len(self.annotations))]
            files = look_at_images(paths, self.source)
        return files.faults_for(self.annotations.sizes)

    def _report(self, what: str, faults: list[str], reaction: OnFault) -> None:
        if not faults:
            return
        more = f' and {len(faults) - SHOWN_FAULTS} more' if len(faults) > SHOWN_FAULTS else ''
        message = f'{self.source}: {len(faults)} bad {what} ({"; ".join(faults[:SHOWN_FAULTS])}{more})'
        if reaction == 'error':
            raise UserError(f"{message}. Correct them, or set on_bad_{what}='skip' in the data set's config")
        note = ' from training; evaluation counts them' if what == 'boxes' else ''
        print_log(f'{message}: omitted{note}', logger='current', level=logging.WARNING)

    def _settle_keypoints(self) -> None:
        """Check the keypoints, and what becomes of them in a mirrored image."""
        table, (count, _) = self.annotations, self.keypoints
        found = table.keypoints.shape[1]
        if not found or not table.keypoints[..., 2].any():
            raise UserError(
                f'{self.source}: no object has a keypoint, which a model of poses needs: give keypoints, or take a '
                'config of detection'
            )
        if found != count:
            raise UserError(
                f'{self.source} has {found} keypoints, but keypoints={self.keypoints} is set: set '
                f'model.bbox_head.head_module.keypoint_shape and keypoints of the data sets to ({found}, 3)'
            )
        flips = self._metainfo.get('flip_indices') or mirrored(table.keypoint_names)
        if flips is None:
            if not self.test_mode:
                print_log(
                    f'{self.source}: images are not mirrored, as nothing says which keypoint becomes which: set '
                    'flip_idx in the data.yaml (metainfo.flip_indices in a config)',
                    logger='current',
                    level=logging.WARNING,
                )
        elif sorted(flips) != list(range(count)):
            raise UserError(
                f'{self.source}: flip_idx {list(flips)} must have each of the numbers 0 to {count - 1} once: set it '
                'in the data.yaml (metainfo.flip_indices in a config)'
            )
        self._metainfo['flip_indices'] = None if flips is None else list(flips)
        self._trained &= self._posed()

    def _posed(self) -> np.ndarray:
        """Which objects are trained on as far as their keypoints go, (N,)."""
        return np.ones(len(self.annotations.boxes), bool)

    def _report_outlines(self) -> None:
        table = self.annotations
        without = np.flatnonzero(~table.outlined & ~table.crowd)
        if len(without) and len(without) == (~table.crowd).sum():
            needs = (
                'oriented boxes need: give their four corners, polygons'
                if self.corners
                else ('segmentation and copy-paste need: give polygons')
            )
            raise UserError(
                f'{self.source}: no object has an outline, which {needs} or masks, or take a config without them, such '
                'as yolo11n_coco'
            )
        if len(without):
            first = table.files[table.image_of_object[without[0]]]
            print_log(
                f'{self.source}: {len(without)} objects have no outline (the first in {first}): omitted from training',
                logger='current',
                level=logging.WARNING,
            )

    def _check_corners(self) -> None:
        """Say which objects have corners that cross; leave out those whose corners are on a line."""
        table, (rows, corners) = self.annotations, quadrilaterals(self.annotations)
        flat = rows[on_a_line(corners)]
        faults = {
            'cross: the rectangle around them is taken': rows[corners_cross(corners)],
            'are on a line: omitted from training': flat,
        }
        for fault, found in faults.items():
            if len(found):
                first = table.files[table.image_of_object[found[0]]]
                print_log(
                    f'{self.source}: {len(found)} objects (the first in {first}) have corners that {fault}',
                    logger='current',
                    level=logging.WARNING,
                )
        self._trained[flat] = False

    def _sort_by_shape(self) -> None:
        """Let the policy sort the images and give each a rectangle."""
        sizes = self.annotations.sizes[self.rows].tolist()
        images = [dict(row=r, width=w, height=h) for r, (w, h) in zip(self.rows.tolist(), sizes, strict=True)]
        images = TASK_UTILS.build(self.batch_shapes_cfg)(images)
        self.rows = np.array([image['row'] for image in images])
        self.shapes = np.array([image['batch_shape'] for image in images])

    def _kept(self) -> np.ndarray:
        """Positions of the images that the filter leaves; nothing left is an error."""
        counts = np.bincount(self.annotations.image_of_object[self._trained], minlength=len(self.annotations))[
            self.rows
        ]
        kept = np.ones(len(self.rows), bool)
        if self.filter_cfg:
            kept &= self.annotations.sizes[self.rows].min(1) >= self.filter_cfg.get('min_size', 0)
            if self.filter_cfg.get('filter_empty_gt', False):
                kept &= counts > 0
        if not kept.any():
            raise UserError(f'{self.source}: no image is left after filter_cfg={self.filter_cfg}')
        if not counts[kept].any():
            raise UserError(
                f'{self.source}: no image has a box to train on. Are the boxes in pixels, as [x, y, width, height]?'
            )
        return np.flatnonzero(kept)

    def _first_steps(self) -> tuple[Any, LongSideResize | None]:
        """What loads an image, and what resizes it if no step before changes it."""
        steps: list[Any] = list(self.pipeline.transforms)
        step = next((s for s in steps[1:] if not isinstance(s, LoadAnnotations)), None)
        resize = step.resize if type(step) is BufferedMosaic else step
        return steps[0] if steps else None, resize if type(resize) is LongSideResize else None

    def _cache_images(self, kind: Kind) -> None:
        """Decode and resize the images as the pipeline would, once."""
        load, resize = self._first_steps()
        if type(load) is not LoadImage or resize is None:
            raise UserError(
                f'{self.source}: cache={kind!r} needs a pipeline of LoadImage, LoadAnnotations and a LongSideResize or '
                'BufferedMosaic, before all other steps: set these, or cache=None'
            )

        def read(path: Path) -> np.ndarray:
            return resize(load(dict(img_path=str(path))))['img']

        rows = np.sort(self.rows)
        fitted = [fitted_size(resize.scale, *size) for size in self.annotations.sizes[rows].tolist()]
        shapes = np.array([(height, width, load.channels) for width, height in fitted])
        dtype = np.float32 if load.to_float32 else np.uint8
        cache = ImageCache(kind, [self.path(row) for row in rows], shapes, dtype, read, self.source)
        if cache.pixels is not None:
            self.image_cache, self.cached_rows = cache, rows

    def _positions(self, indices: int | Sequence[int]) -> np.ndarray:
        everything = np.arange(len(self.rows))
        if isinstance(indices, int):
            return everything[:indices] if indices >= 0 else everything[indices:]
        return everything[list(indices)]

    def _choose(self, positions: np.ndarray) -> None:
        if self.test_mode:  # what is not tested is not evaluated
            omitted = np.setdiff1d(self.rows, self.rows[positions]).tolist()
            omitted_ids = [*self._metainfo.get('omitted_images', ()), *map(self.annotations.image_id, omitted)]
            self._metainfo = self._metainfo | dict(omitted_images=omitted_ids)
        self.rows = self.rows[positions]
        if self.shapes is not None:
            self.shapes = self.shapes[positions]

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the images at these positions only, or the first or last ones of a number."""
        self.full_init()
        self._choose(self._positions(indices))

    def get_subset(self, indices: int | Sequence[int]) -> 'ArrayDataset':
        """A data set of the images at these positions."""
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset

    def __len__(self) -> int:
        self.full_init()
        return len(self.rows)

    def get_data_info(self, idx: int) -> dict:
        """The record of an image, as the pipeline takes it."""
        self.full_init()
        row, table = int(self.rows[idx]), self.annotations
        width, height = table.sizes[row].tolist()
        info: dict[str, Any] = dict(
            img_path=str(self.path(row)),
            img_id=table.image_id(row),
            seg_map_path=None,
            height=height,
            width=width,
            instances=self._instances(row),
            sample_idx=idx if idx >= 0 else len(self) + idx,
        )
        if self.keypoints[0]:
            info.update(keypoint_count=self.keypoints[0], flip_indices=self._metainfo['flip_indices'])
        if self.cached_rows is not None:
            info['cached_image'] = self.image_cache[int(np.searchsorted(self.cached_rows, row))]
        if self.shapes is not None:
            info['batch_shape'] = self.shapes[idx]
        return info

    def _instances(self, row: int) -> list[dict]:
        table, objects = self.annotations, self.annotations.objects(row)
        kept = np.flatnonzero(self._trained[objects]) + objects.start
        boxes = table.boxes[kept]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).tolist()
        labels, crowd = self._labels[table.labels[kept]].tolist(), table.crowd[kept].tolist()
        instances = [
            dict(ignore_flag=int(c), bbox=box, bbox_label=label)
            for box, label, c in zip(corners, labels, crowd, strict=True)
        ]
        for instance, i in zip(instances, kept, strict=True):
            if (outline := table.segmentation(int(i))) is not None:
                instance['mask'] = outline
            if self.keypoints[0]:
                instance['keypoints'] = table.keypoints[i].tolist()
        return instances
