using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>Broken files of strangers end in clear errors: no other exception, no hang.</summary>
public sealed class FuzzTests(ITestOutputHelper output)
{
    private static readonly string Goldens = Path.Combine(Samples.RepositoryRoot, "tests", "Goldens");

    [Fact]
    public void Tokenizer_MutatedFile_LoadsOrSaysWhatIsWrong() => FuzzTokenizers(400, seed: 7);

    [Fact, Trait("Category", "Long")]
    public void Tokenizer_ManyMutatedFiles_LoadOrSayWhatIsWrong() => FuzzTokenizers(100_000, seed: 70);

    [Fact]
    public void Template_MutatedSource_RendersOrSaysWhatIsWrong() => FuzzTemplates(2_000, seed: 8);

    [Fact, Trait("Category", "Long")]
    public void Template_ManyMutatedSources_RenderOrSayWhatIsWrong() => FuzzTemplates(100_000, seed: 80);

    private void FuzzTokenizers(int inputs, int seed)
    {
        var (random, outcomes) = (new Random(seed), new FuzzOutcomes());
        var files = Directory.EnumerateDirectories(Path.Combine(Goldens, "tokenizers")).Order(StringComparer.Ordinal)
            .Select(d => Slim(File.ReadAllText(Path.Combine(d, "tokenizer.json")))).ToList();
        for (var i = 0; i < inputs; i++)
        {
            var json = JsonNode.Parse(files[random.Next(files.Count)])!;
            for (var change = random.Next(1, 4); change > 0; change--)
            {
                Mutate(json, random);
            }

            outcomes.Try(json.ToJsonString(), text =>
            {
                using var document = JsonDocument.Parse(text);
                var tokenizer = new Tokenizer(TokenizerJson.Read(document.RootElement), new SpecialTokens(), null);
                var encoding = tokenizer.EncodeWithOffsets("Hello  wörld, it's 12 <s> \u0301日本 ab", "pair");
                tokenizer.Decode([.. encoding.Ids, 99_999, -1]);
            });
        }

        output.WriteLine(outcomes.ToString());
    }

    private void FuzzTemplates(int inputs, int seed)
    {
        // A template may make texts of 40 million characters in all, and each goes through some hands.
        var (random, outcomes) = (new Random(seed), new FuzzOutcomes(room: 1_000_000_000));
        var cases = JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(Path.Combine(Goldens, "chat", "cases.json")));
        var templates = cases.GetProperty("templates").EnumerateObject().Select(t => t.Value.GetString()!).ToList();
        var chats = cases.GetProperty("chats").EnumerateObject().Select(c => new Conversation { Messages = [.. c.Value.GetProperty("messages").EnumerateArray()] }).ToList();
        for (var i = 0; i < inputs; i++)
        {
            var source = new StringBuilder(templates[random.Next(templates.Count)]);
            for (var change = random.Next(1, 6); change > 0; change--)
            {
                Mutate(source, templates, random);
            }

            outcomes.Try(source.ToString(), text => ChatTemplate.Parse(text).Render(chats[random.Next(chats.Count)], addGenerationPrompt: random.Next(2) == 0));
        }

