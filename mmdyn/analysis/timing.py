"""Timing: alternatives interleaved in one process, medians and quartiles."""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

SHORTEST_S = 0.004  # calls are repeated until a timing lasts at least this long


def interleaved(alternatives: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Time alternatives in turn, so that a disturbance of the machine affects all of them.

    Args:
        alternatives: Functions to time, by name.
        repeats: Number of rounds; every alternative is timed once per round.

    Returns:
        By name: ``median``, ``q1`` and ``q3`` of seconds per call.
    """
    counts = {}
    for name, call in alternatives.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, round(SHORTEST_S / max(time.perf_counter() - start, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, call in alternatives.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - start) / counts[name])
    return {name: summary(seconds) for name, seconds in times.items()}


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, _, q3 = quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    return {'median': median(values), 'q1': q1, 'q3': q3}
