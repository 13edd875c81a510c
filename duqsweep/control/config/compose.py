"""Composes a configuration from overrides by Hydra, and puts Hydra's errors into one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from duqsweep.conf_dir import conf_dir, group_options, has_own, own_conf_dir
from duqsweep.control.config.schema import register, schema
from duqsweep.control.config.settings import did_you_mean
from duqsweep.control.config.sweep_file import check_sweep_file, line_of
from duqsweep.control.config.words import in_hydras_grammar
from duqsweep.errors import ConfigError

# Hydra would take a range in a value for a request to run every value; ours are the space itself.
_SPACE_EDIT = re.compile(r"(\+{0,2}|~)(space|when)\.([^=]+)(?:=(.*))?", re.DOTALL)


def load(overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """Compose conf/config.yaml with the words of a command line.

    Besides Hydra's forms, `sweep=NAME` works without a plus, and `space.KEY=choice(…)`,
    `when.KEY=…` and `~space.KEY` change the space unquoted.

    Args:
        overrides: `KEY=VALUE`, `GROUP=OPTION`, `+KEY=VALUE`, `~KEY`.
        config_dir: Another folder laid out as conf/, e.g. with own sweeps; without it, conf/ in
            the working directory where that has a folder `sweep`.

    Raises:
        ConfigError: What was asked for does not exist, has the wrong type or cannot be parsed.
    """
    # Hydra takes long to import, and a sweep's own sweep.yaml needs none of it.
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    register()
    config_dir = own_conf_dir() if config_dir is None and has_own() else config_dir
    edits = [edit for edit in map(_SPACE_EDIT.fullmatch, overrides) if edit]
    plain = [_plain(word) for word in overrides if not _SPACE_EDIT.fullmatch(word)]
    sweep_file = _sweep_file(plain, config_dir)
    if sweep_file is not None:
        check_sweep_file(sweep_file)
    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"--config-dir must be a folder, there is none at {config_dir}")
        plain.append(f"hydra.searchpath=['file://{config_dir.absolute()}']")
    try:
        with initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
            config = hydra_compose("config", overrides=plain)
        _refuse_added_keys(config)
        for edit in edits:
            _edit(config, *edit.groups())
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_with_line(explain(error), sweep_file)) from error
    except ValueError as error:  # Hydra's own for a group that is given a number
        raise ConfigError(f"{error}, in: {' '.join(plain)}") from error
    return config


def as_yaml(config: DictConfig) -> str:
    """The whole configuration as YAML; what comes from the environment stays a reference."""
    try:
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    raw = OmegaConf.to_container(config, resolve=False)
    kept = _with_references(raw, resolved, (), raw)
    return OmegaConf.to_yaml(OmegaConf.create(kept))


def _with_references(raw: Any, resolved: Any, path: tuple[Any, ...], whole: Any) -> Any:
    """`resolved`, with what depends on the environment as in `raw`, which lies at `path`."""
    if isinstance(raw, dict) and isinstance(resolved, dict):
        return {key: _with_references(raw[key], resolved[key], (*path, key), whole) for key in raw}
    if isinstance(raw, list) and isinstance(resolved, list):
        pairs = enumerate(zip(raw, resolved, strict=True))
        return [_with_references(*pair, (*path, i), whole) for i, pair in pairs]
    return raw if _from_environment(raw, path, whole) else resolved


def _from_environment(raw: Any, path: tuple[Any, ...], whole: Any) -> bool:
    """Whether a value refers to the environment, itself or through other keys.

    A chain of references ends, since the configuration was resolved.
    """
    if isinstance(raw, dict):
        return any(_from_environment(item, (*path, key), whole) for key, item in raw.items())
    if isinstance(raw, list):
        return any(_from_environment(item, (*path, i), whole) for i, item in enumerate(raw))
    if not isinstance(raw, str):
        return False
    if "${oc.env:" in raw:
        return True
    for dots, dotted in re.findall(r"\$\{(\.*)([\w.\[\]]+)\}", raw):
        start = path[: len(path) - len(dots)] if dots else ()
        where = (*start, *re.findall(r"\w+", dotted))
        if _from_environment(_at(whole, where), where, whole):
            return True
    return False


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[int(key)] if isinstance(node, list) else node[key]
    return node


def explain(error: Exception) -> str:
    """One line for the user from an error of Hydra, OmegaConf or YAML."""
    text = str(error)
    missing = re.search(r"Could not find '([^/']+)/([^']+)'", text)
    if missing:
        group, option = missing.groups()
        options = re.findall(r"^\t(\S+)$", text.partition("Config search path")[0], re.MULTILINE)
        listed = f"; {group} is one of: {', '.join(options)}" if options else ""
        return f"unknown {group} {option!r}{did_you_mean(option, options)}{listed}"
    if "requires --multirun" in text or text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0]}: a range can only stand in the space: space.KEY=choice(…)"
    if isinstance(error, YAMLError):
        return "not YAML: " + " ".join(text.split())
    origin = re.match(r"In '([^']+)': \w+ raised while composing config:\s*", text)
    if origin:
        return f"{origin[1]}.yaml: {_reason(text[origin.end() :])}"
    return _reason(str(error.__cause__) if "full_key:" in str(error.__cause__) else text)


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    full_key = next((line[9:].strip() for line in lines if line.startswith("full_key:")), "")
    unknown = re.match(r"Key '([^']*)' (?:is )?not in", lines[0])
    if unknown:
        key = full_key or unknown[1]
        known = [*_known_keys(), *group_options()]
        return f"there is no key {key!r}{did_you_mean(key, known)}"
    reason = lines[0]
    if re.match(r"mismatched|extraneous|no viable|token recognition", reason):
        reason += "; put values that hold ( ) , | : = into quotes, e.g. 'key=\"a|b\"'"
    return f"{full_key}: {reason}" if full_key else reason


def _plain(word: str) -> str:
    if re.match(r"[+~]*hydra[./]", word):
        raise ConfigError(f"{word} has no effect: Hydra only composes the configuration here")
    if "=" not in word and not word.startswith("~"):
        raise ConfigError(
            f"overrides are KEY=VALUE, GROUP=OPTION, +KEY=VALUE or ~KEY, got {word!r}"
        )
    return in_hydras_grammar(f"+{word}" if word.startswith("sweep=") else word)


def _sweep_file(words: Sequence[str], config_dir: Path | None) -> Path | None:
    """The file that `+sweep=NAME` asks for."""
    names = [word.partition("=")[2] for word in words if word.startswith("+sweep=")]
    folders = [folder for folder in (config_dir, conf_dir()) if folder is not None]
    paths = [folder / "sweep" / f"{name}.yaml" for name in names for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def _with_line(text: str, path: Path | None) -> str:
    """An explanation that names the sweep's file, with the line in it."""
    found = path and re.match(r"sweep/[^:]+\.yaml: ([\w.]+): ", text)
    line = path and found and line_of(path, found[1])
    return text if not line else f"{path}:{line}: {text.partition(': ')[2]}"


