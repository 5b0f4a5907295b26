"""Sound as a network takes it: log-mel and MFCC in integers, the same bytes here and in runtime_c/tt_audio.c."""

from .front_end import FrontEnd
from .noise import noise_features
from .plan import AudioPlan, audio_plan
from .settings import AudioSettings, read_audio_settings

__all__ = ["AudioPlan", "AudioSettings", "FrontEnd", "audio_plan", "noise_features", "read_audio_settings"]
