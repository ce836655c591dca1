"""Annotations of one split as arrays: what every format is read into, and what loader workers and processes share.

Shapes: n images, N objects of all images, in the order of the images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .cache import map_arrays

Identifier = int | str


class Strings(Sequence[str]):
    """Strings as one array of bytes in UTF-8, so that reading one does not touch the others.

    Args:
        data: Bytes of all strings.
        ends: Where each string ends, (n,).

    Example:
        >>> names = Strings.of(['a.jpg', 'ß.jpg'])
        >>> names[1], len(names)
        ('ß.jpg', 2)
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> 'Strings':
        """The arrays of these strings."""
        encoded = [s.encode('utf-8', 'surrogateescape') for s in strings]
        ends = np.cumsum([len(e) for e in encoded], dtype=np.int64)
        return cls(np.frombuffer(b''.join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index):
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.data[start : self.ends[index]].tobytes().decode('utf-8', 'surrogateescape')

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Annotations:
    """Images of a split and their objects.

    Args:
        files: Path of every image, below the folder of the images or absolute.
        sizes: Width and height of every image in pixels, (n, 2).
        starts: Where the objects of each image begin, and where the last ones end, (n + 1,).
        boxes: Left, top, width and height in pixels, (N, 4) float64.
        labels: Index of the class, (N,).
        areas: Area in pixels, (N,).
        crowd: Whether an object is a group, which is not trained on and not counted in evaluation, (N,).
        ignored: Whether an object is not trained on, (N,).
        image_ids: An integer or a string of every image.
        classes: Names.
        class_ids: An integer or a string of every class.
        points: Corners of the outlines of all objects in pixels, (P, 2); none in formats without.
        point_starts: Where the outline of each object begins, and where the last one ends, (N + 1,).
        keypoints: Position in pixels and visibility (0 unlabelled, 1 hidden, 2 visible) of K keypoints, (N, K, 3).
        segmentations: COCO's ``segmentation`` of every object as JSON, of length N; None where it was not asked for.
        notes: What was corrected or left out while reading, with its count.
        keypoint_names: Names of the keypoints; none where the format has none.
        skeleton: Pairs of keypoints that a line joins in pictures, counted from 1.
        origin: The file that the arrays are mapped from; None where they are in memory.

    Example:
        >>> table = Annotations.of(files=['a.jpg', 'b.jpg'], sizes=[(60, 40)] * 2, images=[1, 1],
        ...                        boxes=[(5, 5, 20, 20), (0, 0, 9, 9)], labels=[0, 0], classes=['cat'])
        >>> [table.boxes[table.objects(i)].tolist() for i in range(2)]
        [[], [[5.0, 5.0, 20.0, 20.0], [0.0, 0.0, 9.0, 9.0]]]
    """

    files: Strings
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    image_ids: Sequence[Identifier]
    classes: tuple[str, ...]
    class_ids: tuple[Identifier, ...]
    points: np.ndarray
    point_starts: np.ndarray
    keypoints: np.ndarray
    segmentations: Strings | None = None
    notes: dict[str, int] = field(default_factory=dict)
    keypoint_names: Sequence[str] = ()
    skeleton: Sequence[Sequence[int]] = ()
    origin: str | None = None

    @classmethod
    def of(
        cls,
        files: Iterable[str],
        sizes: Any,
        images: Any,
        boxes: Any,
        labels: Any,
        classes: Iterable[str],
        *,
        areas: Any = None,
        crowd: Any = None,
        ignored: Any = None,
        image_ids: Sequence[Identifier] | None = None,
        class_ids: Sequence[Identifier] | None = None,
        outlines: Sequence[Any] | None = None,
        keypoints: Any = None,
        segmentations: Sequence[str] | None = None,
        notes: dict[str, int] | None = None,
        keypoint_names: Sequence[str] = (),
        skeleton: Sequence[Sequence[int]] = (),
    ) -> 'Annotations':
        """The arrays of objects that come in any order.

        Args:
            files: As above.
            sizes: As above.
            images: Index of the image of every object, (N,).
            boxes: As above.
            labels: As above.
            classes: As above.
            areas: As above; those of the boxes by default.
            crowd: As above; none by default.
            ignored: As above; none by default.
            image_ids: As above; counted from 1 by default.
            class_ids: As above; counted from 1 by default.
            outlines: Corners of every object, each (p, 2); none by default.
            keypoints: As above; none by default.
            segmentations: As above; None by default.
            notes: As above.
            keypoint_names: As above.
            skeleton: As above.
        """
        names, classes = Strings.of(files), tuple(classes)
        images = np.asarray(images, np.int64)
        order = np.argsort(images, kind='stable')
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)[order]

        def column(values: Any, default: np.ndarray, dtype: Any) -> np.ndarray:
            return np.asarray(values, dtype)[order] if values is not None else default.astype(dtype)

        nothing = np.zeros(len(boxes), bool)
        corners = [np.asarray(outlines[i], np.float64) for i in order] if outlines is not None else []
        lengths = np.array([len(c) for c in corners]) if corners else np.zeros(len(boxes), np.int64)
        return cls(
            files=names,
            sizes=np.asarray(sizes, np.int32).reshape(-1, 2),
            starts=np.searchsorted(images[order], np.arange(len(names) + 1)),
            boxes=boxes,
            labels=column(labels, nothing, np.int32),
            areas=column(areas, boxes[:, 2] * boxes[:, 3], np.float64),
            crowd=column(crowd, nothing, bool),
            ignored=column(ignored, nothing, bool),
            image_ids=_identifiers(image_ids if image_ids is not None else range(1, len(names) + 1)),
            classes=classes,
            class_ids=tuple(class_ids if class_ids is not None else range(1, len(classes) + 1)),
            points=np.concatenate([np.empty((0, 2)), *corners]),
            point_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            keypoints=column(keypoints, np.empty((len(boxes), 0, 3)), np.float64),
            segmentations=Strings.of(segmentations[i] for i in order) if segmentations is not None else None,
            notes=notes or {},
            keypoint_names=tuple(keypoint_names),
            skeleton=tuple(map(tuple, skeleton)),
        )

    def __len__(self) -> int:
        return len(self.files)

    def objects(self, image: int) -> slice:
        """The objects of an image, as an index of the arrays of objects."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def image_id(self, image: int) -> Identifier:
        """The identifier of an image."""
        value = self.image_ids[image]
        return value if isinstance(value, str) else int(value)

    @cached_property
    def image_of_object(self) -> np.ndarray:
        """Index of the image of every object, (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @cached_property
    def trainable(self) -> np.ndarray:
        """Whether an object can be trained on, (N,): one pixel or more on each side, partly inside its image."""
        left, top, width, height = self.boxes.T
        across, down = self.sizes[self.image_of_object].T
        inside = (np.minimum(left + width, across) > np.maximum(left, 0)) & (
            np.minimum(top + height, down) > np.maximum(top, 0)
        )
        return inside & (width >= 1) & (height >= 1)

    @cached_property
    def outlined(self) -> np.ndarray:
        """Whether an object has an outline of at least three corners, or a mask, (N,)."""
        if self.segmentations is None or not len(self.boxes):
            return np.diff(self.point_starts) >= 3
        text, ends = self.segmentations.data, self.segmentations.ends
        starts = np.concatenate([[0], ends[:-1]])
        present = ends > starts
        if not len(text):  # no object has a segmentation
            return present
        starts = np.minimum(starts, len(text) - 1)
        commas = np.add.reduceat(text == ord(','), starts, dtype=np.int32)
        return present & ((text[starts] == ord('{')) | (commas >= 5))

    def segmentation(self, number: int) -> Any:
        """COCO's ``segmentation`` of an object: polygons, or run-length codes; None where there is none.

        Args:
            number: Position of the object.
        """
        if self.segmentations is not None:
            text = self.segmentations[number]
            return msgspec.json.decode(text) if text else None
        start, end = self.point_starts[number : number + 2]
        return [self.points[start:end].ravel().tolist()] if end > start else None

    def as_one_class(self, merged: Sequence[str], name: str = 'object') -> 'Annotations':
        """The objects of some classes, all of one class; the others are left out.

        Args:
            merged: Names of the classes.
            name: Name of the one.
        """
        kept = np.isin(self.labels, [self.classes.index(each) for each in merged])
        before = np.concatenate([[0], np.cumsum(kept)])  # objects that are kept before each
        lengths = np.diff(self.point_starts)
        columns = {key: getattr(self, key)[kept] for key in ('boxes', 'areas', 'crowd', 'ignored', 'keypoints')}
        outlines = self.segmentations
        return replace(
            self,
            **columns,
            starts=before[self.starts],
            labels=np.zeros(kept.sum(), np.int32),
            classes=(name,),
            class_ids=(1,),
            points=self.points[np.repeat(kept, lengths)],
            point_starts=np.concatenate([[0], np.cumsum(lengths[kept])]),
            segmentations=outlines and Strings.of(outlines[int(i)] for i in np.flatnonzero(kept)),
            origin=None,
        )

    def as_coco(self, outlines: bool = False, keypoints: bool = False) -> dict:
        """The content of a COCO annotation file, for its evaluator.

        Args:
            outlines: With the ``segmentation`` of every object.
            keypoints: With the ``keypoints`` of every object.
        """
        categories = [dict(id=i, name=n) for i, n in zip(self.class_ids, self.classes, strict=True)]
        ids = [self.image_id(i) for i in range(len(self))]
        images = [
            dict(id=i, file_name=file, width=width, height=height)
            for i, file, (width, height) in zip(ids, self.files, self.sizes.tolist(), strict=True)
        ]
        rows = zip(
            self.image_of_object.tolist(),
            self.labels.tolist(),
            self.boxes.tolist(),
            self.areas.tolist(),
            self.crowd.tolist(),
            strict=True,
        )
        annotations = [
            dict(
                id=number,
                image_id=ids[image],
                category_id=self.class_ids[label],
                bbox=box,
                area=area,
                iscrowd=int(crowd),
            )
            for number, (image, label, box, area, crowd) in enumerate(rows, 1)
        ]
        for number, annotation in enumerate(annotations if outlines else ()):
            annotation['segmentation'] = self.segmentation(number) or []
        for number, annotation in enumerate(annotations if keypoints else ()):
            points = self.keypoints[number]
            annotation.update(keypoints=points.ravel().tolist(), num_keypoints=int((points[:, 2] > 0).sum()))
        return dict(images=images, annotations=annotations, categories=categories)

    def __reduce__(self):
        # a process that is spawned maps the file, too
        return (_open, (self.origin,)) if self.origin else (Annotations.from_arrays, (self.arrays(),))

    def arrays(self) -> dict[str, np.ndarray]:
        """Every field but the origin as one array or two, for a file; :meth:`from_arrays` is the way back."""
        result: dict[str, np.ndarray] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == 'origin' or value is None:
                continue
            if isinstance(value, Strings):
                result |= {f'{each.name}.data': value.data, f'{each.name}.ends': value.ends}
            elif isinstance(value, np.ndarray):
                result[each.name] = value
            else:
                result[each.name] = np.frombuffer(msgspec.json.encode(value), np.uint8)
        return result

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], origin: str | None = None) -> 'Annotations':
        """The annotations that :meth:`arrays` was called on.

        Args:
            arrays: The arrays.
            origin: The file that they are mapped from.

        Raises:
            KeyError: An array is missing.
        """
        values: dict[str, Any] = dict(origin=origin)
        for each in fields(cls):
            if each.name == 'origin':
                continue
            if each.name == 'segmentations' and 'segmentations.ends' not in arrays:
                continue
            if f'{each.name}.ends' in arrays:
                values[each.name] = Strings(arrays[f'{each.name}.data'], arrays[f'{each.name}.ends'])
            elif arrays[each.name].dtype == np.uint8:  # neither numbers nor strings alone
                values[each.name] = msgspec.json.decode(arrays[each.name].tobytes())
            else:
                values[each.name] = arrays[each.name]
        return cls(**values | {key: tuple(values[key]) for key in ('classes', 'class_ids')})


def _open(origin: str) -> Annotations:
    return Annotations.from_arrays(map_arrays(Path(origin)), origin)


def _identifiers(ids: Iterable[Identifier]) -> Sequence[Identifier]:
    ids = list(ids)
    if all(isinstance(i, int) for i in ids):
        return np.array(ids, np.int64)  # type: ignore[return-value]
    return Strings.of(map(str, ids)) if all(isinstance(i, str) for i in ids) else ids
