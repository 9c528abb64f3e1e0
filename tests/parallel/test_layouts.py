"""Eight virtual devices in four layouts compute what one device computes."""

import contextlib
import io
import json
import os
import subprocess
import sys

import layouts
import numpy as np
import pytest
import tiny_runs

NAMES = [
    (case, layouts.name_of(case, mesh)) for case, all_ in layouts.LAYOUTS.items() for mesh in all_
]


@pytest.fixture(scope="module")
def eight(tmp_path_factory, compiled_programs):
    """What every case measured on eight devices, by name, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("eight")
    done = subprocess.run(
        [sys.executable, layouts.__file__, str(folder), str(compiled_programs)],
        capture_output=True,
        text=True,
        env=os.environ
        | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text()), folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, quick):
    """What every case measures on one device, by case."""
    measured = {}

    def measure(case):
        if case not in measured:
            folder = tmp_path_factory.mktemp("alone") / case
            with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
                patch.setattr("prompt_tuning.training.loop.STEPS_BETWEEN_CHECKS", 1)
                measured[case] = layouts.measure(layouts.make_run(folder, case, None))
        return measured[case]

    return measure


@pytest.mark.parametrize(("case", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_layout_computes_what_one_device_computes(case, name, eight, alone):
    found, expected = eight[0][name], alone(case)
    assert len(found["losses"]) == 6
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["gradients"], expected["gradients"], rtol=1e-4)
    for key in ("fingerprint", "metrics", "evaluated", "predictions"):
        assert found[key] == expected[key], key
    for one, other in zip(found["inferred"], expected["inferred"], strict=True):
        assert one["prediction"] == other["prediction"]
        for label, score in one["label_scores"].items():
            assert score == pytest.approx(other["label_scores"][label], abs=1e-4)


def test_the_losses_of_steps_differ_more_than_layouts_may(alone):
    losses = alone("plain")["losses"]
    assert np.abs(np.diff(losses)).min() > 1e-3


def test_what_is_computed_names_the_layout(eight, alone):
    assert "; 4 x 2 devices, data x model; " in eight[0]["plain 4x2"]["computed"]
    assert "2 micro-batches of 4 rows" in eight[0]["by_parts 4x2"]["computed"]
    assert "devices" not in alone("plain")["computed"]


def test_a_run_on_eight_devices_resumes_on_one(eight, alone):
    run = layouts.make_run(eight[1] / "shrinking", "plain", None)
    done = tiny_runs.train(run)
    assert "resuming at step 2" in done.printed
    assert "; 8 x 1 devices, data x model; " in done.printed
    assert "results may differ in the last bits" in done.printed
    last = [line for line in tiny_runs.read_metrics(run.model_dir) if line["split"] == "train"][-1]
    assert last["loss"] == pytest.approx(alone("plain")["losses"][-1], abs=1e-5)
