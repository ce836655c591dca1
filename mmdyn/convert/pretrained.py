"""The backbone of any checkpoint as the start of another model: of another task, or static into dynamic.

``model.backbone.init_cfg=dict(type='BackboneOf', checkpoint=FILE)``, which ``--pretrained FILE`` sets.
"""

from pathlib import Path

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmdyn.checkpoints import state_dict_of
from mmdyn.errors import UserError
from mmdyn.layers import upcycled_state

from .weights import read_weights

PART = 'backbone.'
SHOWN = 3  # layers in a message
COUNTER = 'num_batches_tracked'
OPTIONAL = 'stage4.2.'  # the SPPF, which a classifier lacks and a detector may begin anew


def backbone_of(path: str | Path) -> dict[str, Tensor]:
    """The tensors of the backbone of a checkpoint, by their names in it.

    Args:
        path: As in :func:`mmdyn.convert.weights.read_weights`; the averaged weights of a training are taken, as in
            testing.

    Raises:
        UserError: As there; or the checkpoint has no backbone.
    """
    tensors = state_dict_of(read_weights(path), path)
    found = {name.removeprefix(PART): value for name, value in tensors.items() if name.startswith(PART)}
    if not found:
        raise UserError(f'{path} has no backbone: give a checkpoint of a model that has one')
    return found


@WEIGHT_INITIALIZERS.register_module()
class BackboneOf:
    """Initialise a backbone with that of a checkpoint; the log says what was taken and what begins anew.

    A static one goes into a dynamic one by upcycling: dynamic convolutions with batch norm then compute what the static
    ones did. The SPPF, which classifiers lack, may begin anew; everything else has to be there.

    Args:
        checkpoint: As in :func:`backbone_of`.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('segment/yolo11n_coco')
        >>> config.model.backbone.init_cfg = dict(type='BackboneOf', checkpoint='yolo11n-cls.pt')
        >>> WEIGHT_INITIALIZERS.build(config.model.backbone.init_cfg).checkpoint
        'yolo11n-cls.pt'
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.checkpoint = str(checkpoint)

    def __call__(self, module: nn.Module) -> None:
        """Initialise a backbone in place.

        Raises:
            UserError: The checkpoint does not fit it.
        """
        tensors = backbone_of(self.checkpoint)
        tensors = upcycled_state(module, tensors) or tensors
        wanted = {name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)}
        fits = {name for name, value in wanted.items() if name in tensors and tensors[name].shape == value.shape}
        new = [name for name in wanted if name not in fits]
        wrong = [name for name in new if not name.startswith(OPTIONAL)]
        if wrong:
            raise UserError(
                f'{self.checkpoint} does not fit the backbone of the config: {len(wrong)} of {len(wanted)} tensors, '
                f'{_layers(wrong)} first. It is of another scale or variant: give one of the same scale; a static one '
                'starts dynamic convolutions with batch norm (-bn), a bare variant needs one of its own kind'
            )
        module.load_state_dict({name: tensors[name] for name in fits}, strict=False)
        begins = f'; new: {_layers(new)}' if new else ''
        print_log(f'backbone: {len(fits)} tensors of {self.checkpoint}{begins}', logger='current')


def _layers(names: list[str]) -> str:
    layers = list(dict.fromkeys(name.rpartition('.')[0] for name in names))
    return ', '.join(layers[:SHOWN]) + (f' and {len(layers) - SHOWN} more' if len(layers) > SHOWN else '')
