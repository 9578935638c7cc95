// The official Rust tokenizers library, asked from outside: node rust-library.cjs NODE_MODULES encode|time TOKENIZER.json TEXTS.json
// encode prints, for each text, its ids, offsets, tokens and decoding; time prints seconds for all texts, best of five.
const fs = require('fs');
const path = require('path');
const [, , modules, mode, file, textsFile] = process.argv;
const { Tokenizer } = require(path.join(modules, 'tokenizers'));

async function main() {
  const tokenizer = Tokenizer.fromFile(file);
  const texts = JSON.parse(fs.readFileSync(textsFile, 'utf8'));
  if (mode === 'time') {
    let best = Infinity;
    for (let round = 0; round < 5; round++) {
      const start = process.hrtime.bigint();
      for (const text of texts) await tokenizer.encode(text, null, { addSpecialTokens: false });
      best = Math.min(best, Number(process.hrtime.bigint() - start) / 1e9);
    }
    console.log(best);
    return;
  }
  const results = [];
  for (const text of texts) {
    const encoding = await tokenizer.encode(text);
    const ids = encoding.getIds();
    results.push([ids, encoding.getOffsets().flat(), encoding.getTokens(), await tokenizer.decode(ids, false), await tokenizer.decode(ids, true)]);
  }
  process.stdout.write(JSON.stringify(results));
}

main().catch(error => { console.error(String(error)); process.exit(1); });
