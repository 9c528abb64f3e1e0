"""Every format into every other, bit for bit, and what differs between two checkpoints."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import t5x_tiny

from prompt_tuning.checkpoints import checkpoint, convert, t5x_native
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts.prompt import PROMPT_PATH

MODEL = dataclasses.replace(t5x_tiny.CONFIG, name="tiny")


@pytest.fixture(scope="module")
def sources(parity, tmp_path_factory):
    """The same parameters in each format, T5X's as T5X itself wrote them."""
    tiny = parity / "t5x_tiny"
    folder = tmp_path_factory.mktemp("hf") / "hf"
    native = str(tiny / "native" / "checkpoint_3")
    hf = convert.convert(native, str(folder), "hf", model=MODEL)
    return {"t5x": native, "orbax": str(tiny / "orbax" / "checkpoint_3"), "hf": hf}


@pytest.fixture(scope="module")
def expected():
    return t5x_tiny.parameters()


@pytest.mark.parametrize("source", convert.FORMATS)
@pytest.mark.parametrize("target", convert.FORMATS)
def test_all_directions_bit_for_bit(source, target, sources, expected, tmp_path):
    model = MODEL if target == "hf" else None
    place = str(tmp_path / "new")
    written = convert.convert(sources[source], place, target, model=model)
    step = 0 if source == "hf" else 3
    assert written == (place if target == "hf" else f"{place}/checkpoint_{step}")
    found = checkpoint.leaves(written)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        read = found[path].read()
        assert read.dtype == np.float32
        assert read.tobytes() == array.tobytes(), path
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("target", convert.FORMATS)
def test_bfloat16_stays_bfloat16(target, expected, tmp_path):
    small = {path: array.astype(ml_dtypes.bfloat16) for path, array in expected.items()}
    source = t5x_native.write(tmp_path / "a", small, 1)
    written = convert.convert(source, str(tmp_path / "b"), target, model=MODEL)
    for path, leaf in checkpoint.leaves(written).items():
        assert leaf.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(leaf.read(), small[path])


@pytest.mark.parametrize("target", ["t5x", "orbax"])
def test_where_a_step_comes_from(target, tmp_path):
    source = t5x_native.write(tmp_path / "a", {"x": np.ones(2, np.float32)}, 7)

    def written(place, **settings):
        path = convert.convert(source, str(tmp_path / place), target, **settings)
        return path.removeprefix(f"{tmp_path}/")

    assert written("b") == "b/checkpoint_7"
    assert written("b", step=9) == "b/checkpoint_9"
    assert written("b/checkpoint_20/") == "b/checkpoint_20"
    with pytest.raises(ValueError, match="names step 30, but step 9 was asked for"):
        written("b/checkpoint_30", step=9)
    with pytest.raises(ValueError, match="checkpoint_9' exists already"):
        written("b", step=9)


def test_the_model_is_found_by_its_shapes(sources, tmp_path):
    other = T5Config(**{**vars(MODEL), "name": "other", "mlp_dim": 65})
    twin = T5Config(**{**vars(MODEL), "name": "twin"})
    silu = T5Config(**{**vars(MODEL), "name": "silu", "mlp_activations": ("silu", "linear")})

    def written(name, *known, **settings):
        place = str(tmp_path / name)
        return convert.convert(sources["t5x"], place, "hf", known_models=known, **settings)

    found = checkpoint.hugging_face_model(written("a", other, MODEL, twin))
    assert found.mlp_activations == ("gelu", "linear")
    found = checkpoint.hugging_face_model(written("b", other, MODEL, model=silu))
    assert found.mlp_activations == ("silu", "linear")
    with pytest.raises(ValueError, match=r"several models have its shapes \(tiny, silu\)\. Name"):
        written("c", MODEL, silu)
    with pytest.raises(ValueError, match="no known model has them. Name the model with --model"):
        written("c", other)


