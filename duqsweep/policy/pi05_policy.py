"""A loaded pi0.5 that runs layer by layer; it can be calibrated, quantized and compiled."""

from __future__ import annotations

import copy
import itertools

from duqsweep.policy.called_policy import CalledPolicy
from duqsweep.policy.eager_call import EagerCall
from duqsweep.policy.frontend import Frontend, Preprocessing
from duqsweep.policy.pi05 import Pi05
from duqsweep.spec import UNIFORM, Schedule


class Pi05Policy(CalledPolicy):
    """A pi0.5 as a `seams.EagerPolicy`; linear layers of `module` may be replaced in place."""

    call: EagerCall

    def __init__(
        self,
        module: Pi05,
        preprocessing: Preprocessing,
        num_steps: int,
        schedule: Schedule = UNIFORM,
        reuse_images: bool = False,
    ) -> None:
        call = EagerCall(module, num_steps, preprocessing.pixels, schedule, reuse_images)
        frontend = Frontend(preprocessing, module.action_in_proj.weight.device)
        super().__init__(frontend, num_steps, call)
        self.module = module
        self.preprocessing = preprocessing
        self.schedule = schedule
        self.reuse_images = reuse_images

    def copy(
        self, num_steps: int, schedule: Schedule = UNIFORM, reuse_images: bool = False
    ) -> Pi05Policy:
        """A policy of new modules that share this one's tensors, called in another way."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        memo = {id(tensor): tensor for tensor in tensors}
        module = copy.deepcopy(self.module, memo)
        return Pi05Policy(module, self.preprocessing, num_steps, schedule, reuse_images)
