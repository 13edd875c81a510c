"""`duqsweep completion bash|zsh`: a script that completes what one types by the tab key.

The script knows verbs, options, groups, keys and their values; the sweeps in conf/ and in sweeps/
of the working directory are looked up when the key is pressed. It starts no Python.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from duqsweep.conf_dir import group_options
from duqsweep.control.config.schema import RootConfig
from duqsweep.control.config.settings import DECLARED, LAYERS, SETTABLE
from duqsweep.verbs.sweep import OPTIONS

SHELLS = ("bash", "zsh")
FREE = ("init", "completion", "logs")  # verbs that take no overrides
SCRIPT = """\
# Tab completion of duqsweep for bash and zsh: python -m duqsweep completion {shell}
_duqsweep_options() {{
    case "$1" in
{options}
        *) echo '{sweep_options}' ;;
    esac
}}
_duqsweep_values() {{
    case "$1" in
{values}
    esac
}}
_duqsweep_sweeps() {{
    local file
    [ -n "$ZSH_VERSION" ] && setopt localoptions nonomatch
    for file in conf/sweep/*.yaml; do
        [ -f "$file" ] && file="${{file##*/}}" && printf '%s ' "${{file%.yaml}}"
    done
    printf '%s' "{sweeps}"
}}
_duqsweep_folders() {{
    local file
    [ -n "$ZSH_VERSION" ] && setopt localoptions nonomatch
    for file in sweeps/*/{sweep_yaml} "$1"*/{sweep_yaml}; do
        [ -f "$file" ] && printf '%s ' "${{file%{sweep_yaml}}}"
    done
}}
_duqsweep() {{
    local line before current verb key list word
    line="${{COMP_LINE:0:$COMP_POINT}}"
    current="${{line##* }}"
    before="${{line#*duqsweep }}"
    verb="${{before%% *}}"
    [ "$verb" = "$current" ] && [ "$before" = "$current" ] && verb=""
    key="${{current%%=*}}"
    list="$(_duqsweep_options "${{verb:-duqsweep}}")"
    case "$verb" in
        {with_folder}) list="$list $(_duqsweep_folders "$current")" ;;
        {free}) ;;
        *)
            if [ "$key" != "$current" ]; then
                list=""
                for word in $(case "$key" in *sweep) _duqsweep_sweeps ;; \
*) _duqsweep_values "$key" ;; esac); do
                    list="$list $key=$word"
                done
            else
                list="$list {keys}"
            fi ;;
    esac
    COMPREPLY=()
    for word in $(compgen -W "$list" -- "$current"); do
        case "$COMP_WORDBREAKS" in  # bash then replaces what follows the last =
            *=*) case "$current" in *=*) word="${{word##*=}}" ;; esac ;;
        esac
        case "$word" in */ | *=) ;; *) word="$word " ;; esac
        COMPREPLY+=("$word")
    done
}}
{register}
"""
REGISTER = {
    "bash": """\
# `python -m duqsweep` too: what completed python before completes all else of it.
declare -F _completion_loader > /dev/null && _completion_loader python
_duqsweep_other="$(complete -p python 2> /dev/null | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')"
[ "$_duqsweep_other" = _duqsweep_python ] && _duqsweep_other=""
_duqsweep_python() {
    case "$COMP_LINE" in
        *" -m duqsweep "*) _duqsweep ;;
        *) [ -z "$_duqsweep_other" ] || "$_duqsweep_other" "$@" ;;
    esac
}
complete -o default -o nospace -F _duqsweep duqsweep
complete -o default -F _duqsweep_python -o nospace python python3""",
    "zsh": """\
autoload -U +X compinit bashcompinit
[ -n "$_comps" ] || compinit
bashcompinit
# `python -m duqsweep` too: what completed python before completes all else of it.
[ "${_comps[python]}" = _duqsweep_python ] || _duqsweep_other="${_comps[python]:-_default}"
_duqsweep_python() {
    if [[ ${words[2]} == -m && ${words[3]} == duqsweep ]]; then
        _bash_complete -o default -o nospace -F _duqsweep
    else
        $=_duqsweep_other
    fi
}
complete -o default -o nospace -F _duqsweep duqsweep
compdef _duqsweep_python python python3""",
}


def main(arguments: list[str]) -> int:
    """Print the script; returns 0."""
    parser = argparse.ArgumentParser(
        prog="duqsweep completion",
        description=__doc__,
        epilog="To have it in every shell: python -m duqsweep completion bash > ~/.duqsweep.sh && "
        "echo 'source ~/.duqsweep.sh' >> ~/.bashrc (for zsh: completion zsh, ~/.zshrc)",
    )
    parser.add_argument("shell", choices=SHELLS)
    print(script(parser.parse_args(arguments).shell), end="")
    return 0


def script(shell: str) -> str:
    """The script for a shell of `SHELLS`."""
    from duqsweep.cli import VERBS
    from duqsweep.files import SWEEP_YAML

    helps = {verb: _help(verb) for verb in VERBS if verb != "completion"}
    options = {verb: " ".join(_options(text)) for verb, text in helps.items()}
    first = [*VERBS, "--help", "--version", *_options(OPTIONS)]
    options |= {"completion": " ".join(SHELLS), "duqsweep": " ".join(first)}
    groups = group_options()
    sweeps = groups.pop("sweep")
    values = {group: " ".join(names) for group, names in groups.items()} | _values()
    keys = [f"{key}=" for key in ("+sweep", *groups, *_keys("", RootConfig))]
    keys += [f"space.{key}=" for key in SETTABLE]
    return SCRIPT.format(
        shell=shell,
        options=_cases(options),
        sweep_options=" ".join(_options(OPTIONS)),
        values=_cases(values),
        sweeps=" ".join(sweeps),
        sweep_yaml=SWEEP_YAML,
        with_folder=" | ".join(verb for verb, text in helps.items() if " DIR" in text),
        free=" | ".join(FREE),
        keys=" ".join(keys),
        register=REGISTER[shell],
    )


def _help(verb: str) -> str:
    """What `VERB --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(f"duqsweep.verbs.{verb}").main(["--help"])
    return printed.getvalue()


def _options(text: str) -> list[str]:
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)))


def _values() -> dict[str, str]:
    """Values of the keys that take only some."""
    found = {}
    for key, declared in DECLARED.items():
        allowed = ("true", "false") if declared.kind is bool else declared.allowed
        if allowed and f"{key}." != LAYERS:
            found[key] = " ".join(map(str, allowed))
    return found


def _keys(prefix: str, section: type[Any]) -> Iterator[str]:
    """Dotted keys of a section of the configuration, groups and free dictionaries left out."""
    for name, hint in get_type_hints(section).items():
        if dataclasses.is_dataclass(hint):
            yield from _keys(f"{prefix}{name}.", hint)  # type: ignore[arg-type]
        elif not str(hint).startswith("dict"):
            yield f"{prefix}{name}"


def _cases(words: Mapping[str, str]) -> str:
    return "\n".join(f"        {name}) echo '{text}' ;;" for name, text in words.items())
