"""A study's database that may be away for a while: each call is repeated until it answers.

This holds inside of `files.waiting_out`, while a sweep runs. One process writes a study
(`controller_lock`), so that a repeated call can see whether the one before was carried out although
its answer was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from duqsweep import files
from duqsweep.errors import ConfigError
from duqsweep.masking import masked

T = TypeVar("T")

FIRST_PAUSE_S = 0.5  # before a call is repeated; doubles
LONGEST_PAUSE_S = 30.0


def passing(error: BaseException | None) -> str | None:
    """What a database said when it was away, restarted or locked; None for other errors."""
    while error is not None:
        is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
        if is_lost or isinstance(error, (OperationalError, InterfaceError, PoolTimeoutError)):
            said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
            return masked(said.splitlines()[0])
        error = error.__cause__
    return None


class PatientStorage(BaseStorage):
    """Optuna's storage in a database, called again and again while the database is away."""

    def __init__(self, storage: BaseStorage, shown: str) -> None:
        """Nothing is called yet.

        Args:
            storage: Optuna's own.
            shown: Its address as people may see it.
        """
        self._storage = storage
        self._shown = shown

    def _patiently(self, act: Callable[[], T], repeat: Callable[[], T] | None = None) -> T:
        """The answer of `act`, or of `repeat` after an attempt that failed.

        Raises:
            ConfigError: The database is away, and this process does not wait.
        """
        pause_s = FIRST_PAUSE_S
        attempt = act
        while True:
            try:
                answer = attempt()
            except (SQLAlchemyError, StorageInternalError) as error:
                reason, say = passing(error), files.waiting_say()
                if reason is None:
                    raise
                if say is None:
                    raise ConfigError(f"cannot use storage.url {self._shown}: {reason}") from error
                if attempt is act and pause_s == FIRST_PAUSE_S:
                    say(f"storage.url {self._shown}: {reason}; waiting until it works again")
            else:
                if pause_s > FIRST_PAUSE_S and (say := files.waiting_say()) is not None:
                    say(f"storage.url {self._shown} works again")
                return answer
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            attempt = repeat or act

    # What is not the same when it is carried out twice.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """See Optuna."""

        def create() -> int:
            return self._storage.create_new_study(directions, study_name)

        def again() -> int:
            assert study_name is not None
            try:
                return self._storage.get_study_id_from_name(study_name)
            except KeyError:
                return create()

        return self._patiently(create, again)

    def delete_study(self, study_id: int) -> None:
        """See Optuna."""

        def again() -> None:
            if study_id in (study._study_id for study in self._storage.get_all_studies()):
                self._storage.delete_study(study_id)

        self._patiently(lambda: self._storage.delete_study(study_id), again)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See Optuna."""
        count = len(self.get_all_trials(study_id, deepcopy=False))

        def create() -> int:
            return self._storage.create_new_trial(study_id, template_trial)

        def again() -> int:
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            return trials[-1]._trial_id if len(trials) > count else create()

        return self._patiently(create, again)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See Optuna."""

        def change() -> bool:
            return self._storage.set_trial_state_values(trial_id, state, values)

        def again() -> bool:
            return self._storage.get_trial(trial_id).state == state or change()

        return self._patiently(change, again)

    # The same however often it is carried out.

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See Optuna."""
        self._patiently(lambda: self._storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See Optuna."""
        self._patiently(lambda: self._storage.set_study_system_attr(study_id, key, value))

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """See Optuna."""
        self._patiently(
            lambda: self._storage.set_trial_param(
                trial_id, param_name, param_value_internal, distribution
            )
        )

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """See Optuna."""
        self._patiently(
            lambda: self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See Optuna."""
        self._patiently(lambda: self._storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See Optuna."""
        self._patiently(lambda: self._storage.set_trial_system_attr(trial_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """See Optuna."""
        return self._patiently(self._storage.get_all_studies)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_trial(trial_id))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """See Optuna."""
        return self._patiently(
            lambda: self._storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See Optuna."""
        return self._patiently(lambda: self._storage.get_all_trials(study_id, deepcopy, states))

    def remove_session(self) -> None:
        """See Optuna."""
        self._storage.remove_session()
