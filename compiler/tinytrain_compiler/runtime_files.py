"""Which files of the C runtime a compiled model needs: firmware carries no other.

A feature is a set of files of runtime_c/; what a model has decides on its features. Several models of one image share
the runtime: the build files of each add what the others did not bring.
"""

from __future__ import annotations

from .resources import RUNTIME

INFERENCE = (
    "tinytrain.h", "tinytrain_storage.h", "tt_head.c", "tt_head.h", "tt_kernel.h", "tt_math.c", "tt_math.h",
    "tt_port.h", "tt_session.c", "tt_status.c", "tt_storage.c", "tt_stored.h", "tt_vector.h", "tt_dsp.h",
    "tt_gradient.h",
)  # fmt: skip
TRAINING = (
    "tinytrain_training.h", "tt_augment.c", "tt_augment.h", "tt_check.c", "tt_check.h", "tt_choice.c", "tt_choice.h",
    "tt_gradient.c", "tt_learn.c", "tt_learn.h", "tt_learning.h", "tt_random.h", "tt_select.c", "tt_select.h",
    "tt_support.c", "tt_support.h", "tt_train.c",
)  # fmt: skip
GRADIENTS = {"int16": (), "float32": ("tt_gradient_float.c", "tt_gradient_float.h")}
AUDIO = ("tt_audio.c", "tt_audio.h")
HEAD = ("tt_{head}.c", "tt_{head}.h")
HEAD_TRAINING = ("tt_{head}_loss.c", "tt_{head}_loss.h")


def runtime_files(head: str, gradients: str | None, audio: bool = False) -> dict[str, str]:
    """File name -> text, in the order of names. gradients: the format of a model that learns, None: it does not.

    audio: whether the model has a front end for sound.
    """
    names = [*INFERENCE, *HEAD, *(AUDIO if audio else ())]
    if gradients is not None:
        names += [*TRAINING, *GRADIENTS[gradients], *HEAD_TRAINING]
    files = sorted(name.format(head=head) for name in names)
    return {name: (RUNTIME / name).read_text() for name in files}


def runtime_sources(head: str, gradients: str | None, audio: bool = False) -> tuple[str, ...]:
    """The C files among them, relative to the model's folder."""
    return tuple(f"runtime/{name}" for name in runtime_files(head, gradients, audio) if name.endswith(".c"))
