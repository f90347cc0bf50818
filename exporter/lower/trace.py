"""Trace a Keras model with its recurrences lowered: one TensorFlow graph per signature, the weights stored once."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from signatures.errors import ExportLSTMError, UnsupportedModel, one_line
from signatures.ports import Port, Signature

from ..memory.masks import as_layer, reversed_mask
from ..memory.recurrence import Recurrence
from ..model.function import Model
from ..model.survey import Survey
from ..model.swap import LOCK, Call
from . import native
from .lowering import LOWERINGS, run
from .plan import Plan, Plans
from .spelling import Spelling, kept, spelled, whole_convolutions


@dataclass
class Traced:
    """The graphs of one artifact.

    Attributes:
        functions: Signature -> ConcreteFunction from input ports to a dict of output ports.
        module: What holds every variable the graphs read.
        placeholders: Token of an ONNX placeholder op -> the recurrence it stands for.
    """

    functions: dict[str, Any]
    module: tf.Module
    placeholders: dict[bytes, Recurrence] = field(default_factory=dict)


NOT_TAKEN = {
    "Assign": "changes a variable whenever it is called, such as a seed, which is a state without ports",
    "LookupTable": "looks values up in a table, which isn't exported",
}
"""Beginning of a TensorFlow operation's name -> what a layer does with it."""


def trace(
    model: Model,
    survey: Survey,
    signatures: Mapping[str, Signature],
    plans: Plans,
    spellings: Mapping[str, Spelling],
) -> Traced:
    """Trace every signature that `plans` names.

    Args:
        model: The Keras model.
        survey: What it takes, gives and carries.
        signatures: Graph -> its ports, with the dimensions that are fixed in it.
        plans: How each recurrent call of each signature is lowered.
        spellings: TensorFlow operations that are written otherwise.

    Raises:
        UnsupportedModel: When it runs on arrays but not as a graph, or not with these dimensions open; when a layer
            keeps a state of its own or a table.
    """
    traced = Traced({}, tf.Module())

    def compute(made: Call, chosen: Plan) -> tuple[Any, list[Any]]:
        recurrence, x, mask = made.recurrence, made.sequences, made.mask
        x.set_shape([made.states[0].shape[0], *[None] * (len(x.shape) - 1)])  # a port may know what a reshape forgot
        if chosen.lowering != "native":
            w = weights[recurrence.name, LOWERINGS[chosen.lowering].weights]
            with kept("MatMul", "Sigmoid"):  # no 1 x 1 x 1 there; docs/limits.md tells of sigmoids
                return run(chosen, recurrence, x, made.states, mask, made.continues, w)
        sequences, states, token = native.placeholder(x, made.states, mask)
        traced.placeholders[token] = recurrence
        if recurrence.reverse:  # ONNX's own op runs backwards by itself and leaves each output at its step
            sequences, mask = tf.reverse(sequences, [1]), reversed_mask(mask)
        return as_layer(recurrence, sequences, mask, made.continues), states

    def graph(signature: Signature, chosen: Mapping[str, Plan]) -> Any:
        def ports(*tensors: Any) -> dict[str, Any]:
            feeds = dict(zip([port.name for port in signature.inputs], tensors, strict=True))
            with LOCK, spelled(spellings), whole_convolutions():
                ran = model.run(feeds, lambda made: compute(made, chosen[made.name]), lowered=True)
                found = ran.ports(survey.order)
            return {port.name: tf.identity(tf.cast(found[port.name], port.dtype)) for port in signature.outputs}

        specs = [_spec(port, signature.dims) for port in signature.inputs]
        return tf.function(ports, input_signature=specs, autograph=False).get_concrete_function()

    try:
        weights = _weights(model, survey, plans)
        traced.functions = {name: graph(signatures[name], chosen) for name, chosen in plans.items()}
    except ExportLSTMError:
        raise
    except Exception as error:  # a layer raises what it likes when it can't be traced
        raise UnsupportedModel(
            f"model {model.keras.name!r} can't be run as a graph ({one_line(error)}).\n"
            "  If it needs to know a size, give it: --batch N, --time N (batch=N, time=N in Python)."
        ) from error
    graphs = [function.graph for function in traced.functions.values()]
    definitions = [graph.as_graph_def() for graph in graphs]
    inner = [function.node_def for each in definitions for function in each.library.function]
    for node in itertools.chain.from_iterable([*(each.node for each in definitions), *inner]):
        if what := next((what for kind, what in NOT_TAKEN.items() if node.op.startswith(kind)), None):
            raise UnsupportedModel(
                f"a layer {what}: {node.name!r}.\n  Leave that layer out of the model that is exported."
            )
    read = {variable.ref(): variable for graph in graphs for variable in graph.variables}
    traced.module.variables_read = list(read.values())
    return traced


def _weights(model: Model, survey: Survey, plans: Plans) -> dict[tuple[str, Any], dict[str, tf.Variable]]:
    """Return (recurrence, what chose its arrays) -> variables by name, each once for all graphs."""
    recurrences = {made.name: made.recurrence for made in survey.calls}
    recurrences.update({name: recurrence for name, (_, recurrence) in model.repeated.items()})
    variables: dict[tuple[str, Any], dict[str, tf.Variable]] = {}
    for call, plan in (item for chosen in plans.values() for item in chosen.items()):
        recurrence = recurrences[call]
        if plan.lowering != "native":
            arrange = LOWERINGS[plan.lowering].weights
            if (recurrence.name, arrange) not in variables:
                variables[recurrence.name, arrange] = {
                    name: tf.Variable(value, trainable=False, name=name) for name, value in arrange(recurrence).items()
                }
    return variables


def _spec(port: Port, dims: Mapping[str, int]) -> tf.TensorSpec:
    shape = [d if isinstance(d, int) else None for d in port.sized(dims)]
    return tf.TensorSpec(shape, port.dtype, port.name)
