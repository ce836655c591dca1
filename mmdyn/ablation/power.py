"""Power of a paired comparison: what difference it could have shown, how many pairs a margin needs, equivalence.

All are of Student's t test of paired differences, two-sided, https://en.wikipedia.org/wiki/Power_of_a_test; equivalence
is that of two one-sided tests, https://doi.org/10.1007/BF01068419; several looks at growing data share one level by
Pocock's method, https://doi.org/10.1093/biomet/64.2.191.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, stats

POWER = 0.8
LEVEL = 0.05
MOST_PAIRS = 10_000


def power_of(difference: float, deviation: float, pairs: int, level: float = LEVEL) -> float:
    """Probability that a paired t test shows a true difference.

    Args:
        difference: The true mean difference.
        deviation: Standard deviation of paired differences.
        pairs: Number of pairs, at least 2.
        level: Two-sided level.
    """
    shift = abs(difference) / deviation * math.sqrt(pairs)
    bound = stats.t.ppf(1 - level / 2, pairs - 1) * _estimated_deviations(pairs)
    return float(np.mean(stats.norm.cdf(shift - bound) + stats.norm.cdf(-shift - bound)))


def _estimated_deviations(pairs: int) -> np.ndarray:
    """Equally probable values of an estimated standard deviation, relative to the true one.

    SciPy's noncentral t would do without them, but has no value for few pairs and large differences.
    """
    quantiles = (np.arange(2000) + 0.5) / 2000
    return np.sqrt(stats.chi2.ppf(quantiles, pairs - 1) / (pairs - 1))


def smallest_difference(deviation: float, pairs: int, power: float = POWER, level: float = LEVEL) -> float:
    """The smallest true difference that a paired t test shows with a probability; NaN for fewer than two pairs.

    Args:
        deviation: Standard deviation of paired differences.
        pairs: Number of pairs.
        power: The probability.
        level: Two-sided level.

    Example:
        >>> round(smallest_difference(0.0188, 3), 3)
        0.061
    """
    if pairs < 2 or not deviation > 0:
        return math.nan
    high = 0.1
    while power_of(high, 1.0, pairs, level) < power:
        high *= 2
    effect = optimize.brentq(lambda d: power_of(d, 1.0, pairs, level) - power, high / 2, high)
    return float(effect) * deviation


def pairs_for(margin: float, deviation: float, power: float = POWER, level: float = LEVEL) -> float:
    """The fewest pairs with which a paired t test shows a difference of ``margin`` with a probability.

    Args:
        margin: The true difference.
        deviation: Standard deviation of paired differences.
        power: The probability.
        level: Two-sided level.

    Example:
        >>> pairs_for(0.01, 0.0188), pairs_for(0.02, 0.0188)
        (30, 10)
    """
    return _fewest(lambda pairs: power_of(margin, deviation, pairs, level) >= power)


def pairs_for_equivalence(margin: float, deviation: float, power: float = POWER, level: float = LEVEL) -> float:
    """The fewest pairs with which two arms that do not differ are shown to be within ``margin`` of each other.

    Args:
        margin: Largest difference that does not matter.
        deviation: Standard deviation of paired differences.
        power: The probability.
        level: Level of each one-sided test.
    """

    def enough(pairs: int) -> bool:
        # both one-sided tests reject where |mean| < margin - t * error: integrate over the estimated deviation
        error = deviation / math.sqrt(pairs)
        bound = stats.t.ppf(1 - level, pairs - 1) * _estimated_deviations(pairs)
        room = np.maximum(margin / error - bound, 0)
        return float(np.mean(2 * stats.norm.cdf(room) - 1)) >= power

    return _fewest(enough)


def _fewest(enough: Callable[[int], bool]) -> float:
    """The smallest number of pairs, at least 2, that is enough; infinity beyond :data:`MOST_PAIRS`."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_PAIRS:
            return math.inf
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def paired_p(mean: float, deviation: float, pairs: int) -> float:
    """The two-sided p-value of a paired t test that the true difference is zero; NaN for fewer than two pairs.

    Args:
        mean: Mean difference.
        deviation: Standard deviation of the differences.
        pairs: Number of pairs.
    """
    return 2 * float(stats.t.sf(abs(mean) / deviation * math.sqrt(pairs), pairs - 1)) if pairs > 1 else math.nan


def equivalence_p(mean: float, deviation: float, pairs: int, margin: float) -> float:
    """The p-value of two one-sided tests that the true difference is within a margin; NaN for fewer than two pairs.

    Args:
        mean: Mean difference.
        deviation: Standard deviation of the differences.
        pairs: Number of pairs.
        margin: Largest difference that does not matter.

    Example:
        >>> equivalence_p(0.001, 0.002, 4, 0.01) < 0.01
        True
    """
    if pairs < 2:
        return math.nan
    return float(stats.t.sf((margin - abs(mean)) / deviation * math.sqrt(pairs), pairs - 1))


def level_of_each(looks: Sequence[int], level: float = LEVEL) -> float:
    """The two-sided level of each of several looks at growing data, so that all together have ``level``.

    Args:
        looks: Number of pairs at every look, growing.
        level: Of all looks together.

    Example:
        >>> round(level_of_each([6, 12]), 4)
        0.0294
    """
    if len(looks) < 2:
        return level
    counts = np.array(looks, dtype=float)
    together = np.sqrt(np.minimum.outer(counts, counts) / np.maximum.outer(counts, counts))  # correlations
    law = stats.multivariate_normal(cov=together, seed=0)

    def excess(bound: float) -> float:
        inside = law.cdf(np.full(len(counts), bound), lower_limit=np.full(len(counts), -bound))
        return float(inside) - (1 - level)

    bound = optimize.brentq(excess, stats.norm.ppf(1 - level / 2), 6.0)
    return float(2 * stats.norm.sf(bound))
