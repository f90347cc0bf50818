"""What a model file declares is held against what it stores, and against memory, before any of it is made.

A file of 17 kB can name a layer of 15,000 units or a tensor of 10**8 rows. What the configuration alone tells is looked
at without Keras; the rest while Keras builds the model, by every variable and symbolic tensor that it makes.
"""

import contextlib
import inspect
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

from signatures.errors import LoadError
from signatures.ports import show

MAX_MEMORY = 8.0  # GB
UNSTORED = 4 << 20
"""Bytes of variables that a file needn't store: seeds, counters, states."""
TIMES_STORED = 4
"""How far variables may be larger than what is stored of them: of another type, or made twice."""
STEPS = 200
"""What an open axis is taken for: at least so many time steps are run later."""
MAX_TENSORS = 20_000
"""Symbolic tensors that Keras may make to build a model, some five seconds' worth."""
MAX_SEQUENCE = 200
"""Layers of a Sequential: Keras makes a tensor for each layer before it, each time it adds one from a file."""

Options = dict[str, Any]


def _number(options: Options, key: str) -> int:
    """Return an option as a number; what is no number of at least 1 counts as 1."""
    value = options.get(key, 1)
    return value if isinstance(value, int) and value >= 1 else 1


def _kernel(options: Options) -> int:
    """Return how many places a convolution's kernel has."""
    size = options.get("kernel_size", 1)
    return math.prod(n for n in (size if isinstance(size, list) else [size]) if isinstance(n, int) and n >= 1)


def _gated(gates: int) -> Callable[[Options], int]:
    return lambda options: gates * _number(options, "units") ** 2


# Layer -> how many weights it has at the very least, from its own options alone.
LEAST: dict[str, Callable[[Options], int]] = {
    "Dense": lambda options: _number(options, "units"),
    "Embedding": lambda options: _number(options, "input_dim") * _number(options, "output_dim"),
    "MultiHeadAttention": lambda options: _number(options, "num_heads") * _number(options, "key_dim"),
    "GroupQueryAttention": lambda options: _number(options, "num_query_heads") * _number(options, "head_dim"),
    **{f"{kind}{suffix}": _gated(4) for kind in ("LSTM", "CuDNNLSTM") for suffix in ("", "Cell")},
    **{f"{kind}{suffix}": _gated(3) for kind in ("GRU", "CuDNNGRU") for suffix in ("", "Cell")},
    **{f"SimpleRNN{suffix}": _gated(1) for suffix in ("", "Cell")},
    **{
        f"Conv{n}D{suffix}": lambda options: _number(options, "filters") * _kernel(options)
        for suffix in ("", "Transpose")
        for n in (1, 2, 3)
    },
    **{f"SeparableConv{n}D": lambda options: _kernel(options) + _number(options, "filters") for n in (1, 2)},
    **{f"DepthwiseConv{n}D": lambda options: _kernel(options) * _number(options, "depth_multiplier") for n in (1, 2)},
    **{f"ConvLSTM{n}D": lambda options: 4 * _number(options, "filters") ** 2 * _kernel(options) for n in (1, 2, 3)},
}


def check_declared(entries: Iterator[tuple[Options, str]], stored: int) -> None:
    """Refuse a configuration whose layers can't have their weights in the file; Keras is not needed for it.

    Args:
        entries: Every dict of the configuration, with the layer it belongs to.
        stored: Bytes of all arrays in the file.

    Raises:
        LoadError: Naming the first layer that goes beyond, or a Sequential that Keras can't load in reasonable time.
    """
    declared = 0
    for entry, layer in entries:
        name, options = entry.get("class_name"), entry.get("config")
        layers = options.get("layers", ()) if isinstance(options, dict) else options  # a list in very old files
        if name == "Sequential" and isinstance(layers, list) and len(layers) > MAX_SEQUENCE:
            raise LoadError(
                f"{layer}: a Sequential of {len(layers):,} layers; at most {MAX_SEQUENCE} are accepted, as Keras takes "
                "the square of their number to load. Build it as a functional model."
            )
        if isinstance(name, str) and name in LEAST and isinstance(options, dict):
            declared += LEAST[name](options)
            if declared > 2 * stored + UNSTORED // 4:  # 4-bit weights are two in a byte
                raise LoadError(f"{layer} ({name}): {_beyond(declared, 'weights or more', stored)}")


def _beyond(declared: int, of_what: str, stored: int) -> str:
    return (
        f"with it the model declares {declared:,} {of_what}, but the file stores {stored:,} bytes. "
        "It is damaged, or made to exhaust memory; save the model again with model.save."
    )


_HOOKS = threading.Lock()
"""Held while Keras' classes count what they make: two threads that load would take back each other's."""


