"""The capacity of attention modules as text: hidden units, groups or kernel sizes at each width of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.common.wording import count
from sa_core.attentions.capacity import Capacity

NO_CAPACITY = "–"


def capacity_clause(capacities: Sequence[Capacity]) -> str:
    """Formats the capacity of a module at each width: `16, 32, 64 hidden units`; a dash for a module without any."""
    hidden = [capacity.hidden_units for capacity in capacities if capacity.hidden_units]
    if hidden:
        return f"{_listed(hidden)} hidden unit{'' if hidden == [1] else 's'}"
    kernels = [capacity.kernel_size for capacity in capacities if capacity.kernel_size]
    if kernels:
        return f"kernel size{'' if len(kernels) == 1 else 's'} {_listed(kernels)}"
    groups = [(capacity.groups, capacity.group_channels) for capacity in capacities if capacity.groups]
    if not groups:
        return NO_CAPACITY
    if len({number for number, _ in groups}) == 1:
        return f"{count(groups[0][0], 'group')} of {_listed([channels for _, channels in groups])} channels"
    return f"{_listed([f'{number} groups of {channels}' for number, channels in groups])} channels"


def _listed(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers))
