"""DuQuant: select the layers, calibrate on observations, freeze the result into the policy."""
