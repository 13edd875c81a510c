"""Reads LIBERO's files of initial states without torch, and without running what they say.

LIBERO reads them by `torch.load` with `weights_only=False`, which costs a process 2 seconds and
executes whatever a file names.
"""

from __future__ import annotations

import codecs
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import InfrastructureError

# All that an array of numpy needs, under the names of numpy 1, which wrote the files.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return ALLOWED[module, name]


def read_init_states(path: Path) -> NDArray[np.float64]:
    """The initial states of one task, (states, n): flat simulator states.

    Raises:
        InfrastructureError: The file cannot be read, or holds something else than one array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            states = _ArrayUnpickler(io.BytesIO(archive.read(name))).load()
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise InfrastructureError(
            f"{path} is no file of LIBERO's initial states: {error}"
        ) from error
    if not isinstance(states, np.ndarray) or states.ndim != 2:
        raise InfrastructureError(f"{path} holds no table of states, but {type(states).__name__}")
    return np.asarray(states, dtype=np.float64)
