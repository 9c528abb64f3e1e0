"""TPUs by name: how much memory each device has, how fast a chip is, and which slices there are.

A chip of tpu7x is two devices, each with half of the memory and the speed. So is one of v4 to the
compiler unless it is told to join the two ('megacore'), as JAX does on real ones.

The usable memory is what the compiler (libtpu 0.0.42 and 0.0.50) names as the limit when a program
does not fit. Peaks and bandwidths are from Google Cloud's page of each chip,
docs.cloud.google.com/tpu/docs/NAME, read in November 2026.
"""

import math
import re
from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One kind of TPU.

    Attributes:
      usable_gib: memory of a device that a program may use, in GiB.
      devices: of a chip.
      tflops: peak of a chip in bfloat16, 10^12 operations per second.
      bandwidth: of a chip's memory, 10^9 bytes per second.
      slices: the topologies that a plan knows, smallest first.
      config: libtpu's name of how a chip is used, where it is not its default.
    """

    name: str
    usable_gib: float
    devices: int
    tflops: float
    bandwidth: float
    slices: tuple[str, ...]
    config: str | None = None

    @property
    def source(self) -> str:
        """The page that peak and bandwidth are from."""
        return f"docs.cloud.google.com/tpu/docs/{self.name}"


class Slice(NamedTuple):
    """Some chips of one kind, connected as a box; its name is that of libtpu's topology."""

    chip: Chip
    topology: str

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{self.topology}"

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.topology.split("x")))

    @property
    def devices(self) -> int:
        """As the compiler counts them."""
        return self.chips * self.chip.devices


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_BOXES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
_ONE = "1x1x1"

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 30.75, 1, 275, 1200, (_ONE, *_BOXES), "megacore"),
        Chip("v5e", 15.75, 1, 197, 819, _FLAT),
        Chip("v5p", 95.73, 1, 459, 2765, (_ONE, *_BOXES)),
        Chip("v6e", 31.24, 1, 918, 1638, _FLAT),
        Chip("tpu7x", 94.74, 2, 2307, 7380, (_ONE, *_BOXES)),
    )
}


def find(name: str) -> Slice:
    """Finds a slice by the name of its topology.

    Raises:
      ValueError: unknown; the known ones are listed.

    >>> find('tpu7x:2x2x1').chips, find('tpu7x:2x2x1').devices
    (4, 8)
    """
    match = re.fullmatch(r"(\w+):(\w+)", name)
    chip = match and CHIPS.get(match[1])
    if chip is None:
        listed = "; ".join(f"{one.name}:{', '.join(one.slices)}" for one in CHIPS.values())
        raise ValueError(f"Unknown TPU slice {name!r}. Known: {listed}.")
    if match[2] not in chip.slices:
        raise ValueError(
            f"{chip.name} has no slice {match[2]!r}. Known: "
            f"{', '.join(f'{chip.name}:{one}' for one in chip.slices)}."
        )
    return Slice(chip, match[2])
