using System.Globalization;
using System.Text.RegularExpressions;
using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Models;

/// <summary>
/// A deeper model made of another's layers, some of them more than once: <c>layer_replication</c>. It has modules of its own, for adapters to
/// attach to, and the other's tensors.
/// </summary>
internal static partial class LayerReplication
{
    /// <summary>
    /// The model whose layers are those in <paramref name="ranges"/> of <paramref name="model"/>, each [start, end), one after another. Throws
    /// <see cref="AdapterException"/> where there are no such layers.
    /// </summary>
    public static CausalLanguageModel Deepen(PretrainedModel model, IReadOnlyList<IReadOnlyList<int>> ranges)
    {
        var causal = model as CausalLanguageModel
            ?? throw new AdapterException("layer_replication", $"Layers are replicated in causal language models; {model.Config.ModelType} is none here.");
        if (ranges.FirstOrDefault(range => range is not [>= 0, _] || range[0] >= range[1] || range[1] > causal.LayerCount) is { } wrong)
        {
            throw new AdapterException("layer_replication", $"[{string.Join(", ", wrong)}] is no range [start, end) of the model's {causal.LayerCount} layers.");
        }

        int[] order = [.. ranges.SelectMany(range => Enumerable.Range(range[0], range[1] - range[0]))];
        var deeper = (CausalLanguageModel)PretrainedModel.Plan(model.Config.WithLayers(order, causal.LayerCount));
        deeper.Origin = model;
        var originals = model.Weights().ToDictionary(weight => weight.Path);
        foreach (var weight in deeper.Weights())
        {
            var original = originals[LayerNumber().Replace(weight.Path, match => $".{order[int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture)]}.", 1)];
            if (original.IsLoaded)
            {
                weight.Set(original.Value.alias());
            }
        }

        return deeper;
    }

    [GeneratedRegex(@"\.(\d+)\.")]
    private static partial Regex LayerNumber();
}
