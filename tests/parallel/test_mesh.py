import json
import os
import subprocess
import sys

import jax
import pytest
from jax.sharding import AxisType

from prompt_tuning import config
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.parallel import mesh

TINY = T5Config(
    name="tiny",
    vocab_size=96,
    emb_dim=8,
    num_heads=6,
    head_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
)
EIGHT = """
import json
from prompt_tuning.parallel import mesh
made = [mesh.make({"data": data, "model": 8 // data}) for data in (8, 4, 2, 1)]
print(json.dumps([[[device.id for device in row] for row in one.devices] for one in made]))
"""


def test_devices_that_share_a_model_are_neighbours():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT], capture_output=True, text=True, env=os.environ | flags
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        [[0], [1], [2], [3], [4], [5], [6], [7]],
        [[0, 1], [2, 3], [4, 5], [6, 7]],
        [[0, 1, 2, 3], [4, 5, 6, 7]],
        [[0, 1, 2, 3, 4, 5, 6, 7]],
    ]


def test_axes_are_automatic():
    made = mesh.make({"model": 1, "data": 1}, jax.devices()[:1])
    assert (made.axis_names, made.axis_types) == (("data", "model"), (AxisType.Auto,) * 2)


def test_devices_of_a_topology():
    """Without hardware; where libtpu is installed."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc("v5e:2x4", platform="tpu").devices
    made = mesh.make({"data": 4, "model": 2}, devices)
    assert dict(made.shape) == {"data": 4, "model": 2}
    assert {device.id for device in made.devices.flat} == set(range(8))


@pytest.mark.parametrize(
    "axes", [None, (4, 2), {"data": 4}, {"data": 4, "model": 0}, {"data": 4, "model": True}]
)
def test_what_is_not_a_pair_of_axes_is_refused(axes):
    expected = r"^MESH must be the devices of both axes, such as \{'data': 4, 'model': 2\}; got "
    with pytest.raises(ValueError, match=expected):
        mesh.check(axes, TINY, devices=8)


def test_the_product_is_the_number_of_devices():
    expected = r"^MESH \{'data': 4, 'model': 4\} needs 16 devices, and there are 8; choose sizes "
    with pytest.raises(ValueError, match=expected + "whose product is 8, or None.$"):
        mesh.check({"data": 4, "model": 4}, TINY, devices=8)
    with pytest.raises(ValueError, match="needs 2 devices, and there are 1"):
        mesh.make({"data": 1, "model": 2}, jax.devices()[:1])


def test_the_model_axis_divides_the_model():
    mesh.check({"data": 4, "model": 2}, TINY, devices=8)
    expected = (
        r"^MESH splits tiny over 4 devices, and 4 does not divide its num_heads=6; with 8 devices "
        r"'model' may be 1, 2.$"
    )
    with pytest.raises(ValueError, match=expected):
        mesh.check({"data": 2, "model": 4}, TINY, devices=8)
    with pytest.raises(ValueError, match="num_heads=6 and mlp_dim=16 and vocab_size=96;"):
        mesh.check({"data": 1, "model": 5}, TINY, devices=5)


def test_the_data_axis_divides_the_batch():
    mesh.check({"data": 4, "model": 2}, TINY, devices=8, batch_size=12)
    expected = (
        "^MESH splits the rows of a batch over 4 devices, and 4 does not divide BATCH_SIZE, 30; "
        "change one of them.$"
    )
    with pytest.raises(ValueError, match=expected):
        mesh.check({"data": 4, "model": 2}, TINY, devices=8, batch_size=30)


def test_all_devices_are_on_data_by_default():
    assert mesh.choose(TINY, devices=8) == {"data": 8, "model": 1}


def test_the_model_is_split_as_little_as_memory_allows():
    model = config.read_model("t5_1_1_xxl")  # 22.3 GB in bfloat16

    def choose(gigabytes, **changes):
        options = {"devices": 16, "dtype": "bfloat16", "memory_bytes": int(gigabytes * 1e9)}
        return mesh.choose(model, **options | changes)

    assert choose(95) == {"data": 16, "model": 1}
    assert choose(31) == {"data": 8, "model": 2}  # 11.1 GB of at most 18.6
    assert choose(16) == {"data": 4, "model": 4}  # 5.6 GB of at most 9.6
    assert choose(31, dtype="float32") == {"data": 4, "model": 4}
    assert choose(31, dtype="int8") == {"data": 16, "model": 1}
    with pytest.raises(ValueError, match=r"t5_1_1_xxl in bfloat16 takes 1.4 GB on each device"):
        choose(2)


def test_the_batch_decides_where_it_must():
    assert mesh.choose(TINY, devices=8, batch_size=12) == {"data": 4, "model": 2}
    expected = "^BATCH_SIZE 6 cannot be split over 8 devices: 'model' may be 1, 2 for tiny, and "
    with pytest.raises(ValueError, match=expected):
        mesh.choose(TINY, devices=8, batch_size=6)
