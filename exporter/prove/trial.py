"""What a quantized artifact is measured by: a stream of recordings, and what the model gives on its way, in float64."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from signatures.contract import Contract
from signatures.ports import Array, Feeds, Signature
from signatures.quality import CALL, HUGE, Quality, compared, trajectory
from signatures.runner import Runner
from signatures.stream import Stream, cut

from ..model.function import Model
from ..read.calibration import Recordings
from .witness import oracle


@dataclass(frozen=True)
class Trial:
    """A stream and what is expected of it.

    Attributes:
        recordings: What it is of.
        feeds: Input port -> [1, T, ...].
        expect: Output port -> what `trajectory` gave of the model, recurrences by their equations in NumPy.
    """

    recordings: Recordings
    feeds: Mapping[str, Array]
    expect: Mapping[str, Array]

    def measured(self, made: Runner, gate: float) -> Quality:
        """Return how good an artifact is."""
        signature = next(iter(made.contract.signatures.values()))
        got = trajectory(made.stream(made.dims.get("batch", 1)), signature, self.feeds, made.dims.get("batch", 1))
        return compared(signature, self.expect, got, gate, signature.time_steps(self.feeds), self.recordings.told)


def trial(model: Model, contract: Contract, recordings: Recordings) -> Trial:
    """Run the model along a stream of recordings; for a contract that can be streamed."""
    signature: Signature = replace(next(iter(contract.signatures.values())), name="sequence", dims={})
    whole = replace(contract, signatures={"sequence": signature})
    call: Callable[[Feeds], dict[str, Array]] = oracle(model, whole)
    feeds = recordings.stream(signature)
    total = signature.time_steps(feeds)
    while True:
        expect = trajectory(Stream(whole, {}, lambda _, feeds: call(feeds)), signature, feeds)
        calm = all(np.abs(value).max(initial=0) < HUGE for value in expect.values() if value.dtype.kind == "f")
        if calm or total <= CALL * signature.every:
            return Trial(recordings, feeds, expect)
        total = max(total // 2 // signature.every, 1) * signature.every  # it runs away: until then it can be compared
        feeds = cut(feeds, signature.inputs, 0, total)
