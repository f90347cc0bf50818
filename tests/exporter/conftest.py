"""What these tests share: weights that differ everywhere, and an LSTM written one number at a time."""

import contextlib
import math
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def lstm_by_numbers(x, h, c, kernel, recurrent_kernel, bias, mask=None):
    """Run an LSTM number by number, from the equations alone; the columns of each gate are addressed one by one.

    Masked steps keep the state; the sequences hold the state's h at every step, masked or not.
    """
    x, h, c = (np.array(each, np.float64) for each in (x, h, c))
    batch, total, features = x.shape
    units = h.shape[1]
    sequences = np.zeros((batch, total, units))
    for b in range(batch):
        for t in range(total):
            if mask is None or mask[b][t]:
                before = h[b].copy()
                for u in range(units):
                    i, f, g, o = (
                        float(bias[column])
                        + sum(x[b, t, k] * float(kernel[k, column]) for k in range(features))
                        + sum(before[k] * float(recurrent_kernel[k, column]) for k in range(units))
                        for column in (u, units + u, 2 * units + u, 3 * units + u)
                    )
                    c[b, u] = sigmoid(f) * c[b, u] + sigmoid(i) * math.tanh(g)
                    h[b, u] = sigmoid(o) * math.tanh(c[b, u])
            sequences[b, t] = h[b]
    return sequences, h, c


def in_this_process(function, *arguments, progress=None, **setting):
    """Stand in for child.run: TensorFlow is imported once for all tests, and they can replace parts of the work."""
    with Path(os.devnull).open("w") as sink, contextlib.ExitStack() as stack:
        saved = os.dup(2)
        stack.callback(os.close, saved)
        os.dup2(sink.fileno(), 2)
        stack.callback(os.dup2, saved, 2)
        return function(*arguments, **({} if progress is None else {"progress": progress}))


@pytest.fixture(scope="session")
def without_children():
    """Return a context in which the command line runs in this process what it would run in a child."""

    @contextlib.contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("exporter.child.run", in_this_process)
            yield

    return context


@pytest.fixture(scope="session")
def by_numbers():
    return lstm_by_numbers


@pytest.fixture(scope="session")
def scramble():
    """Give a model weights that differ in every gate, row and column, biases included; return the model."""

    def scrambled(model, seed=0):
        rng = np.random.default_rng(seed)
        model.set_weights([0.6 * rng.standard_normal(w.shape).astype(w.dtype) for w in model.get_weights()])
        return model

    return scrambled