def _refuse_added_keys(config: DictConfig) -> None:
    """Raise OmegaConf's error for a key that `+KEY=VALUE` forced past the schema."""
    if _has_added_keys(config):  # the merge takes a quarter of the time of composing
        OmegaConf.merge(schema(), OmegaConf.to_container(config))


def _has_added_keys(node: Any) -> bool:
    """Whether a record of the schema, here or below, has a key that is no field of it."""
    if isinstance(node, ListConfig):
        return any(map(_has_added_keys, node._iter_ex(resolve=False)))
    if not isinstance(node, DictConfig):
        return False
    record = OmegaConf.get_type(node)
    if is_dataclass(record) and not {field.name for field in fields(record)}.issuperset(node):
        return True
    return any(_has_added_keys(node._get_node(key)) for key in node)


def _edit(config: DictConfig, sign: str, group: str, key: str, value: str | None) -> None:
    OmegaConf.set_struct(config[group], False)
    if sign == "~":
        if key not in config[group]:
            raise ConfigError(f"{group} has no key {key!r}{did_you_mean(key, config[group])}")
        del config[group][key]
        return
    if value is None:
        raise ConfigError(f"{group}.{key} needs a value: {group}.{key}=…")
    config[group][key] = value


def _known_keys() -> list[str]:
    return _dotted("", OmegaConf.to_container(schema()))


def _dotted(prefix: str, node: Any) -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    inside = [f"{prefix}.{key}".lstrip(".") for key in node]
    below = [p for key, item in zip(inside, node.values(), strict=True) for p in _dotted(key, item)]
    return [prefix, *below] if prefix else below
