"""What a front end for sound costs: instructions on emulated cores, RAM and flash.

    python benchmarks/audio.py SETTINGS

SETTINGS: a file of --audio, such as examples/keywords/mfcc.toml. One second of loud noise is pushed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from kernels import one_node
from rich.console import Console
from rich.table import Table
from tinytrain_compiler.audio import AudioPlan, audio_plan, read_audio_settings
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness import INFER, pack_records, run_records

BOARDS = ("stm32f746", "nrf52840dk", "mps2_an385", "rp2040")
# In place of the network: the first record fills the sound, the second pushes it, the third makes the input.
INFERENCE = "tt_status ear_infer(ear_session *s, const int8_t *input, tt_result *result)\n{\n"
COUNTED = """    static ear_audio audio;
    static int16_t sound[SAMPLES];
    static int record;
    result->output = result->features = input;
    switch (record++) {
    case 0:
        for (uint32_t i = 0, random = 1; i < SAMPLES; i++) {
            random = random * 1664525u + 1013904223u;
            sound[i] = (int16_t)((int32_t)(random >> 16) - 32768);
        }
        ear_audio_init(&audio);
        return TT_OK;
    case 1:
        ear_audio_push(&audio, sound, SAMPLES);
        return TT_OK;
    default:
        return ear_audio_input(&audio, ear_input(s));
    }
}
"""


def measure(settings: Path, name: str) -> tuple[AudioPlan, list[str]]:
    """A row of the table: the board's core, instructions a second of sound and an input, bytes of flash."""
    sound = read_audio_settings(settings)
    frames = 1 + (sound.rate - sound.window) // sound.hop
    graph, board = one_node("dense", (frames * sound.values,), 4, 1, 1), load_board(name)
    plan, machine = audio_plan(sound, graph.tensors["x"]), emulation_board(board)
    lowered = lower(graph, board, "ear", audio=plan)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for path, text in emit(lowered, ModelInfo("ear", (), (), 1, None)).items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)
        model = directory / "ear.c"
        before, after = model.read_text().split(INFERENCE)
        samples = sound.window + (frames - 1) * sound.hop
        defined = f'#include "ear_audio.h"\n#define SAMPLES {samples}u\n'
        model.write_text(f"{before}{defined}{INFERENCE}{COUNTED}{after.split('}', 1)[1]}")
        banks = emulation_banks(machine, lowered.plan.region_banks)
        firmware = build_firmware(directory, "ear", machine, banks, "harness", directory / "build")
        records = pack_records([(INFER, b"\1" * graph.tensors["x"].bytes)] * 3)  # the harness shows them as answers
        _, pushed, made = run_records(firmware, machine, records, directory / "run").instructions
    sizes = [firmware.objects[path] for path in ("ear_audio.c", "runtime/tt_audio.c")]
    flash = sum(size.code + size.constants for size in sizes)
    per_second = pushed * sound.rate // samples
    return plan, [board.core, f"{per_second:,}", f"{made:,}", f"{flash:,}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    settings = parser.parse_args().settings
    table = Table("core", title=str(settings.name), title_justify="left")
    for column in ("instructions per second of sound", "of one input", "flash"):
        table.add_column(column, justify="right")
    for board in BOARDS:
        plan, row = measure(settings, board)
        table.add_row(*row)
    console = Console(width=110)
    console.print(table)
    console.print(f"RAM {plan.state_bytes:,} bytes; flash with its tables, before the linker drops what is not called")


if __name__ == "__main__":
    main()
