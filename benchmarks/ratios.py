"""The arithmetic: paired ratios and how sure they are.

Two contenders that ran in the same round met the same machine, so each round gives one ratio.  The
figure is the median of the rounds' ratios, and the interval that of the order statistics: for n
rounds the k-th smallest and the k-th largest ratio, with the largest k for which the binomial
distribution leaves 95 %.  It assumes nothing about how the ratios are spread, and a disturbed round
does it no harm.  Fewer than six rounds cannot give 95 %; then it is the range of all, and `sure`
says how much that is worth.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """The median, the two ends of its interval, how sure that is, and the number of rounds."""

    median: float
    low: float
    high: float
    sure: float
    rounds: int


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of two contenders, round by round; ValueError when the rounds do not match.

    One of the two may have taken part in the first of every few rounds only.
    """
    fewer = min(len(ours), len(theirs))
    if not fewer or len(ours) % fewer or len(theirs) % fewer:
        raise ValueError("each round gives one value of each")
    ours, theirs = ours[:: len(ours) // fewer], theirs[:: len(theirs) // fewer]
    return interval([a / b for a, b in zip(ours, theirs, strict=True)])


def interval(values: Sequence[float]) -> Ratio:
    """The median of `values` with its interval."""
    ordered = sorted(values)
    rounds = len(ordered)
    rank, sure = _rank(rounds)
    return Ratio(
        statistics.median(ordered), ordered[rank], ordered[rounds - 1 - rank], sure, rounds
    )


def _rank(rounds: int) -> tuple[int, float]:
    """Which value from each end (from 0) is the interval's, and the chance that it is right."""
    rank, sure = 0, _coverage(rounds, 0)
    while _coverage(rounds, rank + 1) >= CONFIDENCE:
        rank += 1
        sure = _coverage(rounds, rank)
    return rank, sure


def _coverage(rounds: int, rank: int) -> float:
    outside = sum(math.comb(rounds, each) for each in range(rank + 1))
    return max(0.0, 1 - 2 * outside / float(2**rounds))


def note(rounds: int) -> str:
    """What to say below a table of intervals."""
    return f"{rounds} rounds: medians, and intervals that hold with {_rank(rounds)[1]:.0%}"
