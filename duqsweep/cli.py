"""The command line: a sweep (`+sweep=NAME …`) or a verb (`status DIR`), and the exit codes."""

from __future__ import annotations

import difflib
import importlib
import itertools
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress

from duqsweep import __version__, exit_codes
from duqsweep.errors import ConfigError, DuqsweepError
from duqsweep.output import flush_or_silence, prepare_output, silence

# Each verb is a module of duqsweep.verbs with main(arguments) -> exit code; nothing heavier than
# the verb's own needs is imported, so that --help answers at once.
VERBS = {
    "plan": "dry run: the space, the layers each include reaches, the first trials, an estimate",
    "status": "what a sweep has done and is doing: status DIR [--json]",
    "front": "the front of a sweep: front DIR [--json] [--importances]",
    "logs": "the log of one trial: logs DIR --trial N [-f]",
    "confirm": "fresh episodes on reserved states for the front: confirm DIR [--episodes N]",
    "twins": "what quantization itself brings: times the front's unquantized twins: twins DIR",
    "stop": "ask a running sweep and its jobs to end: stop DIR",
    "retry": "evaluate failed trials again at the next start: retry DIR [--trial N]",
    "export": "one trial for use elsewhere, or all episodes: export DIR --trial N|--pick RULE",
    "video": "episodes as videos: video DIR [--trial N] [--episode I] [--beside reference|M]",
    "sync": "rebuild MLflow from a sweep's files: sync DIR [--uri URI]",
    "evaluate": "one trial, here and now: evaluate [--episodes N] [--plan NAME] [overrides]",
    "explain": "where a call's time goes: explain [overrides]; what can be set: explain --settings",
    "init": "a commented sweep file of your own, which runs at once: init NAME",
    "completion": "a script that completes words by the tab key: completion bash|zsh",
    "doctor": "check rendering, GPU, SLURM, assets and MLflow on this machine",
}

HELP_WIDTH = 100  # columns


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and prints errors for the user."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    prepare_output()
    try:
        code = _run(argv)
    except ConfigError as error:
        _say(str(error))
        code = exit_codes.CONFIG
    except DuqsweepError as error:
        _say(str(error))
        code = exit_codes.ERROR
    except OSError as error:  # a full disk, a folder without rights, an output that is closed
        _say(_os_error(error))
        code = exit_codes.ERROR
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    unwritten = flush_or_silence(sys.stdout)
    if unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        _say(_os_error(unwritten))
        code = code or exit_codes.ERROR
    flush_or_silence(sys.stderr)
    return code


def _say(text: str) -> None:
    if isinstance(sys.exc_info()[1], BrokenPipeError):
        silence(sys.stdout)
        return  # whoever read the output has seen enough
    with suppress(OSError):
        print(f"duqsweep: {text}", file=sys.stderr)


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    where = error.filename if isinstance(error.filename, (str, os.PathLike)) else None
    return f"{os.fspath(where)}: {reason}" if where else f"{reason}; nothing is lost"


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return exit_codes.OK
    if argv[0] == "--version":
        print(f"duqsweep {__version__}")
        return exit_codes.OK
    verb = argv[0] if argv[0] in VERBS else "sweep"
    if verb == "sweep" and "=" not in argv[0] and argv[0][0] not in "-+~":
        raise ConfigError(_unknown_verb(argv))
    if verb == "sweep":
        _refuse_late_verb(argv)
    module = importlib.import_module(f"duqsweep.verbs.{verb}")
    code: int = module.main(argv if verb == "sweep" else argv[1:])
    return code


def _refuse_late_verb(argv: list[str]) -> None:
    """Raise ConfigError for a verb behind options, as in `--config-dir conf plan +sweep=x`."""
    for previous, word in itertools.pairwise(argv):
        if word in VERBS and not (previous.startswith("--") and "=" not in previous):
            rest = [other for other in argv if other != word]
            raise ConfigError(
                f"the verb comes first: python -m duqsweep {shlex.join([word, *rest])}"
            )


def _unknown_verb(argv: list[str]) -> str:
    from duqsweep.conf_dir import group_options

    word = argv[0]
    meant = next(iter(difflib.get_close_matches(word.lower(), VERBS, n=1)), None)
    if word in group_options()["sweep"]:
        hint = f" (did you mean '+sweep={word}'?)"
    else:
        hint = f" (did you mean {' '.join([meant, *argv[1:]])!r}?)" if meant else ""
    return f"unknown verb {word!r}{hint}; verbs are {', '.join(VERBS)}"


def _group_lines(group: str, names: list[str]) -> str:
    """`suite=duq_mini|libero_10|…`, wrapped between names."""
    lines, margin = [f"  {group}="], " " * len(f"  {group}=")
    for i, name in enumerate(names):
        word = name if i == len(names) - 1 else f"{name}|"
        if len(lines[-1]) + len(word) > HELP_WIDTH:
            lines.append(margin)
        lines[-1] += word
    return "\n".join(lines)


def help_text() -> str:
    """The text of --help; lists what conf/ holds without composing it."""
    from duqsweep.conf_dir import group_options

    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    options = group_options()
    sweeps = " ".join(options.pop("sweep"))
    groups = "\n".join(_group_lines(group, names) for group, names in options.items())
    return f"""\
duqsweep {__version__}: the fastest quantized form of a robot policy that still does its job

A sweep, started or resumed where it stopped:
  python -m duqsweep +sweep=NAME [key=value …]
  sweeps: {sweeps}
  launcher=slurm --as-job makes the sweep's own process a job as well

Groups:
{groups}
All keys: python -m duqsweep +sweep=NAME --cfg job      Your own sweeps: --config-dir DIR

Verbs:
{verbs}

Exit codes: 0 done · 1 not done: something outside, such as a machine or a scheduler, stands in the
way; the same command resumes · 2 a mistake in the configuration, nothing was started · 3 done, but
more trials failed than tolerated · 130 interrupted: the same command resumes
"""
