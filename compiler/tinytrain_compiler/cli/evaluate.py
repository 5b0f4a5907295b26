"""`tinytrain evaluate`: the few-shot accuracy of policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from .option_commands import PolicyCommand
from .options import directory_argument, gradients_option, json_option, rounding_option
from .printing import bar, print_json


@click.command(cls=PolicyCommand)
@directory_argument
@click.option("--pack", type=click.Path(path_type=Path), required=True, metavar="FILE.npz", help="Samples and labels.")
@click.option("--episodes", type=click.Path(path_type=Path), metavar="FILE.json", help="Fixed episodes; else drawn.")
@click.option(
    "--by", metavar="KEY",
    help="An array of the pack, such as speaker: one episode for each speaker, all samples of it that speaker's.",
)  # fmt: skip
@click.option(
    "--gap", type=click.IntRange(1), default=1, show_default=True,
    help="Queries lie at least so many places of the pack from support samples; 2 or more where windows overlap.",
)  # fmt: skip
@click.option("--way", type=click.IntRange(1), default=10, show_default=True, help="Classes of a drawn episode.")
@click.option("--shot", type=click.IntRange(1), default=5, show_default=True, help="Examples a class.")
@click.option("--queries", type=click.IntRange(1), default=10, show_default=True, help="Queries a class.")
@click.option(
    "--policy",
    "policies",
    default="none",
    show_default=True,
    metavar="P[,P]",
    help="Policies and selectors: see below.",
)
@click.option("--network", is_flag=True, help="Also the network's own classes, with nothing enrolled.")
@click.option(
    "--copies", type=click.IntRange(0), default=0, show_default=True,
    help="Augmented copies of a sample whose frozen features are kept; 0: a fresh one in every epoch.",
)  # fmt: skip
@click.option("--head", metavar="H", help="What classifies: see below (default: as DIR was compiled).")
@gradients_option
@rounding_option
@click.option("--count", type=click.IntRange(1), help="How many episodes (default: all of the file or of --by, or 20).")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Passes over the support set.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1, max_open=True),
    help="Learning rate (default: the policy's).",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Episodes at a time.")
@click.option("--no-emulation", is_flag=True, help="Do not measure the instructions of a step on an emulated core.")
@json_option
def evaluate(
    directory: Path,
    pack: Path,
    episodes: Path | None,
    by: str | None,
    gap: int,
    way: int,
    shot: int,
    queries: int,
    policies: str,
    network: bool,
    copies: int,
    head: str | None,
    gradients: str,
    rounding: str,
    count: int | None,
    epochs: int,
    rate: float | None,
    seed: int,
    jobs: int,
    no_emulation: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Few-shot accuracy of the C in DIR on this machine: enrol, train, classify, episode by episode."""
    from rich.console import Console

    from ..compiled import load_compiled
    from ..evaluate import (
        LearnerOptions,
        load_episodes,
        load_pack,
        policies_named,
        print_results,
        sample_episodes,
        sample_episodes_by,
    )
    from ..evaluate import evaluate as run_evaluate
    from ..training.formats import formats

    named = policies_named(policies.split(","), given)
    model, data = load_compiled(directory), load_pack(pack)
    if by is not None and episodes is not None:
        raise UsageError("--by draws episodes, and --episodes brings them; give one of the two")
    if by is not None:
        chosen = sample_episodes_by(data, by, way, shot, queries, count, seed, gap)
    elif episodes is None:
        chosen = sample_episodes(data, way, shot, queries, count or 20, seed, gap)
    else:
        chosen = load_episodes(episodes, data)
    options = LearnerOptions(learning_rate=rate, head=head, formats=formats(gradients, rounding), copies=copies)
    with bar(f"episodes of {data.name}") as progress:
        found = run_evaluate(
            model, data, chosen, named, count=count, epochs=epochs, options=options, seed=seed,
            workers=jobs, progress=progress, emulation=not no_emulation, network=network,
            note=lambda text: click.echo(f"note: {text}", err=True),
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        print_results([found], Console())