@contextlib.contextmanager
def held_to(keras: Any, stored: int, max_memory: float) -> Iterator[None]:
    """Refuse variables and symbolic tensors that Keras makes inside and that go beyond, before they are made.

    Args:
        keras: The module.
        stored: Bytes of all arrays in the file, which the variables must not exceed by far.
        max_memory: GB that all variables together, or one tensor, may take.

    Raises:
        LoadError: With the layer, and what it declares.
    """
    from ..inside import Private, read, replaced

    most, declared, tensors = int(max_memory * 1e9), 0, 0
    found: list[str] = []
    make_variable, make_tensor = keras.Variable.__init__, keras.KerasTensor.__init__
    make_states = read(keras.layers.RNN, Private.STATE_VARIABLES)

    def note(what: str) -> None:
        if not found:  # the first is told
            found.append(f"{_layer_at_work(keras)}: {what}")

    def variable(self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **options: Any) -> None:
        nonlocal declared
        if callable(initializer) or isinstance(initializer, str):
            declared += _bytes(keras, shape, dtype)
            if declared > TIMES_STORED * stored + UNSTORED:
                note(_beyond(declared, "bytes of weights", stored))
            elif declared > most:
                note(f"with it the weights take {_over(declared, max_memory)}")
        if found:
            raise ValueError(found[0])
        make_variable(self, initializer, shape, dtype, *args, **options)

    def tensor(self: Any, shape: Any, dtype: Any = "float32", *args: Any, **options: Any) -> None:
        nonlocal tensors
        tensors += 1
        if tensors > MAX_TENSORS:
            note(
                f"to build the model takes Keras over {MAX_TENSORS:,} tensors. "
                "Build it in your program and pass it from there: exporter.export(model, ...)."
            )
        if (size := _bytes(keras, shape, dtype)) > most:
            sizes = show(tuple("any" if n is None else n for n in shape))
            note(f"a tensor {sizes} takes {_over(size, max_memory)}")
        if found:
            raise ValueError(found[0])
        make_tensor(self, shape, dtype, *args, **options)

    def states(self: Any, batch_size: int) -> None:
        """Count what a stateful layer keeps: Keras makes zeros of it before it makes the variables."""
        nonlocal declared
        sizes = [size for size in keras.tree.flatten(self.state_size) if isinstance(size, int) and size > 0]
        declared += batch_size * sum(sizes) * max(1, _bits(keras, self.dtype) // 8)
        if declared > most:
            note(f"with its states the weights take {_over(declared, max_memory)}")
            raise ValueError(found[0])
        make_states(self, batch_size)

    try:
        with (
            _HOOKS,
            replaced(keras.Variable, {"__init__": variable}),
            replaced(keras.KerasTensor, {"__init__": tensor}),
            replaced(keras.layers.RNN, {Private.STATE_VARIABLES: states}),
        ):
            yield
    except Exception:
        if not found:
            raise
    if found:  # even where Keras went on without it
        raise LoadError(found[0])


def run_shapes(keras: Any, model: Any) -> None:
    """Let a model work out every tensor's shape for one sample of STEPS time steps, without computing anything."""
    sized = [
        keras.KerasTensor([1 if axis == 0 else STEPS if n is None else n for axis, n in enumerate(x.shape)], x.dtype)
        for x in getattr(model, "inputs", None) or ()
    ]
    if not sized:
        return
    feeds = sized[0] if len(sized) == 1 else keras.tree.pack_sequence_as(model.input, sized)
    with contextlib.suppress(ValueError, TypeError):  # it need not run with these sizes; what goes beyond is noted
        model.compute_output_spec(feeds)
    for layer in _attentions(model):
        # One that a model of somebody's own calls has no symbolic input; others need not run with these sizes.
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            query, value = [x.shape[1] for x in keras.tree.flatten(layer.input)[:2]]
            heads = getattr(layer, "num_heads", getattr(layer, "num_query_heads", 1))
            keras.KerasTensor([heads, query, value], layer.compute_dtype)  # of every step with every other


def _attentions(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, and of models in it, that compare every time step with every other."""
    for layer in model.layers:
        if type(layer).__name__.endswith("Attention"):
            yield layer
        if hasattr(layer, "layers"):
            yield from _attentions(layer)


def _bytes(keras: Any, shape: Any, dtype: Any) -> int:
    """Return what an array takes, an open axis counted as one."""
    sizes = [n for n in (shape if isinstance(shape, (tuple, list)) else [shape]) if isinstance(n, int)]
    return math.prod(sizes) * max(1, _bits(keras, dtype) // 8)


def _bits(keras: Any, dtype: Any) -> int:
    digits = "".join(filter(str.isdigit, str(keras.backend.standardize_dtype(dtype))))
    return int(digits[:2] or 8)


def _layer_at_work(keras: Any) -> str:
    """Return the innermost layer that is being built or called, as messages name it."""
    frame = inspect.currentframe()
    while frame is not None:
        layer = frame.f_locals.get("self")
        if isinstance(layer, keras.Operation):
            return f"layer {layer.name!r} ({type(layer).__name__})"
        frame = frame.f_back
    return "the model"


def _over(size: int, max_memory: float) -> str:
    return f"{size / 1e9:,.1f} GB; at most {max_memory:g} are given to it. If that is meant, raise --max-memory."
