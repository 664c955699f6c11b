"""Whose runs are encrypted in the store, and with which key: settings and environment made one."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.sealing import Sealing, load_or_create_keys, parse_keys
from serve_apps.settings import Settings

VARIABLE = "CLUSTERGRAPH_DATA_KEY"
"""Of the environment: 32 bytes in base64, older keys behind it with commas between them."""


def load_sealing(settings: Settings, environ: Mapping[str, str]) -> Sealing:
    """With the key of the environment, else with that of the secrets of this machine, made if there is none.

    Reads a file. Raises `DataKeyError`.
    """
    if environ.get(VARIABLE):
        keys = parse_keys(environ[VARIABLE])
    elif settings.runs.sealed or settings.data_key_file.exists():
        keys = load_or_create_keys(settings.data_key_file)
    else:
        keys = []
    return Sealing(keys, settings.runs.sealed)
