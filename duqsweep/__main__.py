"""`python -m duqsweep`. Empty on purpose: what is defined in `__main__` would be pickled by value."""

from duqsweep.cli import main

raise SystemExit(main())
