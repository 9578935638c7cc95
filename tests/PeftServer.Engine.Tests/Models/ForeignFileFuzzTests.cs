using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Gguf;
using PeftServer.Engine.Weights.Pickle;

namespace PeftServer.Engine.Tests.Models;

/// <summary>Files that strangers write, damaged at random: each must be read or end in a clear error. The long tests take a hundred thousand of a kind.</summary>
public sealed class ForeignFileFuzzTests(ITestOutputHelper output) : IDisposable
{
    private const int Few = 400;
    private const int Many = 100_000;

    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-fuzz-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Config_Mutated_EndsInAPlanOrAClearError() => FuzzConfigs(Few);

    [Fact, Trait("Category", "Long")]
    public void Config_MutatedOften_EndsInAPlanOrAClearError() => FuzzConfigs(Many);

    [Fact]
    public void GgufFile_Mutated_EndsInAModelOrAClearError() => FuzzGgufFiles(Few);

    [Fact, Trait("Category", "Long")]
    public void GgufFile_MutatedOften_EndsInAModelOrAClearError() => FuzzGgufFiles(Many);

    [Fact]
    public void SafetensorsHeader_Mutated_EndsInEntriesOrAClearError() => FuzzSafetensors(Few);

    [Fact, Trait("Category", "Long")]
    public void SafetensorsHeader_MutatedOften_EndsInEntriesOrAClearError() => FuzzSafetensors(Many);

    [Fact]
    public void BinFile_Mutated_EndsInTensorsOrAClearError() => FuzzBinFiles(Few);

    [Fact, Trait("Category", "Long")]
    public void BinFile_MutatedOften_EndsInTensorsOrAClearError() => FuzzBinFiles(Many);

    private void FuzzConfigs(int inputs)
    {
        var configs = Directory.GetFiles(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "models"), "config.json", SearchOption.AllDirectories)
            .Order(StringComparer.Ordinal).Select(File.ReadAllText).ToArray();
        string[] values = ["-1", "0", "1", "2147483647", "9999999999", "1e308", "null", "\"\"", "\"gelu\"", "[]", "{}", "true", "[1, \"x\"]", "NaN"];
        var (random, outcomes) = (new Random(5), new FuzzOutcomes());
        for (var i = 0; i < inputs; i++)
        {
            var lines = configs[random.Next(configs.Length)].Split('\n');
            for (var n = random.Next(1, 4); n > 0; n--)
            {
                var line = random.Next(1, lines.Length - 1);
                lines[line] = lines[line].Contains(": ", StringComparison.Ordinal)
                    ? lines[line][..(lines[line].IndexOf(": ", StringComparison.Ordinal) + 2)] + values[random.Next(values.Length)] + (lines[line].TrimEnd().EndsWith(',') ? "," : "")
                    : "";
            }

            outcomes.Try(string.Join('\n', lines), text => PretrainedModel.Plan(PretrainedConfig.Parse(text)).Dispose());
        }

        output.WriteLine(outcomes.ToString());
    }

    private void FuzzGgufFiles(int inputs) =>
        Mutate(inputs, File.ReadAllBytes(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "quantized", "gguf", "llama_kquants.gguf")), "model.gguf", 3_000, path =>
        {
            using var file = GgufFile.Open(path);
            PretrainedModel.Plan(path).Dispose();
        });

    private void FuzzSafetensors(int inputs) => Mutate(
        inputs, File.ReadAllBytes(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "models", "llama", "model.safetensors")), "model.safetensors", 2_000, path => SafetensorsHeader.Read(path));

    /// <summary>All of an archive is damaged: the pickle, the storages, and the directory at the end.</summary>
    private void FuzzBinFiles(int inputs)
    {
        using var scope = NewDisposeScope();
        var original = Path.Combine(_folder, "original.bin");
        StateDictWriter.Write(original, new Dictionary<string, Tensor> { ["a.weight"] = rand(3, 4), ["a.bias"] = rand(3).to(ScalarType.BFloat16), ["b"] = ones(2, dtype: ScalarType.Int64) });
        var bytes = File.ReadAllBytes(original);
        Mutate(inputs, bytes, PickleCheckpoint.SingleFile, bytes.Length, path =>
        {
            using var inner = NewDisposeScope();
            using var checkpoint = PickleCheckpoint.Open(Path.GetDirectoryName(path)!);
            foreach (var name in checkpoint.Names)
            {
                checkpoint.Tensor(name);
            }
        });
    }

    private void Mutate(int inputs, byte[] bytes, string name, int headBytes, Action<string> read)
    {
        var path = Path.Combine(_folder, name);
        var (random, outcomes, whole) = (new Random(7), new FuzzOutcomes(), false);
        var head = new byte[Math.Min(headBytes, bytes.Length)];
        for (var i = 0; i < inputs; i++)
        {
            var length = random.Next(8) == 0 ? random.Next(bytes.Length) : bytes.Length;
            bytes.AsSpan(0, head.Length).CopyTo(head);
            for (var n = random.Next(1, 5); n > 0 && length > 0; n--)
            {
                head[random.Next(Math.Min(head.Length, length))] = random.Next(3) == 0 ? (byte)255 : (byte)random.Next(256);
            }

            // What is behind the head is written again only where it was cut off.
            using (var file = new FileStream(path, whole ? FileMode.Open : FileMode.Create))
            {
                file.Write(head.AsSpan(0, Math.Min(head.Length, length)));
                if (!whole)
                {
                    file.Write(bytes.AsSpan(Math.Min(head.Length, length)..length));
                }

                file.SetLength(length);
            }

            whole = length == bytes.Length;
            outcomes.Try($"input {i}", _ => read(path));
        }

        output.WriteLine(outcomes.ToString());
    }
}
