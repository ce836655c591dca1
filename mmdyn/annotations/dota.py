"""DOTA text labels (https://captain-whu.github.io/DOTA/dataset.html), read in place: the corners of every object.

Every image has a file of its name. Lines that begin with ``imagesource:`` or ``gsd:`` say where it is from. Every other
line has the corners of an object in pixels, x and y in turn, the name of its class, and 1 if it is difficult, otherwise
0.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmdyn.errors import UserError

from .cache import cached
from .faults import Fault, refuse_faults
from .image_files import ImageFiles, file_states, look_at_images
from .table import Annotations, Strings

# In the order of the original's models, of DOTA 1.0, 1.5 and 2.0.
CLASSES = (
    *('plane', 'ship', 'storage-tank', 'baseball-diamond', 'tennis-court', 'basketball-court', 'ground-track-field'),
    *('harbor', 'bridge', 'large-vehicle', 'small-vehicle', 'helicopter', 'roundabout', 'soccer-ball-field'),
    *('swimming-pool', 'container-crane', 'airport', 'helipad'),
)
HEADINGS = ('imagesource:', 'gsd:')


def read_dota(
    images: Sequence[Path], labels: Path, what: str, classes: Sequence[str] | None = None
) -> tuple[Annotations, ImageFiles]:
    """Read the labels of images, or take them from the cache if no file has changed.

    Args:
        images: The images; one without a label file has no objects.
        labels: Folder of the label files.
        what: What they are, for messages.
        classes: Class names in the order of their labels; None takes those of the files, as :func:`in_order` does.

    Returns:
        The annotations, in which difficult objects are ``crowd``: neither trained on nor counted; and the headers.

    Raises:
        UserError: A line is not a label, or has a class that is not in ``classes``.
    """
    files = look_at_images(images, what)
    texts = [labels / f'{image.stem}.txt' for image in images]
    state = (tuple(classes or ()), file_states(images), file_states(texts))
    arrays, origin = cached(
        f'DOTA labels of {what} {labels} {len(images)}',
        state,
        lambda: _read(images, texts, files, what, classes).arrays(),
    )
    return Annotations.from_arrays(arrays, origin), files


def in_order(names: set[str]) -> tuple[str, ...]:
    """Names of classes in DOTA's order, if they are all DOTA's; sorted otherwise.

    Example:
        >>> in_order({'ship', 'plane'}), in_order({'ship', 'buoy'})
        (('plane', 'ship'), ('buoy', 'ship'))
    """
    return tuple(n for n in CLASSES if n in names) if names <= set(CLASSES) else tuple(sorted(names))


def classes_of(labels: Path) -> set[str]:
    """Names of the classes in the label files of a folder, from the cache if no file has changed."""
    texts = sorted(labels.glob('*.txt'))

    def build() -> dict[str, np.ndarray]:
        names = Strings.of(sorted({words[8] for file in texts for _, words in _lines(file) if _fault(words) is None}))
        return dict(name_bytes=names.data, name_ends=names.ends)

    arrays, _ = cached(f'DOTA classes of {labels}', file_states(texts), build)
    return set(Strings(arrays['name_bytes'], arrays['name_ends']))


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and words of the lines with an object."""
    for number, line in enumerate(file.read_text(encoding='utf-8-sig', errors='replace').splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith(HEADINGS):
            yield number, words


def _read(
    images: Sequence[Path], texts: Sequence[Path], files: ImageFiles, what: str, classes: Sequence[str] | None
) -> Annotations:
    faults: list[Fault] = []
    objects: list[tuple[int, np.ndarray, str, bool]] = []
    for index, file in enumerate(texts):
        if not file.is_file():
            continue
        for number, words in _lines(file):
            why = _fault(words)
            if why is not None:
                faults.append(Fault(file, number, why))
                continue
            objects.append((index, np.array(words[:8], float).reshape(4, 2), words[8], words[9] != '0'))
    refuse_faults(f'{what}: {len(faults)} lines are not labels', faults)
    found = {name for _, _, name, _ in objects}
    names = tuple(classes) if classes else in_order(found)
    unknown = sorted(found - set(names))
    if unknown:
        raise UserError(f'{what} has objects of class {unknown[0]!r}, which is not among {list(names)}')
    corners = [points for _, points, _, _ in objects]
    low, high = (np.array([f(p, 0) for p in corners]).reshape(-1, 2) for f in (np.min, np.max))
    return Annotations.of(
        files=map(str, images),
        sizes=files.shown_sizes(),
        images=[index for index, _, _, _ in objects],
        boxes=np.concatenate([low, high - low], 1),
        labels=[names.index(name) for _, _, name, _ in objects],
        classes=names,
        crowd=[difficult for _, _, _, difficult in objects],
        outlines=corners or None,
    )


def _fault(words: list[str]) -> str | None:
    """What is wrong with the words of a line; None if nothing is."""
    if len(words) != 10:
        return (
            f'{len(words)} words instead of 10: x and y of four corners, a class, and whether it is difficult '
            '(0 where the data do not say)'
        )
    try:
        corners = [float(word) for word in words[:8]]
    except ValueError:
        return f'{" ".join(words[:8])} are not eight numbers'
    if not np.isfinite(corners).all():
        return f'{" ".join(words[:8])} are not eight numbers'
    return None if words[9] in ('0', '1', '2') else f'difficult is {words[9]!r}, where 0 or 1 is needed'
