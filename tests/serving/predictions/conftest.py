"""Archived models whose workers live in the test, on a loop that moves its clock instead of waiting."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "simulation")]
