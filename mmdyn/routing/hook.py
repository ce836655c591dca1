"""Routing diagnostics: logs how every dynamic convolution routes the validation or test images."""

import logging
from contextlib import ExitStack

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from mmdyn.layers import dynamic_layers, record_routing

from .statistics import RoutingStatistics, routing_statistics

SHOWN_LAYERS = 6  # in a warning


def present_classes(samples: list, number: int) -> Tensor:
    """Which classes are in which image.

    Args:
        samples: Data samples with ``gt_instances``, with ``gt_label``, or without either.
        number: Number of classes K.

    Returns:
        (images, K), bool; labels from K are ignored.
    """
    present = torch.zeros(len(samples), number, dtype=torch.bool)
    for row, sample in zip(present, samples, strict=True):
        if 'gt_instances' in sample and 'labels' in sample.gt_instances:  # a test set need not be annotated
            labels = sample.gt_instances.labels.cpu().long()
            row[labels[labels < number]] = True
        elif 'gt_label' in sample:  # of a classifier
            row[sample.gt_label.cpu().long()] = True
    return present


@HOOKS.register_module()
class RoutingHook(Hook):
    """Log how every dynamic convolution routes the images of each validation and test.

    For every layer: use and weight of each expert, entropy and balance, spread between samples and between classes,
    saturated and dead experts, and the distance between experts (:class:`RoutingStatistics`), as
    ``routing/LAYER/NAME`` in every visualizer backend. One line in the log warns of the layers with collapsed experts.
    Nothing is logged for static models.

    Args:
        warn_from: Fraction of the training after which a validation warns; routing weights need time to diverge. Tests
            always warn.

    Raises:
        ValueError: ``warn_from`` is not from 0 to 1.

    Example:
        >>> from mmdyn.running import load_config
        >>> config = load_config('yolo11n_dynconv_coco')
        >>> config.default_hooks.routing = dict(type='RoutingHook', warn_from=0.2)  # warn earlier
    """

    # Runs before the EMA hook restores the training weights, so experts and routing weights belong together.
    priority = 'ABOVE_NORMAL'

    def __init__(self, warn_from: float = 0.5) -> None:
        if not 0 <= warn_from <= 1:
            raise ValueError(f'warn_from must be a fraction of the training from 0 to 1, got {warn_from}')
        self.warn_from = warn_from
        self._recording = ExitStack()
        self._seen: dict[str, list[Tensor]] = {}  # by layer; empty while nothing is recorded
        self._present: list[Tensor] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Start noting."""
        self._start(runner)

    def before_test_epoch(self, runner: Runner) -> None:
        """Start noting."""
        self._start(runner)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Note the classes of the batch."""
        self._note(runner.val_dataloader, data_batch)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Note the classes of the batch."""
        self._note(runner.test_dataloader, data_batch)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the validation."""
        by_iteration = isinstance(runner._train_loop, IterBasedTrainLoop)
        self._finish(runner, runner.iter if by_iteration else runner.epoch)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the test."""
        self._finish(runner, 0)

    def _start(self, runner: Runner) -> None:
        self._recording.close()  # of an epoch that was interrupted
        self._seen, self._present = self._recording.enter_context(record_routing(runner.model)), []

    def _note(self, dataloader, data_batch: dict | None) -> None:
        if self._seen and data_batch is not None:
            number = len(dataloader.dataset.metainfo.get('classes', ()))
            self._present.append(present_classes(data_batch['data_samples'], number))

    def _finish(self, runner: Runner, step: int) -> None:
        self._recording.close()
        statistics = self._gathered(runner.model)
        scalars = {
            f'routing/{name}/{k}': v for name, figures in statistics.items() for k, v in figures.scalars().items()
        }
        if scalars:  # in one call, because some backends count calls as steps
            runner.visualizer.add_scalars(scalars, step=step)
        collapsed = {name: figures.collapsed for name, figures in statistics.items() if figures.collapsed}
        if collapsed and (step == 0 or runner.iter >= self.warn_from * runner.max_iters):
            reasons = '; '.join(f'{name}: {why}' for name, why in list(collapsed.items())[:SHOWN_LAYERS])
            more = f'; and {len(collapsed) - SHOWN_LAYERS} more' if len(collapsed) > SHOWN_LAYERS else ''
            print_log(
                f'{len(collapsed)} of {len(statistics)} dynamic convolutions have collapsed into static ones '
                f'({reasons}{more}). `mmdyn routing CONFIG CHECKPOINT` draws them',
                'current',
                level=logging.WARNING,
            )

    def _gathered(self, model: nn.Module) -> dict[str, RoutingStatistics]:
        """Statistics over the images of all processes, on the first one; names are those of the bare model."""
        own = {name: torch.cat(batches).cpu() for name, batches in self._seen.items() if batches}
        parts = all_gather_object((own, self._present))
        if not own or not is_main_process():
            return {}
        noted = [p for _, batches in parts for p in batches]
        present = torch.cat(noted) if noted else torch.zeros(0, 0, dtype=torch.bool)
        figures = {}
        layers = dynamic_layers(model)
        for name in own:  # a layer that runs only in training has none
            routing = torch.cat([seen[name] for seen, _ in parts])
            # test-time augmentation runs every image several times: its samples are not the images
            classes = present if len(present) == len(routing) else None
            figures[name.removeprefix('module.')] = routing_statistics(routing, layers[name].experts, classes)
        return figures
