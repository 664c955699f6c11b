"""Peaks are of this process, since a moment."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.growth import ROOT

GROW = """
from benchmarks.memory import Memory
memory = Memory()
before = memory.grown_mb()
held = bytearray(64 * 2**20)
del held
print(before, memory.grown_mb())
"""


def test_a_peak_is_seen_after_it_is_over_and_is_not_the_parents():
    ballast = bytearray(b"x" * 2**28)
    done = subprocess.run([sys.executable, "-c", GROW], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before < 16 < 60 < after < 128
    assert len(ballast) == 2**28
