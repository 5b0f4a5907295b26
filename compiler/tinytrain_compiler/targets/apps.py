"""The programs that firmware is built with: what users flash, and the harnesses that an emulator runs."""

from __future__ import annotations

from collections.abc import Mapping

from ..projects.firmware import SELFTEST, App

_SHARED = {"firmware/semihosting.h": "harness/semihosting.h", "firmware/harness.h": "harness/harness.h"}

HARNESS = App("harness", _SHARED | {"firmware/main.c": "harness/main_harness.c"}, ("tt_harness_layout",))
TRAIN = App(
    "train",
    _SHARED
    | {
        "firmware/main.c": "harness/main_train.c",
        "firmware/marks.h": "harness/marks.h",
        "firmware/personalise.h": "harness/personalise.h",
        "firmware/ram_flash.h": "harness/ram_flash.h",
        "firmware/support_set.h": "harness/support_set.h",
    },
)
APPS: Mapping[str, App] = {app.name: app for app in (SELFTEST, HARNESS, TRAIN)}
