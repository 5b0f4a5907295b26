"""Few-shot accuracy of a compiled model on real data: packs, episodes, policies, tables."""

from .episodes import Episode, load_episodes, sample_episodes
from .evaluate import EpisodeResult, evaluate, run_episodes
from .learner import CLEAN, POLICIES, Learner, LearnerOptions, TrainStats
from .packs import Pack, load_pack, to_inputs
from .tables import markdown, print_results
from .trained import bias, full, l2, last_layer, layer_score, none, random, sparse_update, tinytrain

POLICIES.update({"none": none, "last-layer": last_layer, "bias": bias, "sparse-update": sparse_update, "full": full})
POLICIES.update({"tinytrain": tinytrain, "random": random, "l2": l2, "layer-score": layer_score})

__all__ = [
    "CLEAN",
    "POLICIES",
    "Episode",
    "EpisodeResult",
    "Learner",
    "LearnerOptions",
    "Pack",
    "TrainStats",
    "evaluate",
    "load_episodes",
    "load_pack",
    "markdown",
    "print_results",
    "run_episodes",
    "sample_episodes",
    "to_inputs",
]
