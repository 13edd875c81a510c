"""What the exit code of a command means."""

OK = 0
ERROR = 1  # not done, for a reason outside of the configuration; the same command resumes
CONFIG = 2  # a mistake in the configuration, found before anything was started
INCOMPLETE = 2  # of `confirm`: there is no answer yet; the same command resumes
FAILED_TRIALS = 3  # done, but more trials failed than tolerated
INTERRUPTED = 130  # the same command resumes
