"""YOLO11 backbone: stem, four stages of a down-sampling convolution and a C3k2, SPPF and C2PSA at the end.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11. A subclass of
MMYOLO's ``BaseBackbone``. Differences to MMYOLO's other backbones: the table of stages is immutable, and the
down-sampling convolution and the block are config dicts, which can make them dynamic.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

from mmengine.model import initialize
from mmyolo.models.backbones import BaseBackbone
from mmyolo.models.utils import make_divisible, make_round
from mmyolo.registry import MODELS
from torch import nn

from mmdyn.layers import C2PSA, SPPF, build_block, build_conv_unit
from mmdyn.layers.conv_unit import STATIC_BLOCK, STATIC_CONV, YOLO_ACT, YOLO_NORM, Config, option_for

from .initialisation import reset_convs


class Stage(NamedTuple):
    """One stage, in channels before scaling. ``BaseBackbone`` expects the output as the second field."""

    in_channels: int
    out_channels: int
    down_channels: int
    expansion: float
    c3k: bool
    num_blocks: int = 2
    attention: bool = False


ARCHS = MappingProxyType(
    {
        'P5': (
            Stage(64, 256, down_channels=128, expansion=0.25, c3k=False),
            Stage(256, 512, down_channels=256, expansion=0.25, c3k=False),
            Stage(512, 512, down_channels=512, expansion=0.5, c3k=True),
            Stage(512, 1024, down_channels=1024, expansion=0.5, c3k=True, attention=True),
        )
    }
)


@MODELS.register_module()
class YOLO11Backbone(BaseBackbone):
    """Backbone of YOLO11.

    The five scales are (deepen, widen, last stage, c3k everywhere): n (.5, .25, 1024, no), s (.5, .5, 1024, no),
    m (.5, 1, 512, yes), l (1, 1, 512, yes), x (1, 1.5, 512, yes).

    Args:
        arch: Key of the table of stages.
        last_stage_out_channels: Channels of the last stage before scaling.
        c3k: True puts a C3k into every block; False only into those of the last two stages.
        downsample_cfg: The stride-2 convolutions of the stages, see :func:`mmdyn.layers.build_conv_unit`:
            ``dict(type='DynamicConv', num_experts=4)`` makes them dynamic. A list has one for each stage.
        block_cfg: The blocks: ``dict(type='C3k2_DynamicConv', num_experts=4)`` makes them dynamic. Or a list.
        plugins: As in MMYOLO.
        deepen_factor: Multiplies the number of inner modules.
        widen_factor: Multiplies channels, which are then rounded up to a multiple of 8.
        input_channels: Channels of the image.
        out_indices: Which outputs to return; 0 is the stem.
        frozen_stages: Freeze the stem and this many stages; -1 freezes nothing.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        norm_eval: Keep batch norm in eval mode in training.
        sppf: False leaves the SPPF out of the last stage, as in the classifiers; the C2PSA after it keeps its name.
        init_cfg: MMEngine initialisation; by default every layer's own.

    Raises:
        ValueError: ``arch`` is unknown, ``frozen_stages`` is out of range, or a list has the wrong length.

    Example:
        >>> backbone = YOLO11Backbone(deepen_factor=0.5, widen_factor=0.25)
        >>> [tuple(y.shape) for y in backbone(torch.rand(1, 3, 320, 320))]
        [(1, 128, 40, 40), (1, 128, 20, 20), (1, 256, 10, 10)]
    """

    def __init__(
        self,
        arch: str = 'P5',
        last_stage_out_channels: int = 1024,
        c3k: bool = False,
        downsample_cfg: Config | list[Config] = STATIC_CONV,
        block_cfg: Config | list[Config] = STATIC_BLOCK,
        plugins: Config | list[Config] | None = None,
        deepen_factor: float = 1.0,
        widen_factor: float = 1.0,
        input_channels: int = 3,
        out_indices: Sequence[int] = (2, 3, 4),
        frozen_stages: int = -1,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        norm_eval: bool = False,
        sppf: bool = True,
        init_cfg: Config | list[Config] | None = None,
    ) -> None:
        if arch not in ARCHS:
            raise ValueError(f'arch must be one of {sorted(ARCHS)}, got {arch!r}')
        self.c3k = c3k
        self.downsample_cfg = downsample_cfg
        self.block_cfg = block_cfg
        self.sppf = sppf
        *stages, last = ARCHS[arch]
        last = last._replace(down_channels=last_stage_out_channels, out_channels=last_stage_out_channels)
        super().__init__(
            [*stages, last],
            deepen_factor,
            widen_factor,
            input_channels=input_channels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            plugins=plugins,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            norm_eval=norm_eval,
            init_cfg=init_cfg,
        )

    def build_stem_layer(self) -> nn.Module:
        """Static Conv + BN + activation with stride 2: 3 input channels are too few for routing."""
        out_channels = make_divisible(self.arch_setting[0].in_channels, self.widen_factor)
        return build_conv_unit(STATIC_CONV, self.input_channels, out_channels, 3, 2, self.norm_cfg, self.act_cfg)

    def build_stage_layer(self, stage_idx: int, setting: Stage) -> list[nn.Module]:
        """Down-sampling convolution, block, and in the last stage SPPF, if there is one, and C2PSA.

        Args:
            stage_idx: Index of the stage.
            setting: Its row of the table.
        """
        in_channels, out_channels, down_channels = (make_divisible(c, self.widen_factor) for c in setting[:3])
        num_blocks = make_round(setting.num_blocks, self.deepen_factor)
        norm_act = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        block = dict(
            in_channels=down_channels,
            out_channels=out_channels,
            num_blocks=num_blocks,
            c3k=self.c3k or setting.c3k,
            expansion=setting.expansion,
            **norm_act,
        )
        count = len(self.arch_setting)
        downsample = option_for(self.downsample_cfg, stage_idx, count, 'downsample_cfg')
        block_kind = option_for(self.block_cfg, stage_idx, count, 'block_cfg')
        stage = [
            build_conv_unit(downsample, in_channels, down_channels, 3, 2, **norm_act),
            build_block(block_kind, **block),
        ]
        if setting.attention:
            pooling = SPPF(out_channels, out_channels, **norm_act) if self.sppf else nn.Identity()
            stage += [pooling, C2PSA(out_channels, num_blocks, **norm_act)]
        return stage

    def init_weights(self) -> None:
        """Initialise every layer with its own method, or as ``init_cfg`` states.

        With ``dict(type='BackboneOf', checkpoint=…)`` the backbone is that of a checkpoint.
        """
        pretrained = isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'BackboneOf'
        if self.init_cfg is None or pretrained:
            reset_convs(self)
        if pretrained:
            initialize(self, self.init_cfg)
        elif self.init_cfg is not None:
            super().init_weights()
