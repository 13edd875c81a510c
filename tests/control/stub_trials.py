"""What a trial of a stub costs and plays; the numbers follow from its settings, as real ones do."""

from __future__ import annotations

from synthetic_sweep import make_episodes, make_vitals

from duqsweep.result import EpisodeRecord, Vitals
from duqsweep.spec import Trial

RATE = {2: 0.3, 3: 0.7, 4: 0.9, 8: 0.95}


def vitals_of(trial: Trial) -> Vitals:
    bits = int(trial.params.get("quant.weight_bits.default", 16))
    return make_vitals(trial, 1.0 + 1.0 / trial.spec.policy.num_steps + 1.0 / bits)


def episode_of(trial: Trial, i: int) -> EpisodeRecord:
    bits = int(trial.params.get("quant.weight_bits.default", 16))
    chance = int(trial.fingerprint, 16) % 1009
    return make_episodes(chance, i + 1, RATE.get(bits, 0.97))[i]
