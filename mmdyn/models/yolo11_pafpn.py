"""YOLO11 neck: path aggregation, top-down then bottom-up, with a C3k2 after every concatenation.

Facts of the architecture: https://docs.ultralytics.com/models/yolo11. Differences to MMYOLO's ``YOLOv8PAFPN``: C3k2
blocks with the shortcut on, a C3k in the last one, down-sampling that keeps the channels of the level it comes from
(P3 enters wider than it leaves), and the down-sampling convolution and the block as config dicts.
"""

from mmyolo.models.necks import YOLOv8PAFPN
from mmyolo.models.utils import make_divisible, make_round
from mmyolo.registry import MODELS
from torch import nn

from mmdyn.layers import build_block, build_conv_unit
from mmdyn.layers.conv_unit import STATIC_BLOCK, STATIC_CONV, YOLO_ACT, YOLO_NORM, Config, option_for

from .initialisation import reset_convs


@MODELS.register_module()
class YOLO11PAFPN(YOLOv8PAFPN):
    """Neck of YOLO11.

    Args:
        in_channels: Channels of P3, P4, P5 before scaling: (512, 512, 1024), on scales m, l, x (512, 512, 512).
        out_channels: Channels of N3, N4, N5 before scaling: (256, 512, 1024), on scales m, l, x (256, 512, 512).
        deepen_factor: Multiplies the number of inner modules.
        widen_factor: Multiplies channels, which are then rounded up to a multiple of 8.
        num_csp_blocks: Inner modules of a block before scaling.
        c3k: True puts a C3k into every block; False only into the last.
        downsample_cfg: The stride-2 convolutions, see :func:`mmdyn.layers.build_conv_unit`:
            ``dict(type='DynamicConv', num_experts=4)`` makes them dynamic. A list has one for N3 and one for N4.
        block_cfg: The blocks: ``dict(type='C3k2_DynamicConv', num_experts=4)`` makes them dynamic. A list has one for
            each, in the order in which they run.
        freeze_all: Freeze the neck.
        norm_cfg: Norm layers.
        act_cfg: Activations.
        init_cfg: MMEngine initialisation; by default every layer's own.

    Example:
        >>> neck = YOLO11PAFPN([512, 512, 1024], [256, 512, 1024], deepen_factor=0.5, widen_factor=0.25)
        >>> features = [torch.rand(1, c, s, s) for c, s in ((128, 40), (128, 20), (256, 10))]
        >>> [tuple(y.shape) for y in neck(features)]
        [(1, 64, 40, 40), (1, 128, 20, 20), (1, 256, 10, 10)]
    """

    def __init__(
        self,
        in_channels: list[int],
        out_channels: list[int],
        deepen_factor: float = 1.0,
        widen_factor: float = 1.0,
        num_csp_blocks: int = 2,
        c3k: bool = False,
        downsample_cfg: Config | list[Config] = STATIC_CONV,
        block_cfg: Config | list[Config] = STATIC_BLOCK,
        freeze_all: bool = False,
        norm_cfg: Config = YOLO_NORM,
        act_cfg: Config = YOLO_ACT,
        init_cfg: Config | list[Config] | None = None,
    ) -> None:
        self.c3k = c3k
        self.downsample_cfg = downsample_cfg
        self.block_cfg = block_cfg
        super().__init__(
            in_channels,
            out_channels,
            deepen_factor,
            widen_factor,
            num_csp_blocks,
            freeze_all,
            norm_cfg,
            act_cfg,
            init_cfg,
        )

    def build_top_down_layer(self, idx: int) -> nn.Module:
        """Block after the concatenation of level ``idx - 1`` with the level above it.

        Args:
            idx: Level that was up-sampled; the topmost comes directly from the backbone.
        """
        top = len(self.in_channels) - 1
        above = self.in_channels[idx] if idx == top else self.out_channels[idx]
        return self._build_block(top - idx, (above, self.in_channels[idx - 1]), self.out_channels[idx - 1], self.c3k)

    def build_downsample_layer(self, idx: int) -> nn.Module:
        """Stride-2 convolution of output level ``idx``, which keeps its channels.

        Args:
            idx: Output level.
        """
        channels = make_divisible(self.out_channels[idx], self.widen_factor)
        unit = option_for(self.downsample_cfg, idx, len(self.in_channels) - 1, 'downsample_cfg')
        return build_conv_unit(unit, channels, channels, 3, 2, self.norm_cfg, self.act_cfg)

    def build_bottom_up_layer(self, idx: int) -> nn.Module:
        """Block after the concatenation of the down-sampled level ``idx`` with the level above it.

        Args:
            idx: Output level that was down-sampled.
        """
        top = len(self.in_channels) - 1
        last = idx == top - 1
        above = self.in_channels[idx + 1] if last else self.out_channels[idx + 1]
        channels = self.out_channels[idx], above
        return self._build_block(top + idx, channels, self.out_channels[idx + 1], self.c3k or last)

    def _build_block(self, position: int, in_channels: tuple[int, int], out_channels: int, c3k: bool) -> nn.Module:
        return build_block(
            option_for(self.block_cfg, position, 2 * (len(self.in_channels) - 1), 'block_cfg'),
            in_channels=sum(make_divisible(c, self.widen_factor) for c in in_channels),
            out_channels=make_divisible(out_channels, self.widen_factor),
            num_blocks=make_round(self.num_csp_blocks, self.deepen_factor),
            c3k=c3k,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )

    def init_weights(self) -> None:
        """Initialise every layer with its own method, or as ``init_cfg`` states."""
        if self.init_cfg is None:
            reset_convs(self)
        else:
            super().init_weights()
