using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>Cross-entropy of the trained tokens. Only their hidden states go through the head: a prompt costs no logits.</summary>
internal static class SftLoss
{
    /// <summary>
    /// Sum of −log p over the targets of <paramref name="batch"/> (a scalar with gradients), and how many of them the model would
    /// have chosen (a scalar without).
    /// </summary>
    public static (Tensor Sum, Tensor Correct) Compute(
        CausalLanguageModel model, IReadOnlyList<Adapter> adapters, SftBatch batch, Generator? dropout, SftSettings? settings = null)
    {
        using var scope = NewDisposeScope();
        var scores = TokenScores.Of(model, adapters, batch, dropout, withSide: true);
        var (sum, correct) = (Sft.Sum(scores, settings ?? new SftSettings()), scores.Correct());
        if (scores.Side is var (logProbs, weight))
        {
            sum = sum.Minus(logProbs.sum().Times(weight));
        }

        if (scores.Prompts is { } prompts)
        {
            var weights = batch.Sequences.SelectMany(_ => batch.PromptTargets.Select(target => (float)target.Weight)).ToArray();
            sum = sum.Minus(prompts.LogProbs.mul(tensor(weights, device: model.Device)).sum());
            correct = correct.Plus(prompts.Correct().to(ScalarType.Float32));
        }

        return (sum.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }
}
