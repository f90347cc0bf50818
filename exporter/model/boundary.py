"""From a survey and the user's options to the contract: every port, carry and signature the artifact will have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from signatures.contract import LENGTHS, SIGNATURES, Contract, Proven, going_in, state_input, state_output
from signatures.errors import UnsupportedModel
from signatures.ports import Carry, Port, Signature, time_dims

from .survey import CallFacts, Survey


def contract(
    survey: Survey,
    model: Mapping[str, str | None],
    provenance: Mapping[str, str],
    *,
    signatures: Sequence[str] | None = None,
    lengths: bool = False,
    dtype: str = "float32",
) -> Contract:
    """Name the ports and carries of every signature.

    Args:
        survey: What the model takes, gives and carries.
        model: {"name", "sha256"}, for the contract's reader.
        provenance: Package -> version.
        signatures: What to have; None means all that can be had.
        lengths: Whether calls take the valid steps of each sample.
        dtype: The coarsest type its layers compute in.

    Raises:
        UnsupportedModel: When a signature that was asked for, or lengths, can't be had.
    """
    memories, clocks = survey.memories, survey.memories.clocks(survey.order)
    if lengths and memories.calls:
        raise UnsupportedModel(
            f"lengths can't be had: layer {memories.calls[0].name!r} remembers time steps beyond a sample's length.\n"
            "  Export it without --lengths, and push each sample's own time steps."
        )
    if lengths and not survey.one_clock:
        raise UnsupportedModel(
            "lengths need one time axis that every recurrent layer shares; this model has several.\n"
            "  Export it without --lengths."
        )
    if survey.no_step and "step" in (signatures or ()):
        raise UnsupportedModel(f"signature 'step' can't be had: {survey.no_step}\n  Export with --signatures sequence.")
    chosen = signatures or (("sequence",) if survey.no_step else SIGNATURES)
    inputs = (*_own_inputs(survey), *([Port(LENGTHS, "lengths", ("batch",), "int32")] if lengths else []))
    states = [
        replace(port, name=state_input(made.name, short))
        for made in survey.calls
        if made.own
        for short, port in made.states.items()
    ]
    states += [replace(port, name=going_in(port.name)) for port in memories.ports]
    recurrent = [*(port for made in survey.calls for port in made.outputs), *memories.ports]
    carries = [carry for made in survey.calls for carry in _carries(made)]
    carries += [Carry(port.name, going_in(port.name)) for port in memories.ports]
    starts = Counter(carry.input for carry in carries)  # an input that two states start from can be fed by neither
    common = Signature(
        "sequence",
        (*inputs, *states),
        (*survey.outputs, *recurrent),
        tuple(c for c in carries if starts[c.input] == 1),
        every=memories.every,
        delay={port: clock.delay for port, clock in clocks.items() if clock.delay},
        ahead={port: clock.ahead for port, clock in clocks.items() if clock.ahead > 0},
    )
    one = dict.fromkeys(time_dims(survey.inputs), memories.every)
    made = {
        name: replace(common, name=name, dims=one if name == "step" else {}) for name in SIGNATURES if name in chosen
    }
    example = {name: tried[0] for name, tried in survey.tried.items()}
    return Contract(
        model,
        survey.order,
        made,
        no_step=survey.no_step,
        example=example,
        provenance=provenance,
        scheme=dtype,
        proven=Proven(survey.proven),
    )


def _own_inputs(survey: Survey) -> list[Port]:
    given = {port for made in survey.calls for port in made.given.values()}
    return [replace(port, role="state") if port.name in given else port for port in survey.inputs]


def _carries(made: CallFacts) -> list[Carry]:
    if made.recurrence.reverse:  # it starts where the sequence ends: nothing goes on from there
        return []
    ports = {short: state_input(made.name, short) for short in made.recurrence.states} if made.own else made.given
    return [Carry(state_output(made.name, short), port) for short, port in ports.items()]
