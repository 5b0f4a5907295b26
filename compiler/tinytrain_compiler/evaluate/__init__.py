"""Few-shot accuracy of a compiled model on real data: packs, episodes, policies, tables."""

from .episodes import Episode, load_episodes, sample_episodes, sample_episodes_by
from .evaluate import EPOCHS, evaluate, run_episodes
from .host_learner import HostLearner
from .learner import Learner, LearnerOptions, TrainStats
from .packs import Pack, load_pack, to_inputs
from .policies import policies_named
from .study import EpisodeResult
from .tables import markdown, print_results

__all__ = [
    "EPOCHS",
    "Episode",
    "EpisodeResult",
    "HostLearner",
    "Learner",
    "LearnerOptions",
    "Pack",
    "TrainStats",
    "evaluate",
    "load_episodes",
    "load_pack",
    "markdown",
    "policies_named",
    "print_results",
    "run_episodes",
    "sample_episodes",
    "sample_episodes_by",
    "to_inputs",
]
