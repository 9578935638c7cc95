using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A head for a task in place of the one a checkpoint was saved under, as transformers' <c>AutoModelFor…</c> classes put it on. What the
/// checkpoint has no weights for is drawn: the same seed gives the same weights, so that an adapter which leaves them frozen can be served.
/// </summary>
/// <param name="Kind">Which head.</param>
public sealed record TaskHead(ModelHead Kind)
{
    /// <summary>Names of the classes, by their number; empty: those of the config.</summary>
    public IReadOnlyList<string> Labels { get; init; } = [];

    public int Seed { get; init; }

    /// <summary>Draws weights as transformers does: normal with the config's <c>initializer_range</c>, biases 0.</summary>
    internal void Draw(IReadOnlyList<Weight> weights, PretrainedConfig config, Device device, ScalarType dtype)
    {
        using var frozen = no_grad();
        using var generator = new Generator((ulong)Seed);
        var deviation = config.Number("initializer_range", 0.02);
        foreach (var weight in weights)
        {
            using var scope = NewDisposeScope();
            var drawn = weight.Path.EndsWith(".bias", StringComparison.Ordinal)
                ? zeros([.. weight.Shape])
                : randn([.. weight.Shape], generator: generator).Times(deviation);
            weight.Set(drawn.to(dtype, device).MoveToOuterDisposeScope());
        }
    }
}
