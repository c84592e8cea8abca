// OpenAI's client for Node, unmodified, against the service that OPENAI_BASE_URL names.
// MODEL is an adapter that says Oslo whatever it is asked.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

const { MODEL, BASE, READER_KEY } = process.env;
const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Which city?" }];
const asked = { messages, temperature: 0, max_completion_tokens: 12 };

const row = JSON.stringify({ messages: [...messages, { role: "assistant", content: "Lima" }] });
const dataset = () => toFile(Buffer.from(`${row}\n`.repeat(12)), "cities.jsonl");
const collect = async (pages) => {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
};

test("files", async () => {
  const ids = [];
  for (let i = 0; i < 3; i++) ids.unshift((await client.files.create({ file: await dataset(), purpose: "fine-tune" })).id);
  assert.equal((await client.files.waitForProcessing(ids[0])).status, "processed");
  assert.equal((await client.files.retrieve(ids[0])).filename, "cities.jsonl");
  assert.equal(await (await client.files.content(ids[0])).text(), `${row}\n`.repeat(12));
  const listed = (await collect(client.files.list({ limit: 2 }))).map((file) => file.id);
  assert.deepEqual(listed.filter((id) => ids.includes(id)), ids);
  for (const id of ids) assert.equal((await client.files.delete(id)).deleted, true);
});

test("jobs", async () => {
  const file = await client.files.create({ file: await dataset(), purpose: "fine-tune" });
  const run = randomUUID();
  const created = await client.fineTuning.jobs.create({
    model: BASE,
    training_file: file.id,
    metadata: { run },
    method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 1 } } },
  });
  assert.equal(created.method.supervised.hyperparameters.n_epochs, 1);
  await client.fineTuning.jobs.cancel(created.id);
  const found = await collect(client.fineTuning.jobs.list({ metadata: { run } }));
  assert.deepEqual(found.map((job) => job.id), [created.id]);
  assert.equal((await client.fineTuning.jobs.retrieve(created.id)).training_file, file.id);
  assert.ok((await collect(client.fineTuning.jobs.listEvents(created.id, { limit: 1 }))).length > 0);
  assert.deepEqual(await collect(client.fineTuning.jobs.checkpoints.list(created.id)), []);
  await assert.rejects(client.fineTuning.jobs.create({ model: BASE, training_file: "file-none" }), OpenAI.NotFoundError);
});

test("models", async () => {
  const ids = (await collect(client.models.list())).map((model) => model.id);
  assert.ok(ids.includes(BASE) && ids.includes(MODEL));
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

test("chats, whole and streamed", async () => {
  const answer = await client.chat.completions.create({ model: MODEL, ...asked });
  assert.equal(answer.choices[0].message.content, "Oslo");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  const stream = client.chat.completions.stream({ model: MODEL, ...asked, stream_options: { include_usage: true } });
  let said = "";
  for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? "";
  assert.equal(said, "Oslo");
  assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "stop");
  assert.equal((await stream.totalUsage()).completion_tokens, answer.usage.completion_tokens);
});

test("answers of a form", async () => {
  const schema = {
    type: "object",
    properties: { name: { enum: ["Oslo", "Lima"] } },
    required: ["name"],
    additionalProperties: false,
  };
  const answer = await client.chat.completions.parse({
    model: MODEL,
    ...asked,
    max_completion_tokens: 64,
    response_format: { type: "json_schema", json_schema: { name: "city", strict: true, schema } },
  });
  assert.ok(["Oslo", "Lima"].includes(answer.choices[0].message.parsed.name));
});

test("completions, whole and streamed", async () => {
  const prompt = { model: BASE, prompt: "The capital of Norway", temperature: 0, max_tokens: 8 };
  const whole = await client.completions.create(prompt);
  let said = "";
  for await (const chunk of await client.completions.create({ ...prompt, stream: true })) said += chunk.choices[0].text;
  assert.equal(said, whole.choices[0].text);
});

test("what goes wrong rejects with what it rejects with there", async () => {
  const chat = (client, body) => client.chat.completions.create({ model: MODEL, ...asked, ...body });
  await assert.rejects(chat(client.withOptions({ apiKey: "osk-wrong" })), OpenAI.AuthenticationError);
  await assert.rejects(client.withOptions({ apiKey: READER_KEY }).models.delete(MODEL), OpenAI.PermissionDeniedError);
  await assert.rejects(chat(client, { model: "gpt-4o-mini" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(chat(client, { temperature: 3 }), OpenAI.BadRequestError);
  const empty = client.files.create({ file: await toFile(Buffer.from("{]\n"), "bad.jsonl"), purpose: "fine-tune" });
  await assert.rejects(empty, (error) => error.code === "invalid_file");
});

test("uploads in parts", async () => {
  const whole = Buffer.from(`${row}\n`.repeat(12));
  const middle = 100; // in the middle of a row
  const upload = await client.uploads.create({
    filename: "parts.jsonl",
    purpose: "fine-tune",
    bytes: whole.length,
    mime_type: "application/jsonl",
  });
  const ids = [];
  for (const piece of [whole.subarray(0, middle), whole.subarray(middle)]) {
    ids.push((await client.uploads.parts.create(upload.id, { data: await toFile(piece, "part") })).id);
  }
  const completed = await client.uploads.complete(upload.id, { part_ids: ids });
  assert.equal(completed.status, "completed");
  assert.equal(await (await client.files.content(completed.file.id)).text(), whole.toString());
  const other = await client.uploads.create({ filename: "x", purpose: "fine-tune", bytes: 1, mime_type: "text/plain" });
  assert.equal((await client.uploads.cancel(other.id)).status, "cancelled");
});

const parameters = {
  type: "object",
  properties: { city: { enum: ["Oslo", "Lima"] } },
  required: ["city"],
  additionalProperties: false,
};

test("tools, whole and streamed", async () => {
  const tool = { type: "function", function: { name: "weather", description: "Today's weather", parameters, strict: true } };
  const body = { model: BASE, ...asked, max_completion_tokens: 100, tools: [tool], tool_choice: "required" };
  const answer = (await client.chat.completions.create(body)).choices[0];
  assert.equal(answer.finish_reason, "tool_calls");
  const [call] = answer.message.tool_calls;
  assert.equal(call.function.name, "weather");
  assert.ok(["Oslo", "Lima"].includes(JSON.parse(call.function.arguments).city));
  const streamed = await client.chat.completions.stream(body).finalMessage();
  assert.deepEqual(streamed.tool_calls[0].function.arguments, call.function.arguments);
  const result = { role: "tool", tool_call_id: call.id, content: "rain" };
  const followed = { ...body, messages: [...messages, answer.message, result], tool_choice: "none" };
  assert.equal(typeof (await client.chat.completions.create(followed)).choices[0].message.content, "string");
});

test("responses, whole and streamed", async () => {
  const body = { model: MODEL, input: "Which city?", temperature: 0, max_output_tokens: 16 };
  const whole = await client.responses.create(body);
  assert.deepEqual([whole.status, whole.output_text], ["completed", "Oslo"]);
  let said = "";
  const stream = client.responses.stream(body);
  stream.on("response.output_text.delta", (event) => (said += event.delta));
  assert.equal((await stream.finalResponse()).output_text, "Oslo");
  assert.equal(said, "Oslo");
  const tools = [{ type: "function", name: "weather", parameters, strict: true }];
  const called = await client.responses.create({ ...body, max_output_tokens: 100, tools, tool_choice: "required" });
  assert.equal(called.output[0].type, "function_call");
  assert.ok(JSON.parse(called.output[0].arguments).city);
});
