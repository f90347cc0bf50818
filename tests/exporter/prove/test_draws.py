"""Each kind of random inputs is what its name says, the same every time, and silent where the normal ones are."""

import numpy as np
import pytest

from exporter.prove.draws import KINDS, drawn
from signatures import Port, Signature
from signatures.feeds import random_feeds

PORTS = (
    Port("x", "input", ("batch", "time", 5), time_axis=1),
    Port("who", "input", ("batch", 2)),
    Port("word", "input", ("batch", "time"), "int32", below=9, time_axis=1),
    Port("lengths", "lengths", ("batch",), "int32"),
    Port("h_in", "state", ("batch", 4)),
)
SIGNATURE = Signature("sequence", PORTS, (), ())
DIMS = {"batch": 6, "time": 30}
NAMED = {kind.name: kind for kind in KINDS}


def feeds_of(name):
    return drawn(SIGNATURE, DIMS, 7, (NAMED[name],))


def silent(feeds):
    return (feeds["x"] == 0).all(axis=-1)


def test_normal_ones_are_what_was_always_drawn():
    always = random_feeds(PORTS, DIMS, np.random.default_rng(7))
    assert all(np.array_equal(value, always[name]) for name, value in feeds_of("normal").items())
    assert silent(always).any()


@pytest.mark.parametrize("name", NAMED)
def test_every_kind_fits_its_ports_and_is_silent_where_normal_ones_are(name):
    feeds, normal = feeds_of(name), feeds_of("normal")
    for port in PORTS:
        assert (feeds[port.name].shape, feeds[port.name].dtype) == (port.sized(DIMS), port.dtype)
        assert np.isfinite(feeds[port.name]).all()
    assert 0 <= feeds["word"].min() <= feeds["word"].max() < 9
    assert np.array_equal(feeds["lengths"], normal["lengths"])
    if name != "positive":
        assert np.array_equal(silent(feeds), silent(normal))
    assert np.ptp(feeds["h_in"]) > 0
    rows = [feeds["x"][k] for k in range(6)]
    assert not any(np.array_equal(rows[0], other) for other in rows[1:])


def test_kinds_are_what_their_names_say():
    loud = ~silent(feeds_of("normal"))
    assert feeds_of("positive")["x"].min() >= 1
    assert np.abs(feeds_of("bounded")["x"]).max() < 1
    hot = feeds_of("one-hot")["x"][loud]
    assert set(hot.ravel()) == {0, 1}
    assert (hot.sum(axis=-1) == 1).all()
    shares = feeds_of("shares of one")["x"][loud]
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-6)
    assert feeds_of("non-negative")["x"].min() >= 0
    spread = {name: feeds_of(name)["x"].std() for name in ("tiny", "small", "normal", "large")}
    assert list(spread.values()) == sorted(spread.values())
    assert (feeds_of("smooth")["word"] == feeds_of("smooth")["word"][:, :1]).all()


def test_smooth_ones_change_slowly():
    quiet = silent(feeds_of("normal"))
    both = ~(quiet[:, 1:] | quiet[:, :-1])
    steps = {name: np.abs(np.diff(feeds_of(name)["x"], axis=1))[both].mean() for name in ("smooth", "bounded")}
    assert steps["smooth"] < 0.3 * steps["bounded"]
