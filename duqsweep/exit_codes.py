"""What the exit code of a command means."""

OK = 0
ERROR = 1  # something that is told in one line, and is neither of the below
CONFIG = 2  # a mistake in the configuration, found before anything was started
FAILED_TRIALS = 3  # done, but more trials failed than tolerated
INTERRUPTED = 130  # the same command goes on
