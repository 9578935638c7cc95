using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>Which weights decay, and which learn faster.</summary>
public static class ParameterGroups
{
    private static readonly string[] NormMarks = ["layernorm", "rmsnorm", ".norm.", "_norm.", ".ln_"];

    /// <summary>As transformers: every weight decays but biases and norms.</summary>
    public static IReadOnlyList<ParameterGroup> ByDecay(IEnumerable<Weight> weights, double weightDecay)
    {
        var byDecay = weights.ToLookup(weight => Decays(weight.Path));
        return [new ParameterGroup([.. byDecay[true]], 1, weightDecay), new ParameterGroup([.. byDecay[false]], 1, 0)];
    }

    /// <summary>
    /// LoRA+ (<see href="https://arxiv.org/abs/2402.12354"/>) as in PEFT: B learns <paramref name="ratio"/> times as fast as A, both halves of an embedding at a
    /// rate of their own; vectors go with B and do not decay.
    /// </summary>
    public static IReadOnlyList<ParameterGroup> LoraPlus(IEnumerable<Weight> weights, double ratio, double embeddingScale, double weightDecay)
    {
        var kinds = weights.ToLookup(Kind);
        return
        [
            new ParameterGroup([.. kinds[LoraPart.A]], 1, weightDecay),
            new ParameterGroup([.. kinds[LoraPart.Embedding]], embeddingScale, weightDecay),
            new ParameterGroup([.. kinds[LoraPart.B]], ratio, weightDecay),
            new ParameterGroup([.. kinds[LoraPart.Vector]], ratio, 0),
        ];
    }

    /// <summary>Whether transformers' Trainer decays the weight of this path.</summary>
    public static bool Decays(string path) =>
        !path.Contains("bias", StringComparison.OrdinalIgnoreCase) && !NormMarks.Any(mark => path.Contains(mark, StringComparison.OrdinalIgnoreCase));

    /// <summary>The LoRA layers of an adapter.</summary>
    public static IEnumerable<LoraPair> Pairs(Adapter adapter) => adapter.Parts.Select(entry => entry.Part).OfType<LoraProjection>().Where(part => part.TrainsBoth).Select(part =>
    {
        var state = part.State.ToDictionary(entry => entry.Name, entry => entry.Weight);
        return new LoraPair(state["lora_A.weight"], state["lora_B.weight"], part.Scale);
    });

    private static LoraPart Kind(Weight weight) =>
        weight.Path.Contains("lora_embedding", StringComparison.Ordinal) ? LoraPart.Embedding
        : weight.Shape.Count == 1 ? LoraPart.Vector
        : weight.Path.Contains("lora_B", StringComparison.Ordinal) ? LoraPart.B
        : LoraPart.A;

    private enum LoraPart
    {
        A,
        Embedding,
        B,
        Vector,
    }
}
