"""The layers of YOLO11 by their numbers in the original's list, by which people freeze them."""

from torch import nn

from mmdyn.errors import UserError

NUMBERED = {
    0: 'backbone.stem',
    **{2 * stage - 1 + part: f'backbone.stage{stage}.{part}' for stage in (1, 2, 3, 4) for part in (0, 1)},
    9: 'backbone.stage4.2',
    10: 'backbone.stage4.3',
    13: 'neck.top_down_layers.0',
    16: 'neck.top_down_layers.1',
    17: 'neck.downsample_layers.0',
    19: 'neck.bottom_up_layers.0',
    20: 'neck.downsample_layers.1',
    22: 'neck.bottom_up_layers.1',
}
HEAD = 23


def check_frozen(count: int | str) -> None:
    """Refuse what cannot be frozen in any detector.

    Raises:
        UserError: It is neither ``'backbone'`` nor a number from 1 to 23.
    """
    if count != 'backbone' and (not isinstance(count, int) or not 1 <= count <= HEAD):
        raise UserError(f'invalid number of frozen layers {count}: set 1 to {HEAD} (all but the head), or backbone')


def first_layers(model: nn.Module, count: int | str) -> list[nn.Module]:
    """The first layers of a detector.

    Args:
        model: A YOLO11; for ``'backbone'`` any detector.
        count: Number of layers as the original counts them, from 1 to 23: all but the head; or ``'backbone'``.

    Raises:
        UserError: There are not so many, or the detector is another one.

    Example:
        >>> from mmdyn.models import build_model
        >>> from mmdyn.running import load_config
        >>> model = build_model(load_config('yolo11n_coco'))
        >>> len(first_layers(model, 10)), first_layers(model, 'backbone') == [model.backbone]
        (10, True)
    """
    check_frozen(count)
    if isinstance(count, str):
        return [model.get_submodule('backbone')]
    try:
        return [model.get_submodule(name) for number, name in NUMBERED.items() if number < count]
    except AttributeError as e:
        raise UserError(f'only the layers of a YOLO11 have numbers ({e}): set it to backbone') from e
