"""Tests of prompt_tuning/planning/chips.py."""

import pytest

from prompt_tuning.planning import chips


def test_the_table_by_hand():
    found = {
        chip.name: (chip.usable_gib, chip.devices, chip.tflops, chip.bandwidth)
        for chip in chips.CHIPS.values()
    }
    assert found == {
        "v4": (30.75, 1, 275, 1200),
        "v5e": (15.75, 1, 197, 819),
        "v5p": (95.73, 1, 459, 2765),
        "v6e": (31.24, 1, 918, 1638),
        "tpu7x": (94.74, 2, 2307, 7380),
    }


@pytest.mark.parametrize(
    ("name", "count", "devices"),
    [("v5e:1x1", 1, 1), ("v5e:16x16", 256, 256), ("v4:2x2x4", 16, 16), ("tpu7x:2x2x4", 16, 32)],
)
def test_chips_and_devices_of_a_slice(name, count, devices):
    found = chips.find(name)
    assert (found.name, found.chips, found.devices) == (name, count, devices)


@pytest.mark.parametrize("name", ["v7x:2x2x1", "v5e", "v5litepod:4x4", ""])
def test_an_unknown_chip_lists_the_known_slices(name):
    with pytest.raises(ValueError, match=f"^Unknown TPU slice '{name}'. Known: v4:1x1x1, .*; v5e"):
        chips.find(name)


def test_an_unknown_slice_lists_those_of_the_chip():
    with pytest.raises(ValueError, match="^v5e has no slice '3x3'. Known: v5e:1x1, v5e:2x2, .*"):
        chips.find("v5e:3x3")


def test_the_source_is_the_page_of_the_chip():
    assert chips.CHIPS["v6e"].source == "docs.cloud.google.com/tpu/docs/v6e"
