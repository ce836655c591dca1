"""The plan of a comparison: its configs and seeds, read, checked and written to the work dir.

A work dir is one comparison: ``WORK_DIR/CONFIG/config.py`` is the config as it is run, even if the original file
changes. ``WORK_DIR/CONFIG/seed_K/`` is an ordinary work dir of MMEngine's runner. No other state is kept.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmdyn.analysis.flops import count_cost
from mmdyn.errors import UserError
from mmdyn.files import write_text
from mmdyn.layers import upcycled_state
from mmdyn.models.build import build_model
from mmdyn.models.yolo11_detector import DETECTORS
from mmdyn.running.config_file import load_config
from mmdyn.running.image_size import image_size
from mmdyn.running.messages import config_errors

from .declaration import PLAN_KEY, Declaration, declared, start_checkpoint, write_declaration
from .fairness import check_comparable, config_differences
from .runs import CONFIG_NAME, Run, recorded_arms


class Plan(NamedTuple):
    """A comparison: its arms by name in order, the control first, and their seeds."""

    work_dir: Path
    arms: Mapping[str, Config]
    seeds: Sequence[int]
    declaration: Declaration

    @property
    def control(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.arms))

    @property
    def epochs(self) -> int:
        """Epochs of every run."""
        return next(iter(self.arms.values())).train_cfg.max_epochs

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that an interrupted comparison is complete for its first seeds."""
        return [Run(arm, seed, self.work_dir / arm / f'seed_{seed}') for seed in self.seeds for arm in self.arms]

    def starts(self) -> list[Run]:
        """The runs of the control that all arms start from, one for each seed; none if arms start from nothing."""
        if not self.declaration.start_epochs:
            return []
        return [Run(self.control, seed, self.start_of(seed).parent) for seed in self.seeds]

    def start_of(self, seed: int) -> Path:
        """The checkpoint that the runs of a seed start from."""
        return start_checkpoint(self.work_dir, self.declaration, seed)


def make_plan(
    paths: Sequence[str],
    seeds: Sequence[int],
    work_dir: str | Path,
    options: dict | None = None,
    amp: bool = False,
    change: Callable[[Config], None] | None = None,
    stated: dict | None = None,
) -> Plan:
    """Read the configs of a comparison, and check them against each other and against the folder.

    Args:
        paths: Config files; the first one is the control.
        seeds: Seeds of every config.
        work_dir: Folder of the comparison. Runs of earlier calls remain part of it.
        options: Dotted keys and values to override in all of them.
        amp: Train with mixed precision.
        change: Called with every config before it is checked, to change it in place.
        stated: Fields of the :class:`Declaration` that the call states.

    Returns:
        The plan of this call's configs. Nothing is written, see :func:`record`.

    Raises:
        UserError: A config does not load or build, or is not trained for epochs and evaluated by COCO; two configs
            have the same name; they cannot be compared with each other or with those in the folder; or the folder has
            a different config of the same name.
    """
    arms: dict[str, Config] = {}
    recorded = recorded_arms(Path(work_dir))
    pools = all('pool_valid_area' in cfg.model for cfg in recorded.values())  # not in a folder of an earlier version
    for path in paths:
        name = Path(path).stem
        if name in arms:
            raise UserError(f'two configs have the name {name}, which names their folder: rename one')
        arms[name] = _trainable(path, options, amp, change)
        if pools and arms[name].model.get('type') == DETECTORS[0]:
            arms[name].model.setdefault('pool_valid_area', True)  # padding would move the routing of dynamic arms
    declaration = declared(Path(work_dir), next(iter(arms)), stated or {}, arms)
    plan = Plan(Path(work_dir), arms, tuple(seeds), declaration)
    _check_folder(plan)
    if declaration.start_epochs:
        _check_paired(plan)
    return plan


def _check_paired(plan: Plan) -> None:
    """Check that every arm can start from a run of the control."""
    static = build_model(plan.arms[plan.control]).state_dict()
    shapes = {name: tensor.shape for name, tensor in static.items()}
    for name, cfg in plan.arms.items():
        model = build_model(cfg)
        if {k: v.shape for k, v in model.state_dict().items()} != shapes and upcycled_state(model, static) is None:
            raise UserError(
                f'{name} cannot start from {plan.control}: its layers are neither the same nor dynamic ones of the '
                'same shapes, with batch norm where the control has it. Omit --start-epochs, or this arm'
            )


