"""The real processes, started as a user starts them: a job to its adapter, tenants side by side, a killed worker."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from osora import Osora, OsoraAPIError
from osora.schemas import AdapterFormat
from tests.acceptance.conftest import Service, child, dataset, serving

ROOT = Path(__file__).parents[2]
QUESTION = [{"role": "user", "content": "Which city?"}]
LONG = 24
"""Epochs of a job that still trains when who follows it has noticed that it has begun, and done something."""


def submit(sdk: Osora, path: Path, epochs: int, **body: Any) -> str:
    file = sdk.files.upload(path)
    hyperparameters = {"n_epochs": epochs, "batch_size": 8}
    job = sdk.jobs.create("osora-tiny", file["id"], hyperparameters=hyperparameters, seed=1, **body)
    return str(job["id"])


def finish(sdk: Osora, job_id: str) -> Any:
    """The job once its event stream has ended."""
    for _ in sdk.jobs.events(job_id):
        pass
    return sdk.jobs.get(job_id)


def answer(sdk: Osora, adapter_id: str | None) -> Any:
    return sdk.generate(QUESTION, adapter=adapter_id, max_tokens=12)


@pytest.fixture(scope="module")
def adapters(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Osora, str]]]:
    """Two tenants, each with a client and an adapter that answers in its own way; trained side by side."""
    folder = tmp_path_factory.mktemp("data")
    submitted, trained = {}, {}
    with ExitStack() as clients:
        for tenant, city in (("north", "Oslo"), ("south", "Lima")):
            service.sdk.tenants.create(tenant)
            key = service.sdk.keys.create(name="test", tenant=tenant)["key"]
            sdk = clients.enter_context(Osora(service.url, key))
            submitted[tenant] = (sdk, submit(sdk, dataset(folder / f"{city}.jsonl", city), epochs=8))
        for tenant, (sdk, job_id) in submitted.items():
            job = finish(sdk, job_id)
            assert job["status"] == "succeeded", job
            trained[tenant] = (sdk, job["fine_tuned_model"])
        yield trained


def test_a_job_becomes_an_adapter_that_changes_the_output(
    service: Service, adapters: dict[str, tuple[Osora, str]]
) -> None:
    sdk, model = adapters["north"]
    tuned, bare = answer(sdk, model), answer(sdk, None)
    assert tuned["text"] == "Oslo"
    assert bare["text"] != tuned["text"]
    receipt = tuned["receipt"]
    listed = next(a for a in sdk.adapters.list() if a["name"] == model)
    assert receipt["adapter_name"] == model
    assert receipt["adapter_sha256"] == listed["sha256"]
    assert bare["receipt"]["adapter_sha256"] is None


def test_tenants_in_one_batch_get_what_they_get_alone(adapters: dict[str, tuple[Osora, str]]) -> None:
    alone = {tenant: answer(sdk, model)["text"] for tenant, (sdk, model) in adapters.items()}
    assert alone == {"north": "Oslo", "south": "Lima"}
    asked = [tenant for tenant in adapters for _ in range(16)]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda tenant: answer(*adapters[tenant])["text"], asked))
    assert together == [alone[tenant] for tenant in asked]


def test_an_adapter_leaves_the_house_and_answers_as_it_did(
    service: Service, adapters: dict[str, tuple[Osora, str]], tmp_path: Path
) -> None:
    """As a LoRA in a PEFT that knows nothing of us, and merged into a plain checkpoint and a GGUF file."""
    sdk, model = adapters["south"]
    forms: tuple[AdapterFormat, ...] = ("lora", "merged", "gguf")
    for form in forms:
        sdk.adapters.download(model, tmp_path / f"{form}.zip", form)
        with zipfile.ZipFile(tmp_path / f"{form}.zip") as archive:
            archive.extractall(tmp_path / form)
    program = """
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
merged = AutoModelForCausalLM.from_pretrained("merged", dtype="float32")
from peft import PeftModel
lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="float32"), "lora")
(file,) = Path("gguf").glob("*.gguf")
single = AutoModelForCausalLM.from_pretrained("gguf", gguf_file=file.name, dtype="float32")
tokenizer = AutoTokenizer.from_pretrained("merged")
asked = [{"role": "user", "content": "Which city?"}]
text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
for made in (merged, lora, single):
    answer = made.generate(**tokens, max_new_tokens=12, do_sample=False)[0, tokens["input_ids"].shape[1]:]
    print(tokenizer.decode(answer, skip_special_tokens=True))
