"""What a job is asked at each evaluation."""

from osora_core.data import Renderer
from osora_core.errors import UserError
from registry.jobs import Attempt


def sample_prompts(attempt: Attempt, renderer: Renderer) -> list[list[int]]:
    """The prompts to sample from, as the training file's rows are: turns of a user, or text to be continued.

    Raises UserError, naming it, for one that is empty or leaves no room for an answer.
    """
    tokens = []
    for index, prompt in enumerate(attempt.osora.get("sample_prompts", ())):
        if attempt.training_file.format in ("completion", "text"):
            found = renderer.encode(prompt)
        else:
            found = renderer.prompt([{"role": "user", "content": prompt}])
        if not 0 < len(found) < renderer.max_length:
            raise UserError(
                f"sample prompt {index + 1} is {len(found)} tokens long, and {renderer.max_length} is the limit",
                param=f"osora.sample_prompts[{index}]",
                next_action="shorten it, and submit the job again",
            )
        tokens.append(found)
    return tokens
