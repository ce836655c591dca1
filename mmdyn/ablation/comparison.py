"""The comparison: the AP of every arm over its seeds, and its paired difference to the control.

Seed K of an arm is paired with seed K of the control. Both have the same data order as far as workers allow. The
interval is Student's for the mean of those differences, https://en.wikipedia.org/wiki/Paired_difference_test. It is
wide for few seeds, as it should be: with three, 4.3 standard errors to either side. It is of one arm alone. Dunnett's
test (https://doi.org/10.2307/2281208) in blocks accounts for several arms that are compared with one control, and uses
the spread of all arms. A difference is shown if the interval and p agree. A contrast that was declared before the
first run is tested by itself, see :class:`Primary`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from scipy import stats

from mmdyn.analysis.flops import Cost, count_cost
from mmdyn.models.build import build_model
from mmdyn.running.image_size import image_size
from mmdyn.running.testing import task_of_config

from .declaration import Declaration, read_declaration
from .fairness import config_differences
from .power import equivalence_p, level_of_each, paired_p, smallest_difference
from .runs import Run, RunResult, read_run, recorded_arms, recorded_runs
from .speed import Speed, measure_speed

CONFIDENCE = 0.95
# The evaluator rounds AP to three decimals, so a difference is known to this deviation: two uniform errors of 0.001.
ROUNDING = 0.001 * math.sqrt(2 / 12)
POINTS = 20_000  # sample points of the integral per dimension: p is accurate to three decimals


class Difference(NamedTuple):
    """Mean of paired differences, and its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    pairs: int
    p: float = math.nan  # of all comparisons together, see joint_p
    deviation: float = math.nan  # of the paired differences

    @property
    def detectable(self) -> float:
        """The smallest true difference that as many pairs would show with a probability of 80 %."""
        return smallest_difference(max(self.deviation, ROUNDING), self.pairs)

    @property
    def verdict(self) -> str:
        """The result in words; ``only alone``: the interval excludes zero, but p is too large."""
        if self.pairs < 2:
            return 'one pair: no interval' if self.pairs else 'no pair'
        if self.low <= 0 <= self.high:
            return 'no difference shown'
        if not self.p < 1 - CONFIDENCE:
            return 'only alone'
        return 'better' if self.low > 0 else 'worse'


class Primary(NamedTuple):
    """The contrast that was declared before the first run, at the last of its looks for which all seeds are done.

    A look at n pairs is at the first n seeds. Once a look has shown a difference or equivalence, later ones do not
    change it.
    """

    declaration: Declaration
    level: float  # two-sided, of every look
    difference: Difference  # its interval is at that level; without pairs if no look is due
    p: float = math.nan  # of the paired t test
    equivalence_p: float = math.nan  # of two one-sided tests that the true difference is within the margin

    @property
    def verdict(self) -> str:
        """The result in words; empty if no look is due."""
        if not self.difference.pairs:
            return ''
        shown = [f'a difference of {self.difference.mean:+.3f}'] if self.p < self.level else []
        if self.equivalence_p < self.level:
            shown.append(f'equivalence within ±{self.declaration.margin:g}')
        return ' and '.join(shown) if shown else 'neither a difference nor equivalence'

    @property
    def is_final(self) -> bool:
        """Whether no later look can change the result."""
        shown = self.p < self.level or self.equivalence_p < self.level
        return shown or self.difference.pairs == self.declaration.looks[-1]


class Arm(NamedTuple):
    """The runs of one config, over all seeds."""

    name: str
    runs: tuple[RunResult, ...]
    cost: Cost
    speed: Speed
    changes: dict[str, tuple]  # fields that differ from the control, with both values
    difference: Difference | None  # None for the control

    @property
    def done(self) -> list[RunResult]:
        """Runs that are complete."""
        return [run for run in self.runs if run.done]

    @property
    def missing(self) -> list[RunResult]:
        """Runs that failed or are not finished."""
        return [run for run in self.runs if not run.done]

    @property
    def final(self) -> list[float]:
        """Score by seed: AP of the last epoch, or the mean over the last validations."""
        return [run.final for run in self.done]

    @property
    def best(self) -> list[float]:
        """AP of the best validation, by seed."""
        return [run.best for run in self.done]

    @property
    def iteration(self) -> float:
        """Median seconds of a training iteration, mean over seeds."""
        return mean(r.iteration for r in self.done) if self.done else math.nan

    @property
    def seconds(self) -> float:
        """Seconds of training, mean over seeds."""
        return mean(r.seconds for r in self.done) if self.done else math.nan