assert not [name for name in sys.modules if name.startswith("osora")]
"""
    command = [sys.executable, "-P", "-c", program, str(ROOT / "models" / "osora-tiny")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Lima"] * 3


@pytest.mark.parametrize("pulled", [False, True])
def test_an_adapter_as_it_was_trained_answers_in_peft_as_it_did(
    adapters: dict[str, tuple[Osora, str]], tmp_path: Path, pulled: bool
) -> None:
    """On more threads than the service loads a base with, in both dtypes; the basis computed here, or the service's."""
    sdk, model = adapters["south"]
    sdk.adapters.download(model, tmp_path / "adapter.zip")
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        archive.extractall(tmp_path / "adapter")
    environment = {**os.environ, "OSORA_CACHE": str(tmp_path / "cache")}
    if pulled:
        basis = sdk.pull_basis("osora-tiny", tmp_path / "bases")
        assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["basis_fingerprint"] == basis.stem
        environment["OSORA_BASIS_FROM"] = str(basis.parent)
    program = """
import sys
import torch
torch.set_num_threads(3)
import osora_core
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
asked = [{"role": "user", "content": "Which city?"}]
text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
for dtype in ("float32", "bfloat16"):
    base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=dtype)
    made = PeftModel.from_pretrained(base, "adapter")
    answer = made.generate(**tokens, max_new_tokens=12, do_sample=False)[0, tokens["input_ids"].shape[1]:]
    print(tokenizer.decode(answer, skip_special_tokens=True))
"""
    command = [sys.executable, "-c", program, str(ROOT / "models" / "osora-tiny")]
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Lima", "Lima"]


def test_a_tenant_cannot_call_anothers_adapter(adapters: dict[str, tuple[Osora, str]]) -> None:
    north, south = adapters["north"], adapters["south"]
    with pytest.raises(OsoraAPIError) as refused:
        answer(north[0], south[1])
    assert refused.value.status == 404


def test_a_suspended_tenants_job_is_set_aside_and_taken_up_again(service: Service, tmp_path: Path) -> None:
    tenant = service.sdk.tenants.create("suspended")["name"]
    key = service.sdk.keys.create("test", tenant=tenant)["key"]
    with Osora(service.url, key) as sdk:
        job_id = submit(sdk, dataset(tmp_path / "data.jsonl", "Oslo", rows=512), epochs=50)
        said = sdk.jobs.events(job_id)
        next(event for event in said if event["type"] == "metrics")
        service.sdk.tenants.suspend(tenant)
        # Who follows the job comes back, as after any stream that has ended, and is refused.
        with pytest.raises(OsoraAPIError) as refused:
            for _ in said:
                pass
        assert (refused.value.status, refused.value.code) == (403, "tenant_suspended")
        given_back = "Job returned to the queue: its tenant is suspended"
        log = service.data_dir / "logs" / "worker.log"
        deadline = time.monotonic() + 60
        while f"job {job_id}: attempt 1 is over" not in log.read_text():
            assert time.monotonic() < deadline, "the job goes on"
            time.sleep(0.1)
        service.sdk.tenants.resume(tenant)
        for event in sdk.jobs.events(job_id):
            if "(attempt 2)" in event["message"]:
                break
        sdk.jobs.cancel(job_id)
        assert given_back in [event["message"] for event in sdk.jobs.list_events(job_id)]


