using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>THE list of architectures: <c>model_type</c> of config.json to the class that computes it.</summary>
public static class ModelCatalog
{
    private static readonly Dictionary<string, Func<PretrainedConfig, PretrainedModel>> Architectures = new()
    {
        ["llama"] = config => new LlamaForCausalLM(config),
    };

    public static IReadOnlyCollection<string> ModelTypes => Architectures.Keys;

    internal static PretrainedModel Create(PretrainedConfig config) =>
        Architectures.TryGetValue(config.ModelType, out var create)
            ? create(config)
            : throw new CheckpointException(
                $"config.json: model_type '{config.ModelType}' is not supported. Supported: {string.Join(", ", Architectures.Keys.Order(StringComparer.Ordinal))}.");
}
