"""From a model to a survey of its stream: what its layers with memory carry is looked for where it can't be stepped."""

from dataclasses import replace

from signatures.contract import LENGTHS, going_in
from signatures.errors import UnsupportedModel, one_line
from signatures.ports import TIME, time_dims

from ..memory.attention import Cache
from ..memory.form import NOTHING
from . import clocks
from .attention import CACHED, Uncached
from .function import Model
from .remember import blocks_of
from .survey import Survey, survey
from .trials import WHOLE


def surveyed(model: Model, lookahead: bool = False, attention_cache: int | None = None) -> Survey:
    """Run the model on random data and return what that shows.

    Args:
        model: The model.
        lookahead: Whether layers may look into the future, so that their outputs come later.
        attention_cache: How many of the last time steps an attention looks at; None for all, as in Keras.

    Raises:
        UnsupportedModel: When the model can't be run, has nothing to remember, or an input leaves other axes open than
            the batch and one more; when the cache has no use.
    """
    found = _surveyed(model, lookahead, attention_cache)
    if attention_cache is None or any(isinstance(memory.form, Cache) for memory in found.memories.calls):
        return found
    reason = found.no_step or "No layer of the model attends to earlier time steps. Leave it out."
    raise UnsupportedModel(f"an attention cache of {attention_cache} can't be had: {reason}")


def _surveyed(model: Model, lookahead: bool, cache: int | None) -> Survey:
    found = survey(model)
    if found.no_step is None and found.calls:
        return found
    streamed, reason = _streamed(model, found, lookahead, cache)
    if streamed:
        return streamed
    if found.tried.get(TIME) == WHOLE:
        raise UnsupportedModel(
            f"model {model.keras.name!r} can't be run on any number of time steps, and not as a stream: {reason}\n"
            "  Check that it predicts in Keras."
        )
    if not found.calls and not model.repeated:
        raise UnsupportedModel(
            f"model {model.keras.name!r} has no recurrent layer, and no memory of another kind can be made explicit:\n"
            f"  {reason}\n  For models without state Keras' model.export() is the tool."
        )
    return replace(found, no_step=reason)


def _streamed(model: Model, found: Survey, lookahead: bool, cache: int | None) -> tuple[Survey | None, str]:
    """Return the survey of a model with what its layers remember; None and the reason where nothing makes it right."""
    reason = found.no_step or "No layer remembers anything."
    if any(call.recurrence.reverse for call in found.calls):
        return None, reason
    timed = [(port.name, port.time_axis) for port in found.inputs if port.time_axis is not None]
    if not found.flexible or len(time_dims(found.inputs)) != 1 or any(axis != 1 for _, axis in timed):
        return None, reason
    whole = {
        (port.name, axis): found.tried[str(dim)][0]
        for port in found.inputs
        for axis, dim in enumerate(port.shape)
        if dim in found.tried and (port.name, axis) not in timed
    }
    for blocks in dict.fromkeys((frozenset(), blocks_of(model.keras, CACHED if cache else ()))):
        try:
            memories, future = clocks.find(model, whole, timed, _ports(found), blocks, cache)
            if future and not lookahead:
                return (
                    None,
                    f"It needs time steps of the future ({future}): --lookahead gives its outputs so much later.",
                )
            if not memories.ports and not found.calls:
                return None, "No layer remembers anything."
            if memories.calls or memories.every > 1:
                model.memories = memories
                streamed = survey(model)
                if streamed.no_step is None:
                    return streamed, ""
                reason = streamed.no_step
        except Uncached as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - what a layer raises on rows that it wasn't made for: it isn't streamed
            reason = f"{one_line(error).removeprefix('UnsupportedModel: ').removesuffix('.')}."
        model.memories = NOTHING
    return None, reason


def _ports(found: Survey) -> set[str]:
    """Return the names of all ports, and of those that its states come from."""
    outputs = [*found.outputs, *(port for call in found.calls for port in call.outputs)]
    states = [going_in(port.name) for port in outputs if port.role == "state"]
    return {LENGTHS, *found.tried, *(port.name for port in (*found.inputs, *outputs)), *states}
