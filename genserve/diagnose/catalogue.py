"""Every check there is, in the order in which they are made: what others rest on comes first."""

from genserve.diagnose import (
    disk,
    environment,
    gpus,
    keys,
    memory,
    model,
    network,
    settings,
    system,
    systemd,
    tokenizers,
    trial,
)
from genserve.diagnose.finding import Check

TITLES = {
    "settings": "Settings",
    "environment": "Environment",
    "gpus": "GPUs",
    "model": "Model folder",
    "tokenizers": "Tokenizers",
    "memory": "Memory",
    "disk": "Disk",
    "network": "Network",
    "keys": "Keys",
    "systemd": "Services",
    "system": "System",
    "engine": "Engine",
}
CHECKS: tuple[Check, ...] = (
    *settings.CHECKS,
    *environment.CHECKS,
    *gpus.CHECKS,
    *model.CHECKS,
    *tokenizers.CHECKS,
    *memory.CHECKS,
    *disk.CHECKS,
    *network.CHECKS,
    *keys.CHECKS,
    *systemd.CHECKS,
    *system.CHECKS,
    *trial.CHECKS,
)


def chosen(words: str) -> tuple[list[Check], list[str]]:
    """The checks that 'model,gpus.driver' means, in their order, and what in it means none; '' means all."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    known = {check.name for check in CHECKS} | set(TITLES)
    if not names:
        return list(CHECKS), []
    return [c for c in CHECKS if c.name in names or c.group in names], [name for name in names if name not in known]
