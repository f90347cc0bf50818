"""The real model: a Keras speaker classifier on real speech, prediction by prediction."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import signatures

EXAMPLE = Path(__file__).parent.parent / "examples" / "japanese_vowels"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", EXAMPLE / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden(demo):
    frames, speaker = demo.recordings()
    return frames, speaker, demo.keras_predictions(frames)


def test_keras_itself_is_right_often_enough(golden):
    frames, speaker, predicted = golden
    assert len(frames) == 370
    assert {len(recording) for recording in frames} <= set(range(7, 30))
    assert np.mean(predicted.argmax(1) == speaker) >= 0.95


@pytest.mark.parametrize("target", ["tflite", "onnx", "savedmodel"])
def test_every_prediction_agrees(target, demo, example, golden):
    frames, _, predicted = golden
    found = demo.predictions(signatures.open(example[target].path), frames)
    np.testing.assert_array_equal(found.argmax(1), predicted.argmax(1))
    np.testing.assert_allclose(found, predicted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("target", ["tflite", "onnx", "savedmodel"])
def test_streaming_ends_at_the_same_prediction(target, demo, example, golden):
    frames, _, predicted = golden
    runner = signatures.open(example[target].path)
    for k in (0, 100, 369):
        np.testing.assert_allclose(demo.streamed(runner, frames[k])[-1], predicted[k], atol=1e-5, rtol=1e-5)


def test_the_files_are_small():
    assert (EXAMPLE / "model.keras").stat().st_size < 500_000
    assert (EXAMPLE / "recordings.npz").stat().st_size < 400_000
