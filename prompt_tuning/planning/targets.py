"""What a plan is made for: a slice of TPUs that is not there, or the devices of this machine.

A TPU's peak and bandwidth are those of `chips.py`. The speed of this machine's devices is measured:
the best of a few large products, and of a copy.
"""

import importlib.metadata
import importlib.util
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.planning import chips
from prompt_tuning.planning.chips import GIB

_PRODUCTS = ((1024, 1024, 1024), (4096, 1024, 2048), (4096, 4096, 4096))
_COPIED = 2**26  # values
_TIMES = 3


class Target(NamedTuple):
    """Devices, and what each has.

    Attributes:
      name: 'v5e:4x4', or the kind of this machine's devices.
      backend: 'tpu', 'gpu' or 'cpu'.
      devices: JAX's.
      chips: that a user pays for.
      usable_bytes: memory of a device that a program may use.
      flops: peak of a device, operations per second.
      bandwidth: of a device's memory, bytes per second.
      source: of the last two.
    """

    name: str
    backend: str
    devices: list[Any]
    chips: int
    usable_bytes: int
    flops: float
    bandwidth: float
    source: str


def tpu(name: str) -> Target:
    """A slice of TPUs, described by libtpu; no TPU is needed.

    Args:
      name: such as 'v5e:4x4', see `chips.find`.

    Raises:
      ValueError: the slice is unknown, or libtpu is missing or does not know it.
    """
    found = chips.find(name)
    chip = found.chip
    return Target(
        found.name,
        "tpu",
        _topology(found),
        found.chips,
        int(chip.usable_gib * GIB),
        chip.tflops * 1e12 / chip.devices,
        chip.bandwidth * 1e9 / chip.devices,
        f"bfloat16 peak {chip.tflops:,} TFLOP/s and {chip.bandwidth:,} GB/s a chip, {chip.source}",
    )


def use_host() -> None:
    """Lets JAX start no accelerator, which a plan for TPUs does not need; call it first."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks no cloud which TPU this is
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no process holds a TPU
    jax.config.update("jax_platforms", "cpu")


def _topology(found: chips.Slice) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"A plan for {found.name} needs the TPU's compiler, libtpu, which is not installed: "
            "pip install '.[plan]' in a clone of this project; it needs no TPU."
        )
    from jax.experimental import topologies

    options = {}
    if found.chip.config is not None:
        options["chip_config_name"] = found.chip.config
    if found.chips == 1:  # libtpu assumes hosts of four chips
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=found.name, **options
        )
    except Exception as error:  # JaxRuntimeError, of several types in several versions
        reason = " ".join(str(error).split())[:200]
        version = importlib.metadata.version("libtpu")
        raise ValueError(
            f"libtpu {version} does not describe {found.name} ({reason}); install 0.0.42 or newer."
        ) from error
    return list(described.devices)


def host(dtype: str = "float32") -> Target:
    """The devices of this machine, whose speed is measured.

    Args:
      dtype: of the products.
    """
    devices = jax.devices()
    first = devices[0]
    limit = (first.memory_stats() or {}).get("bytes_limit")
    if limit is None:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = pages // len(devices)
    flops, bandwidth = _product_rate(dtype), _copy_rate()
    return Target(
        first.device_kind if first.platform != "cpu" else "cpu",
        first.platform,
        devices,
        len(devices),
        int(limit),
        flops,
        bandwidth,
        f"measured on this machine: {flops / 1e12:,.3f} TFLOP/s in {dtype}, "
        f"{bandwidth / 1e9:,.0f} GB/s",
    )


def _product_rate(dtype: str) -> float:
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    rates = []
    for m, k, n in _PRODUCTS[: 3 if jax.default_backend() == "gpu" else 2]:
        a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
        rates.append(2 * m * k * n / _seconds(lambda a=a, b=b: multiply(a, b)))
    return max(rates)


def _copy_rate() -> float:
    values = jnp.ones(_COPIED, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * values.nbytes / _seconds(lambda: add(values))  # reads and writes


def _seconds(call: Any) -> float:
    """The shortest of a few calls, after one that compiles."""
    call().block_until_ready()
    spent = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        call().block_until_ready()
        spent.append(time.perf_counter() - began)
    return min(spent)
