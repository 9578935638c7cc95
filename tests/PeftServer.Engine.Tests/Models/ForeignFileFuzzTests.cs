using System.Diagnostics;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Tests.Models;

/// <summary>
/// Files that strangers write, damaged at random: each must be read or end in a clear error. <c>PEFTSERVER_FUZZ</c> is the number of
/// inputs of each kind, outside of CI a hundred thousand.
/// </summary>
public sealed class ForeignFileFuzzTests : IDisposable
{
    private static readonly int Inputs = int.TryParse(Environment.GetEnvironmentVariable("PEFTSERVER_FUZZ"), out var wanted) ? wanted : 400;
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-fuzz-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Config_Mutated_EndsInAPlanOrAClearError()
    {
        var configs = Directory.GetFiles(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "models"), "config.json", SearchOption.AllDirectories).Select(File.ReadAllText).ToArray();
        string[] values = ["-1", "0", "1", "2147483647", "9999999999", "1e308", "null", "\"\"", "\"gelu\"", "[]", "{}", "true", "[1, \"x\"]", "NaN"];
        var random = new Random(5);
        for (var i = 0; i < Inputs; i++)
        {
            var lines = configs[random.Next(configs.Length)].Split('\n');
            var line = random.Next(1, lines.Length - 1);
            lines[line] = lines[line].Contains(": ", StringComparison.Ordinal)
                ? lines[line][..(lines[line].IndexOf(": ", StringComparison.Ordinal) + 2)] + values[random.Next(values.Length)] + (lines[line].TrimEnd().EndsWith(',') ? "," : "")
                : "";
            Ends(() => PretrainedModel.Plan(PretrainedConfig.Parse(string.Join('\n', lines))).Dispose(), string.Join('\n', lines));
        }
    }

    [Fact]
    public void GgufFile_Mutated_EndsInAModelOrAClearError() =>
        Mutate(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "quantized", "gguf", "llama_kquants.gguf"), "model.gguf", 3_000, path =>
        {
            using var file = GgufFile.Open(path);
            PretrainedModel.Plan(path).Dispose();
        });

    [Fact]
    public void SafetensorsHeader_Mutated_EndsInEntriesOrAClearError() =>
        Mutate(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "models", "llama", "model.safetensors"), "model.safetensors", 2_000, path => SafetensorsHeader.Read(path));

    private void Mutate(string original, string name, int headBytes, Action<string> read)
    {
        var bytes = File.ReadAllBytes(original);
        var path = Path.Combine(_folder, name);
        var random = new Random(7);
        for (var i = 0; i < Inputs; i++)
        {
            var mutated = random.Next(8) == 0 ? bytes[..random.Next(bytes.Length)] : (byte[])bytes.Clone();
            for (var n = random.Next(1, 5); n > 0 && mutated.Length > 0; n--)
            {
                mutated[random.Next(Math.Min(headBytes, mutated.Length))] = random.Next(3) == 0 ? (byte)255 : (byte)random.Next(256);
            }

            File.WriteAllBytes(path, mutated);
            Ends(() => read(path), $"input {i}");
        }
    }

    /// <summary>Within a second, without an exception of another kind, and without room for what a number claims.</summary>
    private static void Ends(Action read, string input)
    {
        var (watch, before) = (Stopwatch.StartNew(), GC.GetAllocatedBytesForCurrentThread());
        try
        {
            read();
        }
        catch (CheckpointException e)
        {
            e.Message.ShouldNotBeEmpty();
        }

        watch.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5), input);
        (GC.GetAllocatedBytesForCurrentThread() - before).ShouldBeLessThan(200_000_000, input);
    }
}
