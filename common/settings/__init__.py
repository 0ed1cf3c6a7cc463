"""One frozen settings object a process: defaults < TOML file < environment < flags.

A bad or unknown key stops the start and says what would be right. Every setting is declared once, in
`sections`, with its unit, bounds and description.

The TOML file is named by GENSERVE_CONFIG (else /etc/genserve/genserve.toml, where it exists) and has one
table a section: [log] [router] [gpu_daemon] [gateway] [client] [up]. The environment variable of a key is
GENSERVE_<SECTION>_<KEY>; three older names go on working, see OLDER_NAMES.
"""

from common.settings.loading import (
    API_KEY_VARIABLE,
    DEFAULT_FILE,
    PREFIX,
    Examined,
    Loaded,
    S,
    SettingFault,
    examine_settings,
    load_settings,
)
from common.settings.sections import (
    OLDER_NAMES,
    SECTIONS,
    ClientSettings,
    Endpoint,
    GatewaySettings,
    GpuDaemonSettings,
    LogSettings,
    RouterSettings,
    Section,
    UpSettings,
)

__all__ = [
    "API_KEY_VARIABLE",
    "DEFAULT_FILE",
    "OLDER_NAMES",
    "PREFIX",
    "SECTIONS",
    "ClientSettings",
    "Endpoint",
    "Examined",
    "GatewaySettings",
    "GpuDaemonSettings",
    "Loaded",
    "LogSettings",
    "RouterSettings",
    "S",
    "Section",
    "SettingFault",
    "UpSettings",
    "examine_settings",
    "load_settings",
]
