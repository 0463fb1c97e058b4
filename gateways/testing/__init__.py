"""What gateways is tested with, for others to use.

- `pair`: a client end and a server end joined in memory, cut as the test says.
- `strategies`: Hypothesis strategies, well-formed and broken; needs `gateways[testing]`.
"""

from __future__ import annotations

from gateways.testing.pair import (
    Pair,
    Pieces,
    bytewise,
    content_of,
    deliver,
    expanded,
    merged,
    taken_whole,
    whole,
)

__all__ = [
    "Pair",
    "Pieces",
    "bytewise",
    "content_of",
    "deliver",
    "expanded",
    "merged",
    "taken_whole",
    "whole",
]