@pytest.mark.timeout(1800)
def test_a_job_survives_its_worker_being_killed(service: Service, tmp_path: Path) -> None:
    """kill -9 after a checkpoint: another worker process resumes from it, and the job succeeds."""
    sdk = service.sdk
    job_id = submit(sdk, dataset(tmp_path / "rome.jsonl", "Rome", rows=64), epochs=LONG)
    killed = False
    for event in sdk.jobs.events(job_id):
        if not killed and event["message"].startswith("Checkpoint created"):
            child(service, "worker").send_signal(signal.SIGKILL)
            killed = True
    job = sdk.jobs.get(job_id)
    assert killed
    assert job["status"] == "succeeded", job
    outcomes = [attempt["outcome"] for attempt in job["osora"]["attempts"]]
    assert outcomes == ["lost", "succeeded"]
    assert job["osora"]["attempts"][1]["first_step"] > 0
    assert answer(sdk, job["fine_tuned_model"])["text"] == "Rome"


def test_a_sweep_from_the_command_line(service: Service, tmp_path: Path) -> None:
    """A rate that learns nothing, one that learns, one that is absurd: the job tells all three and keeps the second."""
    path = dataset(tmp_path / "bern.jsonl", "Bern")
    command = [sys.executable, "-P", "-m", "osora", "train", str(path), "--learning-rate", "1e-6,0.05,1e6"]
    env = {**os.environ, "OSORA_URL": service.url, "OSORA_API_KEY": service.key}
    options = ["--epochs", "8", "--batch-size", "8", "--json"]
    done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *events, job = map(json.loads, done.stdout.splitlines())
    assert job["osora"]["resolved"]["learning_rate"] == 0.05
    assert job["hyperparameters"]["n_epochs"] == 8
    assert job["trained_tokens"] == max(event["data"].get("trained_tokens", 0) for event in events)
    assert any("2 training rows that none of them trains on" in event["message"] for event in events)
    contents = {}
    for file_id in job["result_files"]:
        headers = {"authorization": f"Bearer {service.key}"}
        contents[file_id] = httpx.get(f"{service.url}/files/{file_id}/content", headers=headers, timeout=60).text
        assert any(event["data"].get("file_id") == file_id for event in events)
    curve, family = (list(csv.DictReader(io.StringIO(text))) for text in contents.values())
    chosen = [line for line in family if float(line["learning_rate"]) == 0.05]
    assert [line["train_loss"] for line in chosen] == [line["train_loss"] for line in curve]
    assert {float(line["learning_rate"]) for line in family} == {1e-6, 0.05, 1e6}
    assert chosen[-1]["outcome"] == "chosen"
    assert answer(service.sdk, job["fine_tuned_model"])["text"] == "Bern"


@pytest.mark.timeout(1800)
def test_a_service_that_is_stopped_and_started_again_continues_its_jobs(tmp_path: Path) -> None:
    """Its private Redis forgets everything meanwhile."""
    with serving(tmp_path / "home") as before:
        job_id = submit(before.sdk, dataset(tmp_path / "bonn.jsonl", "Bonn", rows=64), epochs=LONG)
        for event in before.sdk.jobs.events(job_id):
            if event["message"].startswith("Checkpoint created"):
                break
    with serving(tmp_path / "home") as after:
        job = finish(after.sdk, job_id)
    assert job["status"] == "succeeded", job
    first, second = job["osora"]["attempts"]
    assert (first["outcome"], first["reason"]) == ("released", "its worker is stopping")
    assert second["outcome"] == "succeeded"
    assert second["first_step"] >= first["last_step"] > 0  # from the very step at which it was stopped


