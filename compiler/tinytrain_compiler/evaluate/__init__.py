"""Few-shot accuracy of a compiled model on real data: packs, episodes, policies, tables."""

from functools import partial

from .episodes import Episode, load_episodes, sample_episodes
from .evaluate import EPOCHS, EpisodeResult, evaluate, run_episodes
from .learner import CLEAN, POLICIES, Learner, LearnerOptions, TrainStats
from .packs import Pack, load_pack, to_inputs
from .policy_model import SELECTOR_OF
from .tables import markdown, print_results
from .trained import TrainedLearner, none

POLICIES["none"] = none
_training = ("last-layer", "bias", "sparse-update", "full", *SELECTOR_OF)
POLICIES.update({name: partial(TrainedLearner, policy=name) for name in _training})

__all__ = [
    "CLEAN",
    "EPOCHS",
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
