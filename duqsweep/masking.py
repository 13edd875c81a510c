"""Addresses as they may be shown: without the secrets that they hold."""

from __future__ import annotations

import os
import re

_USER = re.compile(r"://([^:/@\s]*):\S*@")  # up to the last @: a password may hold one itself
_TOKEN = re.compile(r"://[^:/@\s]+@")
_QUERY = re.compile(r"([?&;][^=&;\s]*(?:pass|pwd|token|key|secret)[^=&;\s]*=)[^&;\s]*", re.I)


# What MLflow takes from the environment; a server may repeat it in its answer.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def masked(text: str) -> str:
    """The text with the passwords and tokens of its URLs, and MLflow's own, replaced by `***`."""
    for name in _SECRET_VARIABLES:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    text = _USER.sub(r"://\1:***@", text)
    text = _TOKEN.sub("://***@", text)
    return _QUERY.sub(r"\1***", text)


def without_user(url: str) -> str:
    """The URL without user and password: a browser asks for them."""
    return re.sub(r"://[^\s]*@", "://", url)
