"""Bars as SVG: lengths are shares of the longest of their group, and what is written is escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from benchmarks.picture import LABEL, OTHERS, OURS, VALUE, WIDTH, Bar, Group, bars_svg


def test_lengths_are_shares_of_the_longest_of_the_group():
    groups = [
        Group("one", [Bar("peer", 4.0, "4", ours=False), Bar("ours", 1.0, "1", ours=True)]),
        Group("two", [Bar("ours", 9.0, "9", ours=True)]),
    ]
    drawn = bars_svg("all", groups)
    room = WIDTH - LABEL - VALUE
    assert [float(width) for width in re.findall(r'width="([\d.]+)" height', drawn)] == [room, room / 4, room]
    assert re.findall(r'fill="(#\w+)"/', drawn) == [OTHERS, OURS, OURS]


def test_it_is_xml_whatever_is_written():
    drawn = bars_svg('<&"', [Group("<b>", [Bar("a&b", 0.0, "<1", ours=False)]), Group("none", [])])
    root = ElementTree.fromstring(drawn)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ['<&"', "<b>", "a&b", "<1", "none"]
