"""Where a base that is added comes from. Names and refusals are tested where they are used: registry, API."""

import pytest

from osora_common.base_source import PACKAGES, check_source, is_made_here, kind_of


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("smollm2-135m", "package"),
        ("/models/a.gguf", "gguf"),
        ("/models/A.GGUF", "gguf"),
        ("/models/Qwen2.5-0.5B", "folder"),
        ("HuggingFaceTB/SmolLM2-135M", "hub"),
        ("osora-tiny", "bundled"),
    ],
)
def test_what_a_source_is(source: str, kind: str) -> None:
    assert kind_of(source) == kind
    assert is_made_here(source) == (kind in ("package", "gguf"))
    check_source(source)


def test_packages_say_which_file_in_full() -> None:
    for package in PACKAGES.values():
        assert len(package.sha256) == 64
        assert package.member.startswith(f"{package.module}/")
