"""`python -m duqsweep`. Defines nothing: what `__main__` defines would be pickled by value."""

import gc

from duqsweep.cli import main

gc.set_threshold(50_000)  # what is imported stays: to look through it every 700 objects takes long
code = main()
gc.freeze()  # else Python looks through all that is left before it ends: 0.4 s after a sweep
raise SystemExit(code)
