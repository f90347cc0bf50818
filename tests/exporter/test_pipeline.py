"""An export as a whole, by Python: what is asked for, and threads."""

import keras
import pytest

from exporter import export


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"batch": True},
        {"time": 2.5},
        {"lowering": "foo"},
        {"signatures": ["foo"]},
        {"signatures": "step"},
        {"attention_cache": 0},
        {"attention_cache": True},
    ],
    ids=str,
)
def test_options_that_no_export_has_are_refused(options, tmp_path, golden_folder):
    with pytest.raises(ValueError, match=next(iter(options))):
        export(golden_folder / "stacked" / "model.keras", "onnx", f"{tmp_path}/", **options)


@pytest.mark.parametrize("to", ["foo", [], None])
def test_targets_that_do_not_exist_are_refused(to, tmp_path):
    with pytest.raises(ValueError, match="give tflite, onnx, savedmodel"):
        export("model.keras", to, f"{tmp_path}/")


def test_two_threads_may_export_one_model(tmp_path, golden_folder):
    from concurrent.futures import ThreadPoolExecutor

    model = keras.saving.load_model(golden_folder / "stacked" / "model.keras")
    before = {layer.name: set(layer.__dict__) for layer in model.layers}
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(export, model, "onnx", tmp_path / f"{k}.onnx") for k in range(2)]
        assert all(run.result()[0].parity.ok for run in runs)
    assert {layer.name: set(layer.__dict__) for layer in model.layers} == before
