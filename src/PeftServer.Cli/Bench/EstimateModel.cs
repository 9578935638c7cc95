using System.Text.Json.Nodes;
using PeftServer.Cli.Up;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>A model of given shapes with random weights, with the sample's tokenizer: what estimates are held to besides the sample.</summary>
/// <param name="Type">The config's <c>model_type</c>.</param>
/// <param name="Hidden">Width of the stream.</param>
/// <param name="Layers">Its blocks.</param>
/// <param name="Heads">Heads that ask.</param>
/// <param name="KeyValueHeads">Heads that are asked.</param>
/// <param name="HeadDim">Width of a head.</param>
/// <param name="Intermediate">Width of the feed-forward.</param>
/// <param name="Vocabulary">Tokens with a score.</param>
/// <param name="IsTied">Whether the head is the embedding.</param>
/// <param name="Dtype">Type of the file.</param>
internal sealed record EstimateModel(
    string Type, int Hidden, int Layers, int Heads, int KeyValueHeads, int HeadDim, int Intermediate, int Vocabulary, bool IsTied, ScalarType Dtype)
{
    /// <summary>Where the sample model is.</summary>
    private const string Sample = "tiny";

    private static readonly Dictionary<string, EstimateModel> Known = new()
    {
        ["wide"] = new("llama", 512, 10, 8, 2, 64, 1408, 4096, true, ScalarType.Float32),
        ["qwen-small"] = new("qwen3", 256, 12, 8, 4, 64, 768, 16_384, true, ScalarType.BFloat16),
        ["mistral-small"] = new("mistral", 384, 6, 6, 6, 64, 1024, 8192, false, ScalarType.Float32),
        ["1b"] = new("llama", 2048, 16, 32, 8, 64, 8192, 128_256, true, ScalarType.BFloat16),
        ["qwen"] = new("qwen3", 1024, 28, 16, 8, 128, 3072, 151_936, true, ScalarType.BFloat16), // as Qwen 3 0.6B
        ["mistral"] = new("mistral", 4096, 5, 32, 8, 128, 14_336, 32_768, false, ScalarType.BFloat16), // a sixth of Mistral 7B
    };

    private static string SampleFolder => Path.Combine(Samples.Folder, "models", "tiny-llama");

    /// <summary>The folder of the model called <paramref name="name"/>, made in <paramref name="root"/> where it is not there yet.</summary>
    public static string Folder(string name, string root)
    {
        if (name == Sample)
        {
            return SampleFolder;
        }

        var folder = Path.Combine(root, $"model-{name}");
        if (!File.Exists(Path.Combine(folder, "model.safetensors")))
        {
            Directory.CreateDirectory(folder);
            Known[name].Write(folder);
        }

        return folder;
    }

    private void Write(string folder)
    {
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(SampleFolder, "config.json")))!.AsObject();
        config.Remove("architectures");
        config["model_type"] = Type;
        foreach (var (field, value) in new (string, int)[]
        {
            ("hidden_size", Hidden), ("num_hidden_layers", Layers), ("num_attention_heads", Heads), ("num_key_value_heads", KeyValueHeads), ("head_dim", HeadDim),
            ("intermediate_size", Intermediate), ("vocab_size", Vocabulary), ("max_position_embeddings", 8192),
        })
        {
            config[field] = value;
        }

        config["tie_word_embeddings"] = IsTied;
        config["dtype"] = Dtype is ScalarType.Float32 ? "float32" : "bfloat16";
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        foreach (var file in Directory.GetFiles(SampleFolder).Where(file => Path.GetFileName(file) is not ("config.json" or "model.safetensors")))
        {
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)), overwrite: true);
        }

        using var scope = NewDisposeScope();
        using var spread = 0.02.ToScalar();
        var model = PretrainedModel.Plan(folder);
        SafetensorsWriter.Write(
            Path.Combine(folder, "model.safetensors"),
            model.Weights().Where(weight => !weight.IsBuffer).DistinctBy(weight => weight.Path).ToDictionary(
                weight => weight.Path,
                weight => weight.Shape.Count == 1 ? ones([.. weight.Shape], dtype: Dtype) : randn([.. weight.Shape], dtype: Dtype).mul_(spread)));
    }
}
