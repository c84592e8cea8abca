"""What is known of bases refuses a job before anything is computed for it."""

import pytest

from registry.bases import Offer, check_mix
from registry.errors import InvalidRequest


@pytest.mark.parametrize(("largest", "mix"), [(64, 64), (64, 0), (0, 0), (None, 512)])
def test_a_mix_that_servers_hold_or_say_nothing_of_may_be_trained(largest: int | None, mix: int) -> None:
    check_mix({"tiny": Offer(largest_mix=largest)}, "tiny", mix)
    check_mix({}, "tiny", mix)


@pytest.mark.parametrize(
    ("largest", "next_action"), [(64, "use 0 to 64, or raise OSORA_INFERENCE_MIX"), (0, "train without a mix")]
)
def test_a_mix_that_no_server_could_hold_is_refused_with_what_to_do(largest: int, next_action: str) -> None:
    with pytest.raises(InvalidRequest, match=f"mix is 65, .* hold mixes of {largest} at most") as refused:
        check_mix({"tiny": Offer(largest_mix=largest)}, "tiny", 65)
    assert refused.value.param == "osora.mix"
    assert next_action in (refused.value.next_action or "")
