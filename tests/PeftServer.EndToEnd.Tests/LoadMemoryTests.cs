using System.Text;
using System.Text.Json;
using PeftServer.Cli;
using PeftServer.Engine.Models;

namespace PeftServer.EndToEnd.Tests;

/// <summary>
/// Peak memory of loading some hundred megabytes, in a process of its own, above that of the same process with a small model: at most 1.1
/// times the weights as they are loaded, anonymous pages and pages of files together, every weight looked at.
/// </summary>
public sealed class LoadMemoryTests : IDisposable
{
    private readonly Sandbox _sandbox = new();

    public void Dispose() => _sandbox.Dispose();

    [Theory]
    [InlineData("llama", "BF16", "bfloat16", 1)]
    [InlineData("llama", "BF16", "bfloat16", 3)]
    [InlineData("llama", "F32", "float32", 1)]
    [InlineData("llama", "F32", "float32", 3)]
    [InlineData("llama", "BF16", "float32", 1)]
    [InlineData("llama", "BF16", "float32", 3)]
    [InlineData("llama", "F32", "bfloat16", 1)]
    [InlineData("mixtral", "BF16", "bfloat16", 2)] // experts are put together
    public async Task Load_SomeHundredMegabytes_TakesATenthMoreAtMost(string type, string stored, string loaded, int files)
    {
        var small = await LoadAsync(Checkpoint(type, stored, layers: 1, hidden: 64, vocabulary: 256, files: 1), loaded);
        var model = await LoadAsync(Checkpoint(type, stored, stored == "F32" || type == "mixtral" ? 5 : 12, hidden: 1024, vocabulary: 16_000, files), loaded);

        var (weights, above) = (model["weights_bytes"], model["host_bytes_at_most"] - small["host_bytes_at_most"]);
        weights.ShouldBeInRange(180_000_000, 900_000_000);
        ((double)above / weights).ShouldBeInRange(0.9, 1.1, $"{above / 1e6:F0} MB for {weights / 1e6:F0} MB of weights");
    }

    private static async Task<Dictionary<string, long>> LoadAsync(string folder, string dtype)
    {
        await using var program = PeftServerProgram.Start("bench", "load", folder, "--device", "cpu", "--dtype", dtype);
        (await program.ExitedAsync(TimeSpan.FromMinutes(2))).ShouldBe(ExitCode.Done, program.Output);
        using var figures = JsonDocument.Parse(program.Output.Split('\n').First(line => line.StartsWith('{')));
        return figures.RootElement.EnumerateObject().Where(field => field.Value.ValueKind is JsonValueKind.Number && field.Value.TryGetInt64(out _))
            .ToDictionary(field => field.Name, field => field.Value.GetInt64());
    }

    /// <summary>A checkpoint whose weights are zeros, which take no room on the disk.</summary>
    private string Checkpoint(string type, string stored, int layers, int hidden, int vocabulary, int files)
    {
        var folder = Directory.CreateDirectory(Path.Combine(_sandbox.Data, $"{type}-{hidden}")).FullName;
        var config = $$"""
            {"model_type": "{{type}}", "architectures": ["{{(type == "llama" ? "LlamaForCausalLM" : "MixtralForCausalLM")}}"], "hidden_size": {{hidden}}, "intermediate_size": {{11 * hidden / 4}},
             "num_hidden_layers": {{layers}}, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": {{vocabulary}}, "tie_word_embeddings": false{{(type == "llama" ? "" : ", \"num_local_experts\": 2, \"num_experts_per_tok\": 1")}}}
            """;
        File.WriteAllText(Path.Combine(folder, "config.json"), config);
        using var plan = PretrainedModel.Plan(PretrainedConfig.Parse(config));
        var tensors = plan.Weights().SelectMany(weight => Pieces(weight.Path, weight.Shape)).ToList();
        var map = new Dictionary<string, string>();
        for (var i = 0; i < files; i++)
        {
            var name = files == 1 ? "model.safetensors" : $"model-{i}.safetensors";
            var part = tensors.Where((_, index) => index % files == i).ToList();
            Write(Path.Combine(folder, name), part, stored);
            part.ForEach(tensor => map[tensor.Name] = name);
        }

        if (files > 1)
        {
            File.WriteAllText(Path.Combine(folder, "model.safetensors.index.json"), JsonSerializer.Serialize(new { weight_map = map }));
        }

        return folder;
    }

    /// <summary>Mixtral's experts as its checkpoints have them: each by itself.</summary>
    private static IEnumerable<(string Name, long[] Shape)> Pieces(string path, IReadOnlyList<long> shape)
    {
        if (!path.Contains(".experts.", StringComparison.Ordinal))
        {
            return [(path, [.. shape])];
        }

        var module = path[..path.LastIndexOf('.')].Replace(".mlp.", ".block_sparse_moe.", StringComparison.Ordinal);
        return Enumerable.Range(0, (int)shape[0]).SelectMany(expert => path.EndsWith("gate_up_proj", StringComparison.Ordinal)
            ? new[] { ($"{module}.{expert}.w1.weight", new[] { shape[1] / 2, shape[2] }), ($"{module}.{expert}.w3.weight", [shape[1] / 2, shape[2]]) }
            : [($"{module}.{expert}.w2.weight", [shape[1], shape[2]])]);
    }

    private static void Write(string path, List<(string Name, long[] Shape)> tensors, string dtype)
    {
        var (header, at) = (new Dictionary<string, object>(), 0L);
        foreach (var (name, shape) in tensors)
        {
            var end = at + (shape.Aggregate(1L, (product, size) => product * size) * (dtype == "F32" ? 4 : 2));
            header[name] = new { dtype, shape, data_offsets = new[] { at, end } };
            at = end;
        }

        var json = Encoding.UTF8.GetBytes(JsonSerializer.Serialize(header));
        using var file = File.Create(path);
        file.Write(BitConverter.GetBytes((long)json.Length));
        file.Write(json);
        file.SetLength(file.Position + at);
    }
}
