"""report.json as types: what each key means, and the JSON schema that says the same to other programs.

Sizes are bytes. A list of layers is in the order of execution, and a step is a place in that order: the layers, then,
for a model that trains, the loss and the layers of the backward pass, last first.
"""

from __future__ import annotations

import dataclasses
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..schedule import Phase, Purpose

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Tool:
    """What compiled the model."""

    name: str
    version: str


@dataclass(frozen=True)
class TensorFacts:
    """An int8 tensor at the model's end: real value = scale * (q - zero_point)."""

    name: str
    shape: Annotated[list[int], "height, width, channels; or features"]
    bytes: int
    scale: float
    zero_point: int


@dataclass(frozen=True)
class ModelFacts:
    """The network."""

    name: Annotated[str, "the prefix of its C names"]
    source: Annotated[str, "name of the model's file"]
    sha256: Annotated[str, "of the model's file, and of its external weights"]
    macs: Annotated[int, "multiply-accumulates of one inference"]
    parameters: Annotated[int, "weights and biases"]
    input: TensorFacts
    output: TensorFacts
    features: Annotated[TensorFacts, "the embedding that few-shot classes are made of"]
    classes: Annotated[int, "few-shot classes that can be enrolled"]
    labels: Annotated[list[str] | None, "names of the outputs; null: the model's file has none"]


@dataclass(frozen=True)
class BoardFacts:
    """The board, as its file says."""

    name: str
    description: str
    core: str
    dsp: Annotated[bool, "whether the core has the DSP extension"]
    fpu: Annotated[str, "none, sp or dp"]
    mve: Annotated[bool, "whether the core has the vector extension (Helium)"]
    clock_hz: int


@dataclass(frozen=True)
class Moment:
    """A step by what happens in it."""

    step: int
    phase: Phase
    layer: Annotated[str | None, "null: the loss belongs to no layer"]


@dataclass(frozen=True)
class PurposeBytes:
    """The arena by purpose. Purposes share bytes over time, so only those of one moment add up."""

    peak: Annotated[Moment, "when most bytes are live"]
    at_peak_bytes: Annotated[dict[Purpose, int], "live then; they add up to the lower bound"]
    largest_bytes: Annotated[dict[Purpose, int], "the most of each purpose, whenever that is"]


@dataclass(frozen=True)
class Region:
    """A part of the arena, and the board's memory it lies in."""

    bank: str
    bytes: int
    bank_bytes: Annotated[int, "of the whole memory"]


@dataclass(frozen=True)
class SramFacts:
    """RAM. total + stack <= budget."""

    arena_bytes: int
    lower_bound_bytes: Annotated[int, "no placement of the buffers can take less"]
    arena_to_lower_bound: float
    inference_arena_bytes: Annotated[int, "of the same model that does not train"]
    by_purpose: PurposeBytes
    session_bytes: Annotated[int, "sizeof(<name>_session)"]
    static_bytes: Annotated[int, ".data and .bss of the model and its runtime"]
    audio_bytes: Annotated[int, "sizeof(<name>_audio); 0: compiled without --audio"]
    total_bytes: Annotated[int, "arena, session, static data and audio front end"]
    stack_bytes: Annotated[int, "reserved by the board file"]
    budget_bytes: Annotated[int, "that the board has, or --sram allows"]
    left_bytes: Annotated[int, "of the budget, for the application"]
    regions: list[Region]


@dataclass(frozen=True)
class FlashFacts:
    """Flash. The code is an upper bound until the firmware is linked."""

    weights_bytes: Annotated[int, "weights and other constants"]
    code_bound_bytes: int
    audio_bytes: Annotated[int, "constants and code of the front end for sound; 0: compiled without --audio"]
    total_bytes: int
    budget_bytes: Annotated[int, "that the board has"]
    slots_bytes: Annotated[int, "for saved training states; 0: they have no place in this flash"]
    left_bytes: Annotated[int, "between the image and the slots"]