        output.WriteLine(outcomes.ToString());
    }

    /// <summary>The same tokenizer with the beginning of its vocabulary: what surrounds it is what is mutated.</summary>
    private static string Slim(string json)
    {
        var root = JsonNode.Parse(json)!;
        var model = root["model"]!;
        switch (model["vocab"])
        {
            case JsonObject vocab:
                model["vocab"] = new JsonObject(vocab.Take(60).Select(e => KeyValuePair.Create(e.Key, e.Value?.DeepClone())));
                break;
            case JsonArray list:
                model["vocab"] = new JsonArray([.. list.Take(60).Select(e => e?.DeepClone())]);
                break;
        }

        if (model["merges"] is JsonArray merges)
        {
            var vocab = model["vocab"]!.AsObject();
            model["merges"] = new JsonArray([.. merges.Where(m => m!.AsArray().All(t => vocab.ContainsKey(t!.GetValue<string>()))
                && vocab.ContainsKey(string.Concat(m!.AsArray().Select(t => t!.GetValue<string>())))).Take(20).Select(m => m!.DeepClone())]);
        }

        root["added_tokens"] = new JsonArray([.. root["added_tokens"]!.AsArray().Take(6).Select(t => t!.DeepClone())]);
        return root.ToJsonString();
    }

    private static void Mutate(JsonNode root, Random random)
    {
        var node = root;
        while (random.Next(6) > 0)
        {
            var child = node switch
            {
                JsonObject { Count: > 0 } map => map.ElementAt(random.Next(map.Count)).Value,
                JsonArray { Count: > 0 } list => list[random.Next(list.Count)],
                _ => null,
            };
            if (child is null or JsonValue)
            {
                break;
            }

            node = child;
        }

        var value = Value(random);
        switch (node)
        {
            case JsonObject { Count: > 0 } map when random.Next(4) == 0:
                map.Remove(map.ElementAt(random.Next(map.Count)).Key);
                break;
            case JsonObject { Count: > 0 } map:
                map[map.ElementAt(random.Next(map.Count)).Key] = value;
                break;
            case JsonArray { Count: > 0 } list:
                list[random.Next(list.Count)] = value;
                break;
        }
    }

    private static JsonNode? Value(Random random) => random.Next(16) switch
    {
        0 => null,
        1 => random.Next(2) == 0,
        2 => random.Next(-2, 70),
        3 => 1e300,
        4 => long.MaxValue,
        5 => "",
        6 => "\u2581",
        7 => "(a+)+$",
        8 => "(?<=a*)[[:alpha:]&&[^\\d]]{2,",
        9 => JsonNode.Parse("[]"),
        10 => JsonNode.Parse("{}"),
        11 => JsonNode.Parse("""[["a", 1], ["b"], 7]"""),
        12 => JsonNode.Parse("""{"type": "Sequence", "normalizers": [], "pretokenizers": [], "processors": [], "decoders": []}"""),
        13 => JsonNode.Parse("""{"type": "ByteLevel"}"""),
        14 => JsonNode.Parse("""{"Regex": "(\\s*\\w*)*\\1"}"""),
        _ => string.Concat(Enumerable.Range(0, random.Next(1, 12)).Select(_ => (char)random.Next(0x20, 0x250))),
    };

    private static void Mutate(StringBuilder source, List<string> others, Random random)
    {
        var at = random.Next(source.Length + 1);
        var length = Math.Min(random.Next(1, 12), source.Length - at);
        switch (random.Next(4))
        {
            case 0:
                source.Remove(at, length);
                break;
            case 1:
                source.Insert(at, Pieces[random.Next(Pieces.Length)]);
                break;
            case 2:
                source.Insert(at, source.ToString(at, length));
                break;
            default:
                var other = others[random.Next(others.Count)];
                var from = random.Next(other.Length);
                source.Insert(at, other.AsSpan(from, Math.Min(random.Next(1, 40), other.Length - from)));
                break;
        }
    }

    private static readonly string[] Pieces =
    [
        "{%", "%}", "{{", "}}", "{#", "#}", "{%-", "-%}", "{% for x in range(99999) %}", "{% endfor %}", "{% if", "{% endif %}", "{% raw %}", "{% set x = x ~ x %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "| join", "| tojson", "| map('upper')", "| sort", "| groupby('role')", "* 999999", "** 99", "'x' * 99999999", "[1:2:0]", "[::-1]", "loop.cycle()", "namespace(a=1)", "not", "in", "is defined", "(", ")", "[", "]", "{", "}", "'", "\"", "\\", "~", "+", "-",
        "messages", "messages[0]", "none", "true", "undefined_thing", ".content", ".strip()", ".split('')", ".format(1)", "%", "0", "1e400", "9999999999999999999999",
    ];
}
