"""Audit of routing: whether it reads the image, and whether the detector needs it.

Routing that reads the image hardly changes when the image is mirrored or stored again as JPEG, compared with what
other images get. A detector that needs it loses average precision when every image gets the routing of another one. If
it loses nothing, a static convolution with the mean kernel would do (``tools/collapse.py``).

Shapes: B batch, N images, M experts.
"""

import copy
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mmdyn.checkpoints import check_checkpoint
from mmdyn.errors import UserError
from mmdyn.layers import ODConv, Router, dynamic_layers, record_routing
from mmdyn.layers.odconv import Attention, Gates
from mmdyn.layers.recording import record_attention
from mmdyn.logs import metric_of
from mmdyn.running.dataset_images import dataset_images
from mmdyn.running.launch import build_runner
from mmdyn.running.loading import load_checkpoint_model

JPEG_QUALITY = 90
CHANGES = ('mirrored', f'JPEG {JPEG_QUALITY}')


class Stability(NamedTuple):
    """How the routing weights of a layer move, or all of ODConv's attention, mean over images and weights."""

    spread: float  # standard deviation over the images
    moves: tuple[float, ...]  # mean absolute change, by each of CHANGES


class RoutingAudit(NamedTuple):
    """The result of an audit."""

    layers: dict[str, Stability]
    score: float  # AP of the test, or accuracy
    swapped: tuple[float, ...]  # the same with the routing of other images, by draw

    def table(self) -> str:
        """The layers as a Markdown table: moves relative to the spread."""
        lines = [f'| layer | spread | {" | ".join(f"moves, {change}" for change in CHANGES)} |']
        lines.append('|---' * (len(CHANGES) + 2) + '|')
        for name, layer in self.layers.items():
            moves = ' | '.join(f'{move / layer.spread:.2f}' if layer.spread else '–' for move in layer.moves)
            lines.append(f'| {name} | {layer.spread:.4f} | {moves} |')
        return '\n'.join(lines)

    def verdict(self) -> str:
        """What swapping did, in a sentence; the range is over draws."""
        loss = self.score - mean(self.swapped)
        low, high = min(self.swapped), max(self.swapped)
        text = (
            f'{self.score:.4f}, and {mean(self.swapped):.4f} ({low:.4f} to {high:.4f}) with the routing of other images'
        )
        return f'{text}: {"lower by" if loss > 0 else "not lower:"} {abs(loss):.4f}'


def stored_again(image: Tensor, preprocessor: nn.Module) -> Tensor:
    """The input of a model after its image was stored as JPEG, (1, C, H, W)."""
    scale = torch.as_tensor(getattr(preprocessor, 'std', 1.0), device=image.device)
    shift = torch.as_tensor(getattr(preprocessor, 'mean', 0.0), device=image.device)
    pixels = (image[0] * scale + shift).round().clamp(0, 255).byte().flip(0).permute(1, 2, 0).cpu().numpy()  # BGR
    stored = cv2.imencode('.jpg', np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    decoded = np.asarray(cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)).reshape(pixels.shape)
    again = torch.from_numpy(decoded).to(image.device)
    return ((again.permute(2, 0, 1).flip(0).float() - shift) / scale)[None]


@torch.no_grad()
def stability(cfg: Config, checkpoint: str | Path, number: int = 200) -> dict[str, Stability]:
    """How the routing weights of every layer move when an image is mirrored, or stored again as JPEG.

    Args:
        cfg: Config of the model; its validation set provides the images.
        checkpoint: Its checkpoint.
        number: Number of images; all images if the set is smaller.

    Raises:
        UserError: As in :func:`~mmdyn.running.loading.load_checkpoint_model`, or no layer is routed.
    """
    model = load_checkpoint_model(cfg, checkpoint).model
    seen: list[dict[str, list[Tensor]]] = []
    for image, sample in dataset_images(cfg, model.data_preprocessor, 'val', number, 'routing'):
        for changed in (image, image.flip(3), stored_again(image, model.data_preprocessor)):
            with record_routing(model) as calls, record_attention(model) as attention:
                model(changed, [sample], mode='tensor')
            parts = {name: [_flat(a) for a in each] for name, each in attention.items()}
            seen.append(calls | parts)
    found = {}
    for name in dynamic_layers(model):
        if seen[0][name]:
            weights = torch.stack([torch.cat(calls[name]).mean(0) for calls in seen]).unflatten(0, (-1, 3))  # (N, 3, M)
            own = weights[:, 0]
            moves = tuple(float((weights[:, i] - own).abs().mean()) for i in (1, 2))
            found[name] = Stability(float(own.std(0, correction=0).mean()), moves)
    if not found:
        raise UserError(f'no layer of {checkpoint} has routing weights: set the checkpoint of a dynamic detector')
    return found


