"""From a fine-tuning job there to the request for one here, and what differs between the two."""

import re
from dataclasses import dataclass, field
from typing import Any

from osora.migrate.text import one_line

ORIGIN = "imported_from"
OLD_NAME = "imported_model"
# What a job here may ask for (POST /jobs), by the name of the hyperparameter.
_RANGES: dict[str, tuple[type, float, float]] = {"n_epochs": (int, 1, 50), "batch_size": (int, 1, 256)}
_BETA = {"beta": (float, 0, 2)}
_METHODS = ("supervised", "dpo")
_MOST_METADATA = 16
_SUFFIX = re.compile(r"[^A-Za-z0-9._-]+")
_SEEDS = 2**31


class NotImportedError(Exception):
    """A job that is left where it is, and why. `line`: of a file of its, where one is at fault."""

    def __init__(self, reason: str, next_action: str | None = None, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_action = next_action
        self.line = line


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same here."""

    field: str
    there: str
    here: str


@dataclass(frozen=True)
class Plan:
    """A job's request here, without its files. `body`: the fields of POST /jobs beside model and files."""

    source: dict[str, Any]
    base: str
    body: dict[str, Any]
    differences: list[Difference] = field(default_factory=list)

    @property
    def continues(self) -> str | None:
        """The fine-tuned model there that the job went on from."""
        model = str(self.source.get("model") or "")
        return model if model.startswith("ft:") else None


def plan(source: dict[str, Any], base: str, keep_hyperparameters: bool = True) -> Plan:
    """What a job there becomes here. Raises `NotImportedError` for one that has no like here."""
    status = source.get("status")
    if status in ("failed", "cancelled"):
        raise NotImportedError(f"it {'failed' if status == 'failed' else 'was cancelled'} there")
    if status != "succeeded" or not source.get("fine_tuned_model"):
        raise NotImportedError(f"it is {one_line(status)} there", "run this again when it has ended there")
    method = (source.get("method") or {}).get("type", "supervised")
    if method not in _METHODS:
        raise NotImportedError(f"its method is {one_line(method)}; here there are {' and '.join(_METHODS)}")
    differences = [Difference("model", one_line(source.get("model")), base)]
    hyperparameters = _hyperparameters(source, method, keep_hyperparameters, differences)
    body = {
        "method": {"type": method, method: {"hyperparameters": hyperparameters}},
        "suffix": _suffix(source, differences),
        "seed": _seed(source, differences),
        "metadata": _metadata(source, differences),
    }
    if source.get("integrations"):
        kinds = ", ".join(sorted(str(one.get("type")) for one in source["integrations"]))
        differences.append(Difference("integrations", one_line(kinds), "left out"))
    return Plan(source, base, {name: value for name, value in body.items() if value is not None}, differences)


def _hyperparameters(
    source: dict[str, Any], method: str, keep: bool, differences: list[Difference]
) -> dict[str, int | float]:
    """Those of the old place (top level) or of the method's, as far as they mean the same here."""
    given = ((source.get("method") or {}).get(method) or {}).get("hyperparameters") or source.get("hyperparameters")
    given = {name: value for name, value in (given or {}).items() if value not in (None, "auto")}
    ranges = _RANGES | (_BETA if method == "dpo" else {})
    kept: dict[str, int | float] = {}
    for name, value in given.items():
        if keep and name in ranges and _is_within(value, *ranges[name]):
            kept[name] = value
        else:
            differences.append(Difference(name, one_line(value), "auto"))
    return kept


def _is_within(value: Any, kind: type, least: float, most: float) -> bool:
    numbers = (int, float) if kind is float else (int,)
    is_number = isinstance(value, numbers) and not isinstance(value, bool)
    return is_number and least <= value <= most and value > 0


def _suffix(source: dict[str, Any], differences: list[Difference]) -> str | None:
    given = source.get("user_provided_suffix")
    if given is None:  # ft:BASE:ORGANIZATION:SUFFIX:ID
        parts = str(source["fine_tuned_model"]).split(":")
        given = parts[3] if len(parts) == 5 else None
    if not given:
        return None
    suffix = _SUFFIX.sub("-", str(given)).strip("-._")[:64] or None
    if suffix != given:
        differences.append(Difference("suffix", one_line(given), suffix or "left out"))
    return suffix


def _seed(source: dict[str, Any], differences: list[Difference]) -> int | None:
    seed = source.get("seed")
    if seed is None or (isinstance(seed, int) and 0 <= seed < _SEEDS):
        return seed
    differences.append(Difference("seed", one_line(seed), "a new one"))
    return None


def _metadata(source: dict[str, Any], differences: list[Difference]) -> dict[str, str]:
    own = {ORIGIN: source["id"], OLD_NAME: source["fine_tuned_model"]}
    given = {name: value for name, value in (source.get("metadata") or {}).items() if name not in own}
    room = _MOST_METADATA - len(own)
    for name in list(given)[room:]:
        differences.append(Difference(f"metadata {one_line(name)}", one_line(given.pop(name)), "left out"))
    return given | own