@dataclass(frozen=True)
class Memory:
    """What the firmware needs, and what the board has."""

    sram: SramFacts
    flash: FlashFacts


@dataclass(frozen=True)
class SlotFacts:
    """Two slots of whole erase sectors, behind the image, that the linker script keeps free."""

    origin: Annotated[int, "address of the first; the second follows"]
    slot_bytes: Annotated[int, "of each"]
    erase_bytes: Annotated[int, "of one sector"]


@dataclass(frozen=True)
class NoSlotFacts:
    """Why there are no slots, and what would make room. Numbers of bytes are 0 where they say nothing."""

    why: Annotated[str, "sectors-unknown, no-room or declined"]
    state_bytes: int
    image_bytes: Annotated[int, "at most"]
    slot_bytes: Annotated[int, "that each slot would need, in whole sectors"]
    erase_bytes: Annotated[int, "of a sector at the end of the flash"]
    free_sectors: Annotated[int, "of these, behind the image"]
    largest_image_bytes: Annotated[int, "with which slots for this state would fit; 0: none"]
    largest_state_bytes: Annotated[int, "that would fit behind this image; 0: none"]


@dataclass(frozen=True)
class Storage:
    """A saved training state in flash."""

    state_bytes: Annotated[int, "<NAME>_STATE_BYTES, what one slot has to hold"]
    slots: Annotated[SlotFacts | None, "null: the board's flash has no place for them, see no_slots"]
    no_slots: Annotated[NoSlotFacts | None, "null: there are slots"]


@dataclass(frozen=True)
class CalibrationFacts:
    """What the int8 ranges come from."""

    source: Annotated[str | None, "name of the file or folder; null: generated noise, so accuracy is unverified"]
    array: Annotated[str | None, "its key in an .npz file"]
    samples: Annotated[int, "that were used"]
    available: Annotated[int, "that the source has"]


@dataclass(frozen=True)
class Quantization:
    """How the float model became int8."""

    calibration: CalibrationFacts
    top1_agreement: Annotated[
        float | None, "share of calibration samples that int8 and float classify alike; null: not compared"
    ]
    low_agreement: Annotated[bool, "it is so low that something about the model's input or the samples must be wrong"]


@dataclass(frozen=True)
class Saturation:
    """Where an update ends."""

    weight_delta: Annotated[float, "the largest, in steps of the int8 weight"]
    bias_delta: Annotated[int | None, "the largest of the layer with the least room; null: no bias is trained"]
    weight_growth: Annotated[float, "of a layer's absolute weights, until its gradients may saturate"]


@dataclass(frozen=True)
class TrainedLayerFacts:
    """A layer that the policy updates."""

    name: str
    channels: Annotated[int, "input channels whose weights are updated, chosen at compile time"]
    limit: Annotated[int, "input channels that are updated at most; more than `channels` where the device chooses"]
    weights: Annotated[int, "updated, chosen at compile time"]
    biases: int


@dataclass(frozen=True)
class FrozenLayersFacts:
    """Layers with weights that no policy can train."""

    names: list[str]
    reason: Annotated[str, "the operator behind them that gradients cannot pass"]


@dataclass(frozen=True)
class CandidateFacts:
    """A layer whose input channels the device may choose. Costs are those of one channel."""

    name: str
    channels: Annotated[int, "that the layer has"]
    limit: Annotated[int, "that may be chosen"]
    delta_bytes: int
    saved_bytes: Annotated[int, "of its saved activation"]
    macs: Annotated[int, "of its weight gradients, in one step"]
    selected_offset: Annotated[int, "of its tt_selected in the training state"]


