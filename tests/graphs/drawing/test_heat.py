"""The scale of measured time can be read on every paper."""

from itertools import pairwise

import pytest

from graphs.drawing.heat import DARK, LIGHT, Shade
from graphs.drawing.measured import HEATS


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("shade", LIGHT + DARK)
def test_every_fill_can_be_written_on(shade: Shade):
    assert contrast(shade.fill, shade.ink) >= 4.5


@pytest.mark.parametrize(("shades", "brighter"), [(LIGHT, False), (DARK, True)])
def test_more_time_is_farther_from_the_paper(shades: tuple[Shade, ...], brighter: bool):
    steps = [luminance(shade.fill) for shade in shades]
    assert steps == sorted(steps, reverse=not brighter)
    assert len(set(steps)) == HEATS
    assert all(contrast(one.fill, other.fill) >= 1.15 for one, other in pairwise(shades))
