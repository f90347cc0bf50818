"""Every private name of Keras' is there in the installed one, and no module but exporter/inside.py uses one."""

import ast
from pathlib import Path

import keras
import pytest
from keras import layers

from exporter import inside
from exporter.inside import Private
from signatures.errors import UnsupportedModel

EXPORTER = Path(inside.__file__).parent
OTHERS = {
    "_exit": "os",
    "_convert_common": "tf2onnx",
    "_func_map": "tf2onnx",
    "_g": "tf2onnx",
    "_nodes_has_single_consumer_node": "tf2onnx",
    "_optimize": "tf2onnx",
    "_create_op_internal": "TensorFlow",
}
"""Private names of other libraries."""


@pytest.fixture(scope="module")
def owners():
    """Name -> what has it."""
    x = keras.Input((None, 3))
    lstm, both = layers.LSTM(2, return_sequences=True), layers.Bidirectional(layers.LSTM(2))
    y = lstm(layers.Masking()(x))
    both(y)
    found = {
        Private.ATTENTION_MASK: layers.GroupQueryAttention(2, 4, 1),
        Private.DTYPE: x,
        Private.FUNCTIONAL: keras.Sequential([x, layers.LSTM(2)]),
        Private.FUSED_GRU: both,
        Private.FUSED_LSTM: both,
        Private.HISTORY: x,
        Private.MASK: y,
        Private.SCORE_MASK: layers.AdditiveAttention(),
        Private.VARIABLE_DTYPE: keras.DTypePolicy("float32"),
        Private.WINDOW: layers.MultiHeadAttention(2, 4),
    }
    return {name: found.get(name, lstm) for name in Private}


@pytest.mark.parametrize("name", Private)
def test_the_installed_keras_has_it(name, owners):
    inside.require(owners[name], [name])


def test_what_is_found_is_what_it_is_said_to_be(owners):
    sequential = owners[Private.FUNCTIONAL]
    assert inside.functional_of(sequential).outputs == sequential.outputs
    assert inside.functional_of(layers.LSTM(2)) is None
    assert inside.source(owners[Private.MASK]) == owners[Private.CALLS].name
    assert list(inside.arguments(owners[Private.CALLS])) == ["sequences", "initial_state", "mask", "training"]
    assert len(inside.calls(owners[Private.CALLS])) == 1
    assert inside.takes_mask(layers.LSTM(2))
    assert not inside.takes_mask(layers.Dense(2))
    assert owners[Private.CALLS].cell in inside.flattened(owners[Private.CALLS])
    policy = inside.policy("float16", "float32")
    assert (policy.compute_dtype, policy.variable_dtype) == ("float16", "float32")


def test_no_other_module_uses_a_private_name_of_another_library():
    elsewhere, here = set(), set()
    for path in EXPORTER.rglob("*.py"):
        tree = list(ast.walk(ast.parse(path.read_text())))
        told = {node.value for node in tree if isinstance(node, ast.Constant)} & {str(name) for name in Private}
        used = {node.attr for node in tree if isinstance(node, ast.Attribute) and not of_our_own(node)}
        private = told | {name for name in used if name.startswith("_") and not name.startswith("__")}
        private |= {node.module for node in tree if isinstance(node, ast.ImportFrom) and of_keras_inside(node)}
        if path.name == "inside.py":
            here |= private
        else:
            elsewhere |= {(path.relative_to(EXPORTER).as_posix(), name) for name in private - set(OTHERS)}
    assert elsewhere == set()
    assert here == {*map(str, Private), "keras.src.models.functional"}


def of_keras_inside(node):
    return (node.module or "").startswith("keras.src")


def of_our_own(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "child")


@pytest.mark.parametrize("target", [layers.LSTM(2), layers.LSTM])
def test_what_is_replaced_is_put_back(target):
    before = {name: getattr(target, name) for name in ("get_config", "inner_loop")}
    own = set(vars(target))
    with inside.replaced(target, {"get_config": 1, "inner_loop": 2}):
        assert (target.get_config, target.inner_loop) == (1, 2)
    assert {name: getattr(target, name) for name in before} == before
    assert set(vars(target)) == own


def test_an_attribute_that_keras_does_not_have_is_not_set_in_silence():
    layer = layers.LSTM(2)
    with (
        pytest.raises(
            UnsupportedModel, match=rf"Keras {keras.__version__} has no LSTM.the_loop, which an export needs"
        ),
        inside.replaced(layer, {"units": 3, "the_loop": None}),
    ):
        pass
    assert layer.units == 2
