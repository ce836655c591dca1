"""The plan of a comparison: its configs and seeds, read, checked and written to the work dir.

A work dir is one comparison: ``WORK_DIR/CONFIG/config.py`` is the config as it is run, even if the original file
changes. ``WORK_DIR/CONFIG/seed_K/`` is an ordinary work dir of MMEngine's runner. No other state is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmdyn.analysis.flops import count_cost
from mmdyn.errors import UserError
from mmdyn.files import write_text
from mmdyn.models.build import build_model
from mmdyn.running.config_file import load_config
from mmdyn.running.image_size import image_size
from mmdyn.running.messages import config_errors

from .fairness import check_comparable, config_differences

CONFIG_NAME = 'config.py'


class Run(NamedTuple):
    """The training of one config with one seed."""

    arm: str  # name of the config
    seed: int
    folder: Path

    @property
    def config(self) -> Path:
        """Path of the config that is run."""
        return self.folder.parent / CONFIG_NAME


class Plan(NamedTuple):
    """A comparison: its arms by name in order, the control first, and their seeds."""

    work_dir: Path
    arms: Mapping[str, Config]
    seeds: Sequence[int]

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


def make_plan(
    paths: Sequence[str],
    seeds: Sequence[int],
    work_dir: str | Path,
    options: dict | None = None,
    amp: bool = False,
    change: Callable[[Config], None] | None = None,
) -> Plan:
    """Read the configs of a comparison, and check them against each other and against the folder.

    Args:
        paths: Config files; the first one is the control.
        seeds: Seeds of every config.
        work_dir: Folder of the comparison. Runs of earlier calls remain part of it.
        options: Dotted keys and values to override in all of them.
        amp: Train with mixed precision.
        change: Called with every config before it is checked, to change it in place.

    Returns:
        The plan of this call's configs. Nothing is written, see :func:`record`.

    Raises:
        UserError: A config does not load or build, or is not trained for epochs and evaluated by COCO; two configs
            have the same name; they cannot be compared with each other or with those in the folder; or the folder has
            a different config of the same name.
    """
    arms: dict[str, Config] = {}
    for path in paths:
        name = Path(path).stem
        if name in arms:
            raise UserError(f'two configs have the name {name}, which names their folder: rename one')
        arms[name] = _trainable(path, options, amp, change)
    plan = Plan(Path(work_dir), arms, tuple(seeds))
    _check_folder(plan)
    return plan


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
    """Write the configs that are new, or differ only in fields that change no result. The caller holds the lock.

    Args:
        plan: The plan.

    Raises:
        UserError: As in :func:`make_plan`, if the folder has changed since then.
    """
    known = _check_folder(plan)
    for name, cfg in plan.arms.items():
        if name not in known or known[name].pretty_text != cfg.pretty_text:
            write_text(plan.work_dir / name / CONFIG_NAME, cfg.pretty_text)


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


def recorded_arms(work_dir: Path) -> dict[str, Config]:
    """The configs that a folder has, by name.

    Args:
        work_dir: Folder of a comparison; it may be empty.
    """
    return {path.parent.name: Config.fromfile(path) for path in sorted(work_dir.glob(f'*/{CONFIG_NAME}'))}