@dataclass(frozen=True)
class SelectionFacts:
    """Candidate layers and channels of an on-device selection: their costs, and where the choice is written."""

    pool_bytes: Annotated[int, "for the whole training state"]
    usable_bytes: Annotated[int, "of a pool that all candidates together could use"]
    fixed_bytes: Annotated[int, "of the pool, whatever is chosen: biases, running means, what was chosen"]
    saved_inputs_bytes: Annotated[int, "beside the pool"]
    selector: Annotated[str, "where the caller leaves it open"]
    macs: Annotated[int | None, "of weight gradients in one step, at most; null: no limit"]
    candidates: list[CandidateFacts]


@dataclass(frozen=True)
class TrainingFacts:
    """What training updates, in which numbers, and the most bytes of each purpose that are live at once."""

    learning_rate: Annotated[float, "where the caller leaves it open"]
    gradients: Annotated[str, "number format of the backward pass"]
    rounding: Annotated[str, "of weight updates"]
    delta_bytes: Annotated[int, "of one weight in the training state"]
    training_state_bytes: int
    head_bytes: Annotated[int, "of the training state, for the head's own weights"]
    fisher_passes: Annotated[int, "over the support set, to choose channels; 0: nothing is scored"]
    masks_bytes: int
    saved_inputs_bytes: int
    gradients_bytes: int
    scratch_bytes: int
    effective_parameters_bytes: Annotated[int, "a layer's weights and biases with their updates"]
    loss_bytes: int
    weights: Annotated[int, "updated, chosen at compile time"]
    selectable_weights: Annotated[int, "that the device may choose, at most"]
    biases: int
    saturation: Saturation
    layers: list[TrainedLayerFacts]
    frozen: Annotated[list[FrozenLayersFacts], "because gradients do not reach them"]
    selection: Annotated[SelectionFacts | None, "null: the device does not choose"]


@dataclass(frozen=True)
class LayerFacts:
    """An operator of the quantised graph."""

    name: str
    op: str
    input_shape: Annotated[list[int], "of the first input"]
    output_shape: list[int]
    macs: int
    weight_bytes: Annotated[int, "of flash: weights, biases, multipliers"]
    kernel: Annotated[str | None, "the C function; null: the output is the input's bytes"]


@dataclass(frozen=True)
class BufferFacts:
    """A place in the arena."""

    name: str
    tensors: Annotated[list[str], "of the graph that lie here, one after the other in time"]
    purpose: Purpose
    region: Annotated[int, "index into memory.sram.regions"]
    offset: int
    bytes: int
    first_step: int
    last_step: int


@dataclass(frozen=True)
class Report:
    """Everything a compile found out. Same input, same report."""

    tool: Tool
    model: ModelFacts
    board: BoardFacts
    memory: Memory
    storage: Storage
    quantization: Quantization
    policy: Annotated[str, "what trains on the device"]
    head: Annotated[str, "what classifies embeddings"]
    training: Annotated[TrainingFacts | None, "null: nothing is trained; classes are prototypes"]
    steps: Annotated[int, "of one training step, or of one inference where nothing trains"]
    layers: list[LayerFacts]
    buffers: list[BufferFacts]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


# -- the JSON schema -----------------------------------------------------------------------------

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a report; no key is missing, and none is unknown."""
    definitions: dict[str, Any] = {}
    _define(Report, definitions)
    own = definitions.pop(Report.__name__)
    return {"$schema": SCHEMA_ID, "title": "TinyTrain report.json", **own, "$defs": dict(sorted(definitions.items()))}


def _define(record: type, definitions: dict[str, Any]) -> None:
    definitions[record.__name__] = {}  # holds its place while its fields are looked at
    hints = get_type_hints(record, include_extras=True)
    properties = {field.name: _schema(hints[field.name], definitions) for field in dataclasses.fields(record)}
    definitions[record.__name__] = {
        "type": "object",
        "description": record.__doc__,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one annotated type; records are references to $defs."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return {**_schema(arguments[0], definitions), "description": arguments[1]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        keys, values = (_schema(argument, definitions) for argument in arguments)
        return {"type": "object", "propertyNames": keys, "additionalProperties": values}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            _define(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return {"type": _PLAIN[hint]}
