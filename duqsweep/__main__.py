"""`python -m duqsweep`. Empty on purpose: what `__main__` defines would be pickled by value."""

from duqsweep.cli import main

raise SystemExit(main())