def test_a_hugging_face_source_says_what_it_is(sources, tmp_path):
    found = checkpoint.hugging_face_model(convert.convert(sources["hf"], str(tmp_path / "a"), "hf"))
    assert found == T5Config(**{**vars(MODEL), "name": "t5"})
    silu = T5Config(**{**vars(MODEL), "name": "silu", "mlp_activations": ("silu", "linear")})
    with pytest.raises(ValueError, match="another model than silu: mlp_activations"):
        convert.convert(sources["hf"], str(tmp_path / "b"), "hf", model=silu)


def test_a_prompt_has_no_place_in_hugging_face(sources, tmp_path):
    prompt = np.ones((5, 32), np.float32)
    prompted = checkpoint.recreate(sources["t5x"], prompt, tmp_path / "prompted", 4)
    place = str(tmp_path / "hf")
    with pytest.raises(ValueError, match=f"{PROMPT_PATH}.*has no place. Pass --drop_prompt"):
        convert.convert(prompted, place, "hf", model=MODEL)
    written = convert.convert(prompted, place, "hf", model=MODEL, drop_prompt=True)
    assert not convert.compare(written, sources["t5x"]).different
    kept = convert.convert(prompted, str(tmp_path / "orbax"), "orbax")
    np.testing.assert_array_equal(checkpoint.read_variable(kept, PROMPT_PATH), prompt)
    with pytest.raises(ValueError, match="holds no prompt to drop"):
        convert.convert(sources["t5x"], place, "hf", drop_prompt=True)


def test_other_formats_and_places_are_refused(sources):
    with pytest.raises(ValueError, match="must be one of t5x, orbax, hf; got 'torch'"):
        convert.convert(sources["t5x"], "x", "torch")
    with pytest.raises(ValueError, match="has to be in a local folder, got 'gs://bucket/x'"):
        convert.convert(sources["t5x"], "gs://bucket/x", "t5x")


def test_one_parameter_is_in_memory_at_a_time(monkeypatch, sources, tmp_path):
    """Every leaf that is read has been written before the next one is."""
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def counted(leaf):
        def read():
            nonlocal alive, most
            array = leaf.read().view(Counted)
            alive += 1
            most = max(most, alive)
            return array

        return Leaf(leaf.shape, leaf.dtype, read)

    found = {path: counted(leaf) for path, leaf in checkpoint.leaves(sources["t5x"]).items()}
    monkeypatch.setattr(checkpoint, "leaves", lambda path: dict(found))
    for kind in convert.FORMATS:
        convert.convert(sources["t5x"], str(tmp_path / kind), kind, model=MODEL)
    # the one that was read, its views, and the one before it until the name is bound again
    assert most <= 4


def write(folder, **arrays):
    return t5x_native.write(folder, {name: np.asarray(a) for name, a in arrays.items()}, 1)


def test_compare_tells_every_kind_of_difference(tmp_path):
    a = write(tmp_path / "a", same=[1.0], value=[1.0, 2.0], shape=[[1.0]], gone=[1.0])
    b = write(tmp_path / "b", same=[1.0], value=[1.0, 2.5], shape=[1.0], new=[1.0], more=[2.0])
    found = convert.compare(a, b)
    assert found == (["gone"], ["more", "new"], {"shape": ((1, 1), (1,))}, {"value": 0.5}, 1)
    assert found.summary == "5 parameters differ, 1 parameters are equal"


def test_compare_looks_at_values_and_not_at_types(tmp_path):
    a = write(tmp_path / "a", x=np.array([1.5, np.nan], np.float32))
    b = write(tmp_path / "b", x=np.array([1.5, np.nan], ml_dtypes.bfloat16))
    assert convert.compare(a, b).summary == "no difference: 1 parameters are equal"


def test_after_prompt_tuning_only_the_prompt_differs(sources, tmp_path):
    one, other = (
        checkpoint.recreate(sources["orbax"], np.full((5, 32), value), tmp_path, step)
        for step, value in enumerate((1.0, 1.25))
    )
    assert convert.compare(one, other).summary == "only the prompt differs: 52 parameters are equal"
    assert convert.compare(one, other).value == {PROMPT_PATH: 0.25}
    found = convert.compare(sources["hf"], other)
    assert found.only_in_b == [PROMPT_PATH]
    assert found.summary == "only the prompt differs: 52 parameters are equal"