class Comparison(NamedTuple):
    """All arms of a folder, the control first."""

    arms: tuple[Arm, ...]
    cfg: Config  # of the control
    size: tuple[int, int]  # image height and width for cost and latency
    declaration: Declaration
    primary: Primary | None  # None if none was declared

    @property
    def control(self) -> Arm:
        """The first arm."""
        return self.arms[0]

    @property
    def score(self) -> str:
        """What the arms are compared by, as the heading of a table."""
        return next(iter(task_of_config(self.cfg).metrics))

    @property
    def missing(self) -> list[RunResult]:
        """Runs of any arm that failed or are not finished."""
        return [run for arm in self.arms for run in arm.missing]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN if there are too few values.

    Args:
        values: One for each seed.
    """
    if not values:
        return math.nan, math.nan
    return mean(values), stdev(values) if len(values) > 1 else math.nan


def final_by_seed(runs: Iterable[RunResult]) -> dict[int, float]:
    """Score by seed, of the complete runs.

    Args:
        runs: Runs of one config.
    """
    return {r.run.seed: r.final for r in runs if r.done}


def paired_difference(
    values: Mapping[int, float], control: Mapping[int, float], confidence: float = CONFIDENCE
) -> Difference:
    """Compare an arm with the control, over the seeds that both have.

    Args:
        values: AP by seed.
        control: AP of the control by seed.
        confidence: Of the interval.
    """
    pairs = [values[seed] - control[seed] for seed in sorted(values.keys() & control.keys())]
    average, deviation = spread(pairs)
    half = math.nan
    if len(pairs) > 1:
        error = max(deviation, ROUNDING) / math.sqrt(len(pairs))  # equal differences can be due to rounding
        half = float(stats.t.ppf((1 + confidence) / 2, len(pairs) - 1)) * error
    return Difference(average, average - half, average + half, len(pairs), deviation=deviation)


def primary_contrast(declaration: Declaration, finals: Mapping[str, Mapping[int, float]]) -> Primary | None:
    """Test the contrast that was declared, if one was.

    Args:
        declaration: The declaration.
        finals: Scores by arm and seed.
    """
    if declaration.primary is None or declaration.margin is None:
        return None
    level = level_of_each(declaration.looks)
    found = Primary(declaration, level, paired_difference({}, {}))
    for pairs in declaration.looks:
        arms = [finals.get(name, {}) for name in (declaration.primary, declaration.control)]
        arm, control = ({seed: arm[seed] for seed in range(pairs) if seed in arm} for arm in arms)
        difference = paired_difference(arm, control, 1 - level)
        if difference.pairs < pairs:
            break
        size = difference.mean, max(difference.deviation, ROUNDING), pairs
        found = Primary(declaration, level, difference, paired_p(*size), equivalence_p(*size, declaration.margin))
        if found.is_final:
            break
    return found


def joint_p(arms: Sequence[Mapping[int, float]], control: Mapping[int, float]) -> list[float]:
    """Dunnett's p: the probability under no effect that the largest difference of all arms is at least this large.

    The test is in blocks: the effect of a seed on all arms is subtracted first, and the remaining deviation is assumed
    to be the same in all arms. For a single arm it is the paired t test.

    Args:
        arms: AP by seed of every arm.
        control: AP by seed of the control.

    Returns:
        A p-value for each arm; NaN for arms that lack a seed of the control, and for all arms if the control has fewer
        than two seeds or only the seeds make a difference.
    """
    whole = [arm for arm in arms if arm.keys() >= control.keys()]
    if not whole or len(control) < 2:
        return [math.nan] * len(arms)
    table = np.array([[arm[seed] for seed in control] for arm in (control, *whole)])  # (arms and control, seeds)
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    free = (len(table) - 1) * (len(control) - 1)
    deviation = math.sqrt(float((left**2).sum()) / free)
    if deviation < ROUNDING / math.sqrt(2):
        return [math.nan] * len(arms)
    t = np.abs(table[1:].mean(1) - table[0].mean()) / (deviation * math.sqrt(2 / len(control)))
    count = len(whole)  # differences to one control have a correlation of a half
    law = stats.multivariate_t(shape=(np.eye(count) + 1) / 2, df=free, seed=0)  # integrated with random points
    values = iter(1 - law.cdf(np.full(count, v), lower_limit=np.full(count, -v), maxpts=POINTS * count) for v in t)
    return [max(0.0, float(next(values))) if arm in whole else math.nan for arm in arms]


def compare(work_dir: Path, order: Sequence[str], rounds: int = 15, seeds: Sequence[int] = ()) -> Comparison:
    """Read all runs of a folder, and measure the cost of the models.

    Args:
        work_dir: Folder of a comparison.
        order: Names of configs, the control first; other configs of the folder follow.
        rounds: Rounds of timing; 0 leaves the speed at NaN.
        seeds: Seeds that the configs of ``order`` should have; those without a run are missing.

    Raises:
        KeyError: The folder has no config of this name.
    """
    configs = recorded_arms(work_dir)
    control, configs = order[0], {name: configs[name] for name in order} | configs
    runs: dict[str, list[RunResult]] = {name: [] for name in configs}
    expected = {Run(name, seed, work_dir / name / f'seed_{seed}') for name in order for seed in seeds}
    declaration = read_declaration(work_dir) or Declaration(control)
    for run in expected.union(recorded_runs(work_dir)):
        runs[run.arm].append(read_run(run, declaration.last))
    size = image_size(configs[control])
    models = {name: build_model(cfg) for name, cfg in configs.items()}
    cfg = configs[control]
    batch, amp = cfg.train_dataloader.get('batch_size', 1), bool(cfg.get('amp'))
    speeds = measure_speed(models, size, rounds, batch, amp)
    finals = {name: final_by_seed(found) for name, found in runs.items()}
    others = {name: final for name, final in finals.items() if name != control}
    chance = dict(zip(others, joint_p(list(others.values()), finals[control])))
    arms = [
        Arm(
            name,
            tuple(sorted(runs[name], key=lambda r: r.run.seed)),
            count_cost(models[name], *size),
            speeds[name],
            config_differences(configs[control], cfg),
            None if name == control else paired_difference(finals[name], finals[control])._replace(p=chance[name]),
        )
        for name, cfg in configs.items()
    ]
    return Comparison(tuple(arms), configs[control], size, declaration, primary_contrast(declaration, finals))
