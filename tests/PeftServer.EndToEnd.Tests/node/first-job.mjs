// The way of a first job with OpenAI's own client: node first-job.mjs BASE_URL DATA.jsonl
// Prints one JSON object of what the server answered.
import fs from 'node:fs';
import OpenAI from 'openai';

const [baseURL, data] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'none' });

const file = await client.files.create({ file: fs.createReadStream(data), purpose: 'fine-tune' });

// What OpenAI's objects cannot say goes into `peft` and `training`.
let job = await client.fineTuning.jobs.create({
  model: 'tiny-llama',
  training_file: file.id,
  suffix: 'first',
  seed: 7,
  peft: { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: 'all-linear' },
  training: { max_steps: 4, per_device_train_batch_size: 8, learning_rate: 1e-3 },
});

const deadline = Date.now() + 240_000;
while (!['succeeded', 'failed', 'cancelled'].includes(job.status)) {
  if (Date.now() > deadline) {
    throw new Error(`the job is still ${job.status}`);
  }
  await new Promise((resolve) => setTimeout(resolve, 300));
  job = await client.fineTuning.jobs.retrieve(job.id);
}
if (job.status !== 'succeeded') {
  throw new Error(JSON.stringify(job));
}

const metricSteps = [];
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 3 })) { // several pages
  if (event.type === 'metrics' && event.data.train_loss !== undefined) {
    metricSteps.unshift(event.data.step);
  }
}

const models = [];
for await (const model of client.models.list()) {
  models.push(model.id);
}

const question = {
  model: job.fine_tuned_model,
  messages: [{ role: 'user', content: 'Say something.' }],
  max_tokens: 8,
  temperature: 0,
};
const chat = await client.chat.completions.create(question);
let streamed = '';
for await (const chunk of await client.chat.completions.create({ ...question, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? '';
}

const whole = { model: job.fine_tuned_model, prompt: 'Call me', max_tokens: 4, temperature: 0 };
const completion = await client.completions.create(whole);
const echoed = await client.completions.create({ ...whole, echo: true, logprobs: 1, best_of: 2 });
const read = await client.completions.create({ ...whole, prompt: [[5, 6, 7], [8, 9]], max_tokens: 0, echo: true, logprobs: 0 });
const beams = await client.completions.create({ ...whole, n: 2, use_beam_search: true });

let unknownModel = null;
try {
  await client.chat.completions.create({ ...question, model: 'no-such-model' });
} catch (error) {
  unknownModel = { status: error.status, code: error.code };
}

console.log(JSON.stringify({ file, job, metricSteps, models, chat, streamed, completion, echoed, read, beams, unknownModel }));