def _flat(attention: Attention) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in attention if tensor is not None], 1)


class SwapRoutingHook(Hook):
    """Records the routing of every test image, then gives each image that of another one.

    The first test records; after :meth:`draw`, the next one swaps. Tests have to take the images in the same order, and
    a model has to run each router once for an image.
    """

    def __init__(self) -> None:
        self.recorded: dict[str, list[Any]] = {}
        self.order: Tensor | None = None
        self.images = 0  # of the first test
        self._taken: dict[str, int] = {}
        self._handles: list = []

    def draw(self, seed: int) -> None:
        """Choose for every image another one, all of them once.

        Raises:
            UserError: Routers ran more than once for an image, or there are fewer than two images.
        """
        counts = {sum(len(_first(part)) for part in parts) for parts in self.recorded.values()}
        if counts != {self.images} or self.images < 2:
            raise UserError(
                f'{self.images} images were routed {sorted(counts)} times: routing is swapped between two images or '
                'more, in models that run each dynamic layer once for an image'
            )
        cycle = torch.randperm(self.images, generator=torch.Generator().manual_seed(seed))
        self.order = torch.empty_like(cycle)
        self.order[cycle] = cycle.roll(1)

    def before_test_epoch(self, runner: Runner) -> None:
        """Attach to every router."""
        inside = {id(m.router) for m in runner.model.modules() if isinstance(m, ODConv)}  # its features are swapped
        modules = {
            n: m for n, m in runner.model.named_modules() if isinstance(m, Router | Gates) and id(m) not in inside
        }
        whole = (
            {name: tree_map(_joined, *parts) for name, parts in self.recorded.items()} if self.order is not None else {}
        )
        self._taken = dict.fromkeys(modules, 0)

        def hook(name: str):
            def swap(_, __, output):
                if self.order is None:
                    self.recorded.setdefault(name, []).append(tree_map(Tensor.clone, output))
                    return None
                first = self._taken[name]
                self._taken[name] = first + len(_first(output))
                return tree_map(lambda t: t[self.order[first : self._taken[name]]], whole[name])

            return swap

        self._handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Count the images."""
        if self.order is None:
            self.images += len(outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Detach."""
        for handle in self._handles:
            handle.remove()


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else _first(output[0])


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def swapped_scores(cfg: Config, checkpoint: str | Path, draws: int = 3) -> tuple[float, tuple[float, ...]]:
    """The score of a test, and those with the routing of other images.

    Args:
        cfg: Config; not modified.
        checkpoint: Its checkpoint.
        draws: How often other images are chosen.

    Raises:
        UserError: The checkpoint does not load or does not fit, or ``draws`` is less than one.
    """
    if draws < 1:
        raise UserError(f'--draws must be at least 1, got {draws}')
    cfg = copy.deepcopy(cfg)
    check_checkpoint(str(checkpoint))
    cfg.load_from, cfg.resume = str(checkpoint), False
    cfg.setdefault('work_dir', 'work_dirs/evaluation')
    cfg.setdefault('launcher', 'none')
    cfg.default_hooks = dict(cfg.get('default_hooks') or {}, report=None, routing=None)  # they are for one test
    runner, hook = build_runner(cfg, train=False), SwapRoutingHook()
    runner.register_hook(hook)
    scores = [_score(runner.test())]
    for seed in range(draws):
        hook.draw(seed)
        scores.append(_score(runner.test()))
    return scores[0], tuple(scores[1:])


def _score(figures: dict[str, float]) -> float:
    key = metric_of(figures)
    if key is None:
        raise UserError(f'the test has none of the figures that are compared, only {", ".join(figures)}')
    return figures[key]


def audit_routing(cfg: Config, checkpoint: str | Path, number: int = 200, draws: int = 3) -> RoutingAudit:
    """Audit the routing of a model: :func:`stability` on its validation set, :func:`swapped_scores` on its test set."""
    layers = stability(cfg, checkpoint, number)
    return RoutingAudit(layers, *swapped_scores(cfg, checkpoint, draws))