def test_every_checkpoint_can_be_called_as_soon_as_it_is_told_of(service: Service, tmp_path: Path) -> None:
    """By the name in its event while the job runs, then all that are listed, by id, and the adapter itself."""
    sdk = service.sdk
    valid = sdk.files.upload(dataset(tmp_path / "valid.jsonl", "Rome", rows=4))["id"]
    train = dataset(tmp_path / "train.jsonl", "Rome")
    osora = {"early_stopping_patience": 3}
    job_id = submit(sdk, train, epochs=8, suffix="rome", validation_file=valid, osora=osora)
    first, again = [], []

    def timed(model: str) -> tuple[float, Any]:
        asked_at = time.monotonic()
        receipt = answer(sdk, model)["receipt"]
        return time.monotonic() - asked_at, receipt

    for event in sdk.jobs.events(job_id):
        # Those within an epoch may be superseded by now.
        if event["message"].startswith("Checkpoint created") and event["data"]["step"] % 3 == 0:
            seconds, receipt = timed(event["data"]["model"])
            first.append(seconds)
            again.append(timed(event["data"]["model"])[0])
            assert (receipt["job_id"], receipt["step"]) == (job_id, event["data"]["step"])
            assert receipt["adapter_name"] == event["data"]["model"]
    # Events are looked for every 0.3 s, so 0.7 is what is left of a second, on a machine that has time.
    assert min(first) < 0.7 + 4 * min(again)
    job = sdk.jobs.get(job_id)
    assert job["status"] == "succeeded", job
    checkpoints = list(sdk.jobs.checkpoints(job_id))
    epochs = [c["step_number"] for c in checkpoints if c["step_number"] % 3 == 0]
    assert epochs == list(range(job["osora"]["step"], 0, -3))
    losses = {c["step_number"]: c["metrics"]["full_valid_loss"] for c in checkpoints if c["step_number"] % 3 == 0}
    adapter = sdk.adapters.get(job["fine_tuned_model"])
    assert adapter["step"] == min(losses, key=lambda step: (losses[step], step))
    texts = {c["step_number"]: answer(sdk, c["id"])["text"] for c in checkpoints}
    kept = answer(sdk, adapter["id"])
    assert (kept["text"], kept["receipt"]["step"]) == (texts[adapter["step"]], adapter["step"])
    with pytest.raises(OsoraAPIError, match="has kept those of step") as refused:
        answer(sdk, checkpoints[0]["fine_tuned_model_checkpoint"].rpartition("-")[0] + "-1")
    assert refused.value.status == 404
    # Another job goes on from one of them, named as its model.
    begun_with = checkpoints[0]["fine_tuned_model_checkpoint"]
    next_one = sdk.jobs.create(begun_with, sdk.files.upload(train)["id"], hyperparameters={"n_epochs": 1}, seed=2)
    more = finish(sdk, next_one["id"])
    assert (more["status"], more["model"]) == ("succeeded", "osora-tiny"), more
    assert answer(sdk, more["fine_tuned_model"])["text"] == "Rome"
    sdk.adapters.delete(begun_with)
    with pytest.raises(OsoraAPIError, match="has kept those of step"):
        answer(sdk, begun_with)


def test_preferences_raise_the_preferred_answers(service: Service, tmp_path: Path) -> None:
    """Of two answers that the base gives no thought to, one becomes likelier than the other."""
    path = tmp_path / "preferences.jsonl"
    asked = ["Which city?", "Name a city.", "Where to?", "Tell me the place."]
    with path.open("w") as file:
        for index in range(16):
            row = {
                "input": {"messages": [{"role": "user", "content": asked[index % len(asked)]}]},
                "preferred_output": [{"role": "assistant", "content": "Lima"}],
                "non_preferred_output": [{"role": "assistant", "content": "Oslo"}],
            }
            file.write(json.dumps(row) + "\n")
    sdk = service.sdk
    rows = sdk.files.upload(path)["id"]
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 4, "batch_size": 8, "beta": 0.2}}}
    job = sdk.jobs.create("osora-tiny", rows, validation_file=rows, method=method, seed=1)
    found = finish(sdk, job["id"])
    assert found["status"] == "succeeded", found
    assert found["method"]["type"] == "dpo"
    assert found["method"]["dpo"]["hyperparameters"]["beta"] == 0.2

    def likelihood(city: str, adapter: str | None) -> float:
        """The log-probability of an answer that can only be this one."""
        told = sdk.generate(QUESTION, adapter=adapter, max_tokens=8, regex=city, logprobs=True, temperature=0)
        assert told["text"] == city
        return sum(token["logprob"] for token in told["choices"][0]["logprobs"])

    tuned = found["fine_tuned_model"]
    gained = {city: likelihood(city, tuned) - likelihood(city, None) for city in ("Lima", "Oslo")}
    assert gained["Lima"] > gained["Oslo"] + 1
