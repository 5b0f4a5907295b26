"""Which policies an evaluation runs: those of training/policies.py, and selectors by their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..errors import UsageError
from ..training.option import options_of
from ..training.policies import POLICIES, make_policy, policies_with
from ..training.policy import Policy
from ..training.selectors import SELECTORS

SELECTION = "selection"  # the option that a selector's name stands for


def evaluated_names() -> list[str]:
    """What policies_named() knows: each selector stands for the first policy that can choose by it."""
    return [*POLICIES, *SELECTORS]


def policies_named(names: Sequence[str], given: Mapping[str, Any] | None = None) -> dict[str, Policy]:
    """Policies by these names, in their order. given: values by option name; each goes to the policies that have it.

    Errors: UsageError for an unknown or repeated name, for an option that none of them has, and wrong values.
    """
    if not names:
        raise UsageError(f"no policy given; choose from {', '.join(evaluated_names())}")
    for name in names:
        if name not in evaluated_names():
            near = get_close_matches(name, evaluated_names(), 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise UsageError(f"policy '{name}' does not exist{hint}; choose from {', '.join(evaluated_names())}")
    if len(set(names)) != len(names):
        raise UsageError(f"a policy is named twice: {', '.join(names)}")
    values = {option: value for option, value in (given or {}).items() if value is not None}
    for option in values:
        owners = [name for name in evaluated_names() if option in _options(name)]
        if not set(owners) & set(names):
            raise UsageError(f"--{option} belongs to policies {', '.join(owners)}, not to {','.join(names)}")
    return {name: _policy(name, {o: v for o, v in values.items() if o in _options(name)}) for name in names}


def _policy(name: str, values: Mapping[str, Any]) -> Policy:
    if name in POLICIES:
        return make_policy(name, values)
    return make_policy(policies_with(SELECTION)[0], {**values, SELECTION: name})


def _options(name: str) -> set[str]:
    """Names of the options that may be given with this name."""
    if name in POLICIES:
        return {option.name for option in options_of(POLICIES[name]).values()}
    return _options(policies_with(SELECTION)[0]) - {SELECTION}
