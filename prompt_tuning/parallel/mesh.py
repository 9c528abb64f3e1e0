"""The mesh: all devices as a table, rows of a batch over `data` and the model over `model`.

    MESH = {'data': 4, 'model': 2}

              model 0   model 1
    data 0    device 0  device 1      two devices hold one copy of the model
    data 1    device 2  device 3      and compute a quarter of the rows
    data 2    device 4  device 5
    data 3    device 6  device 7

Only what is given is looked at, so devices may be those of a topology without hardware.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from prompt_tuning.model.sizes import T5Config
from prompt_tuning.parallel import memory
from prompt_tuning.parallel.rules import AXES, DATA, MODEL

PARAMETERS_SHARE = 0.6  # of a device's memory, at most; the rest is for activations


def make(axes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the mesh.

    Args:
      axes: devices of each axis, as `check` accepts them.
      devices: those of all processes; None is all that JAX has.

    Raises:
      ValueError: the number of devices is another.
    """
    devices = jax.devices() if devices is None else devices
    _check_count(axes, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh([axes[name] for name in AXES], AXES, types, devices=devices)


def of_devices(
    axes: Mapping[str, int] | None,
    config: T5Config,
    *,
    dtype: str = "float32",
    batch_size: int | None = None,
) -> Mesh | None:
    """The mesh of all devices; None where there is one.

    Args:
      axes: of the run; None chooses, see `choose`.
      config, dtype, batch_size: see `choose`.

    Raises:
      ValueError: see `check` and `choose`.
    """
    count = jax.device_count()
    if axes is None and count > 1:
        axes = choose(
            config,
            devices=count,
            dtype=dtype,
            memory_bytes=(jax.local_devices()[0].memory_stats() or {}).get("bytes_limit"),
            batch_size=batch_size,
        )
    if axes is not None:
        check(axes, config, devices=count, batch_size=batch_size)
    return None if count == 1 else make(axes)


def check(
    axes: Mapping[str, int], config: T5Config, *, devices: int, batch_size: int | None = None
) -> None:
    """Refuses a mesh that does not suit the devices, the model or the batch.

    Args:
      axes: such as {'data': 4, 'model': 2}.
      config: the model.
      devices: how many there are.
      batch_size: of training; None if nothing trains.

    Raises:
      ValueError: one sentence on what does not fit.
    """
    check_axes("MESH", axes)
    _check_count(axes, devices)
    wrong = [f"{name}={size}" for name, size in _split_sizes(config).items() if size % axes[MODEL]]
    if wrong:
        possible = ", ".join(map(str, model_axes(config, devices)))
        raise ValueError(
            f"MESH splits {config.name} over {axes[MODEL]} devices, and {axes[MODEL]} does not "
            f"divide its {' and '.join(wrong)}; with {devices} devices 'model' may be {possible}."
        )
    if batch_size is not None and batch_size % axes[DATA]:
        raise ValueError(
            f"MESH splits the rows of a batch over {axes[DATA]} devices, and {axes[DATA]} does not "
            f"divide BATCH_SIZE, {batch_size}; change one of them."
        )


def check_axes(name: str, axes: Any) -> None:
    """Refuses what is not a pair of axes.

    Raises:
      ValueError: says what came.
    """
    is_pair = isinstance(axes, Mapping) and set(axes) == set(AXES)
    if not is_pair or not all(type(size) is int and size >= 1 for size in axes.values()):
        raise ValueError(
            f"{name} must be the devices of both axes, such as {{'data': 4, 'model': 2}}; got "
            f"{axes!r}."
        )


def choose(
    config: T5Config,
    *,
    devices: int,
    dtype: str = "float32",
    memory_bytes: int | None = None,
    batch_size: int | None = None,
) -> dict[str, int]:
    """All devices on `data`; or, where a device cannot hold the model, the fewest that can.

    Args:
      config, devices, batch_size: see `check`.
      dtype: of the frozen parameters, see `memory.frozen_arrays`.
      memory_bytes: of each device, of which parameters may take `PARAMETERS_SHARE`; None is
        unknown and counts as enough.

    Raises:
      ValueError: no mesh of these devices suits model and batch.

    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> choose(config, devices=8), choose(config, devices=8, memory_bytes=10_000)
    ({'data': 8, 'model': 1}, {'data': 4, 'model': 2})
    """
    room = math.inf if memory_bytes is None else PARAMETERS_SHARE * memory_bytes
    possible = model_axes(config, devices)
    dividing = [m for m in possible if batch_size is None or batch_size % (devices // m) == 0]
    fitting = [m for m in dividing if memory.device_bytes(config, dtype, m) <= room]
    if fitting:
        return {DATA: devices // fitting[0], MODEL: fitting[0]}
    if not dividing:
        raise ValueError(
            f"BATCH_SIZE {batch_size} cannot be split over {devices} devices: 'model' may be "
            f"{', '.join(map(str, possible))} for {config.name}, and no 'data' that is left "
            "divides it; change BATCH_SIZE, set BATCH_TOKENS and MESH, which it is rounded to, or "
            "use fewer devices."
        )
    needed = memory.device_bytes(config, dtype, dividing[-1])
    raise ValueError(
        f"{config.name} in {dtype} takes {needed / 1e9:.1f} GB on each device even when it is "
        f"split over {dividing[-1]}, and {room / 1e9:.1f} GB are for parameters; use more devices, "
        "or set Run.param_dtype='int8'."
    )


def model_axes(config: T5Config, devices: int) -> list[int]:
    """The sizes that `model` may have, smallest first.

    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> model_axes(config, 8)
    [1, 2]
    """
    common = math.gcd(devices, *_split_sizes(config).values())
    return [size for size in range(1, common + 1) if common % size == 0]


def _split_sizes(config: T5Config) -> dict[str, int]:
    """The dimensions that are split over `model`."""
    return {name: getattr(config, name) for name in ("num_heads", "mlp_dim", "vocab_size")}


def _check_count(axes: Mapping[str, int], devices: int) -> None:
    product = math.prod(axes.values())
    if product != devices:
        raise ValueError(
            f"MESH {dict(axes)} needs {product} devices, and there are {devices}; choose sizes "
            f"whose product is {devices}, or None."
        )
