"""From the names that the API has for things to the command line's own: an error about `n_epochs` means --epochs."""

import re

# A name that is an everyday word as well (`base`, `stop`) counts only where it is marked as a field.
_FLAGS = {
    "adapter_id": "--adapter",
    "base": "--base",
    "batch_size": "--batch-size",
    "beta": "--beta",
    "early_stopping_patience": "--patience",
    "event_type": "--event",
    "event_types": "--event",
    "expires_in": "--expires",
    "expected_version": "--expected-version",
    "from_adapter": "--from-adapter",
    "json_schema": "--schema",
    "keep": "--keep",
    "learning_rate": "--learning-rate",
    "max_tokens": "--max-tokens",
    "messages": "PROMPT",
    "method": "--method",
    "mix": "--mix",
    "mix_rate": "--mix-rate",
    "model": "--base",
    "n_epochs": "--epochs",
    "name": "NAME",
    "overlong": "--overlong",
    "priority": "--priority",
    "preset": "--preset",
    "probe": "--probe",
    "prompt": "PROMPT",
    "rank": "--rank",
    "sample_prompts": "--sample",
    "scopes": "--scope",
    "seed": "--seed",
    "sigma_rate": "--sigma-rate",
    "stop": "--stop",
    "strength": "--strength",
    "suffix": "--suffix",
    "targets": "TARGET",
    "temperature": "--temperature",
    "tenant": "--tenant",
    "top_p": "--top-p",
    "training_file": "FILE",
    "url": "URL",
    "validation_file": "--validation",
    "validation_share": "--validation-share",
}
_PATH = r"(?:(?:osora|hyperparameters|method|supervised|dpo)\.)"
_NAMES = "|".join(sorted(_FLAGS, key=len, reverse=True))
_MARKED = re.compile(rf"`{_PATH}*({_NAMES})`(?!\s*:)")
_QUALIFIED = re.compile(rf"(?<![\w.`-]){_PATH}+({_NAMES})\b")
_OF_A_FILE = re.compile(r"line \d+: ")
_UNDERSCORED = re.compile(rf"(?<![\w.`-])({'|'.join(name for name in _FLAGS if '_' in name)})\b")


def in_flags(text: str, param: str | None = None) -> str:
    """The text with fields of the API as flags. `param`: the field that the error is about, which may begin it.

    What is said of a line of a file stays as it is: its fields are the file's.
    """
    if _OF_A_FILE.match(text):
        return text
    for pattern in (_MARKED, _QUALIFIED, _UNDERSCORED):
        text = pattern.sub(lambda found: _FLAGS[found[1]], text)
    if param in _FLAGS and re.match(rf"{param}\b", text):
        text = _FLAGS[param] + text[len(param) :]
    return text
