"""A fake artifact: a small NumPy LSTM behind a contract, so that the laws can be tried without any runtime.

x [B, T, 3] and, where asked for, speaker [B, 2] and lengths [B] -> one LSTM of 4 units named `memory`
-> scores [B, T, 2] for each time step and label [B, 2] for the last one.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

from signatures import Carry, Case, Contract, Port, Run, Runner, Signature
from signatures.contract import ArtifactInfo

settings.register_profile("tests", deadline=None)  # how long an example takes depends on the machine
settings.load_profile("tests")

FEATURES, UNITS, CLASSES = 3, 4, 2
GATES = "ifgo"

X = Port("x", "input", ("batch", "time", FEATURES), time_axis=1)
SPEAKER = Port("speaker", "input", ("batch", 2))
LENGTHS = Port("lengths", "lengths", ("batch",), "int32")
STATES = tuple(Port(f"memory_{s}_in", "state", ("batch", UNITS)) for s in "hc")
OUTPUTS = (
    Port("scores", "output", ("batch", "time", CLASSES), time_axis=1),
    Port("label", "output", ("batch", CLASSES)),
    Port("memory_sequences", "sequences", ("batch", "time", UNITS), time_axis=1),
    *(Port(f"memory_{s}", "state", ("batch", UNITS)) for s in "hc"),
)
CARRIES = tuple(Carry(f"memory_{s}", f"memory_{s}_in") for s in "hc")

_rng = np.random.default_rng(7)
KERNEL, RECURRENT, BIAS = (
    {gate: _rng.normal(0, 0.8, shape) for gate in GATES} for shape in ((FEATURES, UNITS), (UNITS, UNITS), (UNITS,))
)
HEAD, VOICE = _rng.normal(size=(UNITS, CLASSES)), _rng.normal(size=(2, CLASSES))


def lstm(feeds, dtype=np.float32, gates=GATES):
    """Compute every output port; `gates` other than "ifgo" takes the weights in a wrong order."""
    x, h, c = (feeds[name].astype(dtype) for name in ("x", "memory_h_in", "memory_c_in"))
    lengths = feeds.get("lengths", np.full(len(x), x.shape[1]))
    every_h = []
    for t in range(x.shape[1]):
        i, f, g, o = (
            x[:, t] @ KERNEL[k].astype(dtype) + h @ RECURRENT[k].astype(dtype) + BIAS[k].astype(dtype) for k in gates
        )
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        new_c = f * c + i * np.tanh(g)
        valid = (t < lengths)[:, None]
        h, c = np.where(valid, o * np.tanh(new_c), h), np.where(valid, new_c, c)
        every_h.append(h)
    sequences = np.stack(every_h, axis=1)
    scores = sequences @ HEAD.astype(dtype)
    if "speaker" in feeds:
        scores = scores + (feeds["speaker"].astype(dtype) @ VOICE.astype(dtype))[:, None]
    return {"scores": scores, "label": scores[:, -1], "memory_sequences": sequences, "memory_h": h, "memory_c": c}


def contract_of(*, names=("sequence", "step"), dims=None, speaker=False, lengths=False, no_step=None):
    inputs = (X, *([SPEAKER] if speaker else []), *([LENGTHS] if lengths else []), *STATES)
    common = Signature("sequence", inputs, OUTPUTS, CARRIES)
    made = {n: common if n == "sequence" else replace(common, name=n, dims={"time": 1}) for n in names}
    info = {"tflite": ArtifactInfo("tiny.tflite", dims or {})}
    model, example = {"name": "tiny", "sha256": None}, {"time": 6}
    return Contract(model, ("scores", "label"), made, no_step=no_step, example=example, artifacts=info)


def artifact_of(call=None, contract=None, **options):
    """Return a runner of the fake; `call(signature, feeds)` is the honest one unless given."""
    return Runner(contract or contract_of(**options), "tflite", call or (lambda _, feeds: lstm(feeds)))


def feeds_of(total, rows=3, seed=0, speaker=False, state=True):
    """Return feeds of `total` time steps: rows that differ, h and c that differ and are not zero."""
    rng = np.random.default_rng([seed, total])
    ports = (X, *([SPEAKER] if speaker else []), *(STATES if state else []))
    sizes = {"batch": rows, "time": total}
    return {p.name: rng.normal(size=p.sized(sizes)).astype(np.float32) for p in ports}


def case_of(*totals, rows=3, speaker=False):
    """Return a case whose expectation is the LSTM in float64."""
    runs = []
    for total in totals:
        feeds = feeds_of(total, rows, speaker=speaker)
        expect = {name: value.astype(np.float32) for name, value in lstm(feeds, np.float64).items()}
        runs.append(Run(f"t{total}", feeds, expect))
    return Case("tiny", tuple(runs))


@pytest.fixture(scope="session")
def fake():
    """What this file makes, by name: lstm, contract, artifact, feeds, case."""
    return SimpleNamespace(lstm=lstm, contract=contract_of, artifact=artifact_of, feeds=feeds_of, case=case_of)