def _trainable(path: str, options: dict | None, amp: bool, change: Callable[[Config], None] | None) -> Config:
    """A config as it will be run, except for its seed and its folder."""
    cfg = load_config(path, options)
    if change is not None:
        change(cfg)
    _check_readable(path, cfg)
    with config_errors():
        model = build_model(cfg)
    count_cost(model, *image_size(cfg))  # fails now instead of after all training
    cfg = Config({k: v for k, v in cfg.to_dict().items() if k not in ('work_dir', 'launcher')})
    cfg.randomness = {k: v for k, v in cfg.get('randomness', {}).items() if k != 'seed'}
    if amp:
        cfg.amp = True  # the machine that trains selects its type
    return cfg


def _check_readable(path: str, cfg: Config) -> None:
    """Check that the logs will contain the AP, or the accuracy, of the last epoch."""
    loop = cfg.get('train_cfg') or {}
    epochs, begin = loop.get('max_epochs'), loop.get('val_begin', 1)
    if not epochs:
        raise UserError(f'{path} does not train for a number of epochs : set train_cfg.max_epochs')
    if begin > epochs:
        raise UserError(f'{path} is never validated: train_cfg.val_begin is {begin}, max_epochs {epochs}')
    evaluators = cfg.get('val_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, list | tuple) else [evaluators]
    named = {str(e.get('type')): e.get('prefix') for e in evaluators}
    known = (('CocoMetric', 'coco'), ('TopAccuracy', 'accuracy'))
    if not any(kind.endswith(end) and prefix in (None, own) for kind, prefix in named.items() for end, own in known):
        raise UserError(
            f'{path} is scored by {named or "nothing"} (val_evaluator, with prefix): AP of a CocoMetric is compared, '
            "whose prefix is None or 'coco', or a TopAccuracy without prefix"
        )
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or []
    if not any(str(b.get('type')).endswith('LocalVisBackend') for b in backends):
        raise UserError(
            f"{path} has no LocalVisBackend, whose log the report reads: add dict(type='LocalVisBackend') to "
            'visualizer.vis_backends'
        )


def _check_folder(plan: Plan) -> dict[str, Config]:
    """The configs of the folder, after checking that they can be compared with the plan."""
    known = recorded_arms(plan.work_dir)
    for name, cfg in plan.arms.items():
        changed = config_differences(known.get(name, cfg), cfg)
        if changed:
            key, (was, now) = next(iter(changed.items()))
            raise UserError(
                f'{plan.work_dir / name} has runs of another {name}: {key} was {was!r} there and is {now!r} now. '
                'Give another --work-dir, or remove that folder to run it again'
            )
    check_comparable({**plan.arms, **known})
    return known


def record(plan: Plan) -> None:
    """Write the declaration, and the configs that are new or differ only in fields that change no result.

    The caller holds the lock.

    Args:
        plan: The plan.

    Raises:
        UserError: As in :func:`make_plan`, if the folder has changed since then.
    """
    known = _check_folder(plan)
    write_declaration(plan.declaration, plan.work_dir)
    stated = plan.declaration._asdict() | dict(looks=list(plan.declaration.looks))
    for name, cfg in (known | dict(plan.arms)).items():
        cfg = Config(cfg.to_dict() | {PLAN_KEY: stated})
        if name not in known or known[name].pretty_text != cfg.pretty_text:
            write_text(plan.work_dir / name / CONFIG_NAME, cfg.pretty_text)
    for run in plan.starts()[:1]:
        cfg, epochs = copy.deepcopy(plan.arms[run.arm]), plan.declaration.start_epochs
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs, val_begin=1)
        write_text(run.config, cfg.pretty_text)


def check_recorded(plan: Plan) -> None:
    """Check that the folder has every config of the plan.

    Args:
        plan: The plan.

    Raises:
        UserError: The folder lacks one of its configs.
    """
    absent = plan.arms.keys() - recorded_arms(plan.work_dir).keys()
    if absent:
        raise UserError(
            f'{plan.work_dir} has no run of {", ".join(sorted(absent))}: train first, without --report-only'
        )
