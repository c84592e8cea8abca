"""What OSoRA learns beside LoRA, VeRA, PiSSA, PSOFT, IA3, LoRA-XS and full fine-tuning, each at rates of its own.

    python -m benchmarks.quality --base DIR --data DIR --device cuda --json quality.json --seconds 500
    python -m benchmarks.quality --data DIR --datasets banking77 --rows 512 --methods osora-128 vera-256 lora-8
    python -m benchmarks.quality --base smollm2-135m --json quality.json --plot docs

The data folder holds banking77/{train,test}.csv, snips/{train,test}.jsonl and gsm8k/{train,test}.jsonl. Every method
tries a few rates with the first seed, and then the neighbours that the best of them lacks, until it lies inside what
was tried; the rates that are best on rows kept back from training then run with the other seeds. The table shows the
test set: the share of answers that greedy decoding gets right to the last token (banking77's label, snips' JSON), or
the loss in nats a token (gsm8k, where less is better).

The runs of one method train side by side over one base, and its `seconds` are its share of their time, evaluation
included. Everything is computed over a base in float32 on a CPU, and in bfloat16 on a GPU (`--dtype`); what is trained
is float32. Every batch of runs is written to `--json` as soon as it has ended, and not repeated when the program is
started again with the same file: it can be stopped at any time, and `--seconds` begins no batch after so long. Without
`--data` nothing is trained; table, targets and `--plot` then show what the file holds.

On a GPU machine that takes a limited tree at a time, carry the base in parts: `split -b 50M model.safetensors part-`,
copy a part at a time beside config.json and the tokenizer's files, `cat part-* > model.safetensors` there, and compare
`sha256sum`. The three datasets are 10 MB. Bring the JSON back after each call and carry it there again with the next.
$OSORA_CACHE (default ~/.cache/osora) keeps the base's bases of singular vectors from call to call.
"""
