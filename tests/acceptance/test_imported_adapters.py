"""A team brings a LoRA that it trained elsewhere: the service answers with it as PEFT does, beside its own adapters."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from osora import Osora
from tests.acceptance.conftest import Service
from tests.support.loras import make_lora, peft_answer

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
BASE = Path(__file__).parents[2] / "models" / "osora-tiny"
ASKED = [{"role": "user", "content": "Which city?"}]
TOKENS = 12


def bring(service: Service, folder: Path, suffix: str) -> dict[str, Any]:
    """The folder as `zip -r` packs it, sent as curl sends it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"{folder.name}/{path.name}")
    response = httpx.post(
        f"{service.url}/adapters", files={"file": packed.getvalue()}, data={"suffix": suffix},
        headers={"authorization": f"Bearer {service.key}"}, timeout=120,
    )  # fmt: skip
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def text_of(sdk: Osora, model: str) -> str:
    return str(sdk.generate(ASKED, adapter=model, max_tokens=TOKENS)["text"])


def test_a_lora_made_with_peft_is_served_as_it_is(service: Service, trained: str, tmp_path: Path) -> None:
    targets = ["q_proj", "v_proj", "up_proj"]
    folder = make_lora(BASE, tmp_path / "brought", size=0.08, r=8, lora_alpha=16, target_modules=targets)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    tokens, _ = peft_answer(BASE, folder, prompt, TOKENS)
    expected = tokenizer.decode(tokens, skip_special_tokens=True)
    lora = bring(service, folder, "brought")
    assert (lora["type"], lora["job_id"], lora["rank"]) == ("lora", None, 8)
    sdk = service.sdk
    bare = str(sdk.generate(ASKED, max_tokens=TOKENS)["text"])
    alone = {lora["name"]: text_of(sdk, lora["name"]), trained: text_of(sdk, trained)}
    assert alone == {lora["name"]: expected, trained: "Oslo"}
    assert len({bare, *alone.values()}) == 3
    asked = [lora["name"], trained] * 12
    with ThreadPoolExecutor(len(asked)) as pool:
        assert list(pool.map(lambda model: text_of(sdk, model), asked)) == [alone[model] for model in asked]
    sdk.adapters.download(lora["id"], tmp_path / "merged.zip", "merged")
    with zipfile.ZipFile(tmp_path / "merged.zip") as archive:
        assert "model.safetensors" in archive.namelist()


def test_an_adapter_that_left_comes_back(service: Service, trained: str, tmp_path: Path) -> None:
    """As it was trained, and as the LoRA that it can be had as."""
    sdk = service.sdk
    for form in ("osora", "lora"):
        sdk.adapters.download(trained, tmp_path / f"{form}.zip", form)
        with zipfile.ZipFile(tmp_path / f"{form}.zip") as archive:
            archive.extractall(tmp_path / form)
        back = bring(service, tmp_path / form, f"back-{form}")
        assert back["type"] == form
        assert text_of(sdk, back["name"]) == "Oslo"
        sdk.adapters.delete(back["name"])
