"""Fine-tune on support tickets, ask about others. OPENAI_BASE_URL and OPENAI_API_KEY say where."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI

client = OpenAI()
data = Path(__file__).parent / "support-tickets"
rows = [json.loads(line) for line in (data / "valid.jsonl").open(encoding="utf-8")]

uploaded = [client.files.create(file=data / name, purpose="fine-tune") for name in ("train.jsonl", "valid.jsonl")]
job = client.fine_tuning.jobs.create(
    model="osora-tiny",
    training_file=uploaded[0].id,
    validation_file=uploaded[1].id,
    suffix="tickets",
    seed=1,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 4}}},
    extra_body={"osora": {"rank": 128, "learning_rate": 0.03}},
)
while job.finished_at is None:
    time.sleep(5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    print(job.status, "·", client.fine_tuning.jobs.list_events(job.id, limit=1).data[0].message, flush=True)


def share_of_right_answers(model):
    def is_right(row):
        *question, answer = row["messages"]
        said = client.chat.completions.create(model=model, messages=question, temperature=0, max_completion_tokens=48)
        return said.choices[0].message.content == answer["content"]

    return sum(ThreadPoolExecutor(32).map(is_right, rows)) / len(rows)


for model in (job.model, job.fine_tuned_model or job.model):
    print(f"{model} answers {share_of_right_answers(model):.0%} of {len(rows)} tickets right")
