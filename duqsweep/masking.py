"""Addresses as they may be shown: without the secrets that they hold."""

from __future__ import annotations

import os
import re

_USER = re.compile(r"://([^:/@\s]*):\S*@")  # up to the last @: a password may hold one itself
_TOKEN = re.compile(r"://[^:/@\s]+@")
# NAME=value of a shell or of sbatch's --export, where the name says that the value is secret.
_VARIABLE = re.compile(
    r"\b([A-Z0-9_]*(?:PASSWORD|PASSWD|TOKEN|SECRET|KEY)[A-Z0-9_]*=)('[^']*'|\"[^\"]*\"|[^\s,;'\"]+)"
)
_QUERY = re.compile(r"([?&;][^=&;\s]*(?:pass|pwd|token|key|secret)[^=&;\s]*=)[^&;\s]*", re.I)


# What MLflow takes from the environment; a server may repeat it in its answer.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def masked(text: str) -> str:
    """The text with `***` for the passwords and tokens of its URLs, of variables, and MLflow's."""
    for name in _SECRET_VARIABLES:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    text = _USER.sub(r"://\1:***@", text)
    text = _TOKEN.sub("://***@", text)
    text = _VARIABLE.sub(r"\1***", text)
    return _QUERY.sub(r"\1***", text)


def without_user(url: str) -> str:
    """The URL without user and password: a browser asks for them."""
    return re.sub(r"://[^\s]*@", "://", url)
