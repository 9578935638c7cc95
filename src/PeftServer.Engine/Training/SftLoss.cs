using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>Cross-entropy of the trained tokens. Only their hidden states go through the head: a prompt costs no logits.</summary>
internal static class SftLoss
{
    /// <summary>Targets whose scores are there at once where activations are computed again: scores are the largest of them.</summary>
    public const int Piece = 1024;

    /// <summary>
    /// Sum of −log p over the targets of <paramref name="batch"/> (a scalar with gradients), and how many of them the model would
    /// have chosen (a scalar without).
    /// </summary>
    public static (Tensor Sum, Tensor Correct) Compute(
        CausalLanguageModel model, IReadOnlyList<Adapter> adapters, SftBatch batch, Generator? dropout, SftSettings? settings = null)
    {
        using var scope = NewDisposeScope();
        using var forward = ForwardBatch.Packed(batch.Sequences, adapters, model.Device, dropout, batch.Tasks);
        var hidden = model.Hidden(forward); // [n, hidden]
        var places = forward.PlacesOf(batch.Sources);
        var correct = zeros([], device: model.Device);
        var sum = Sum(hidden, places, batch.Targets, (scores, _) => Sft.Sum(Noted(scores), settings ?? new SftSettings()));
        if (adapters is [var one] && one.SideStates(forward) is var (states, share))
        {
            sum = sum.Plus(Sum(states, places, batch.Targets, (scores, _) => scores.LogProbs.sum().neg()).Times(share));
        }

        if (batch.PromptTargets is { Count: > 0 } prompt)
        {
            var weights = batch.Sequences.SelectMany(_ => prompt.Select(target => (float)target.Weight)).ToArray();
            sum = sum.Plus(Sum(
                hidden, [.. forward.Starts.SkipLast(1).SelectMany(start => prompt.Select(target => (long)start + target.Source))],
                [.. batch.Sequences.SelectMany(_ => prompt.Select(target => (long)target.Token))],
                (scores, piece) => Noted(scores).LogProbs.mul(tensor(weights[piece], device: model.Device)).sum().neg()));
        }

        return (sum.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());

        // The loss of targets [m] by the states [n, hidden] at places [m].
        Tensor Sum(Tensor from, long[] at, long[] targets, Func<TokenScores, Range, Tensor> loss)
        {
            from = GradientCheckpoints.Cut(from);
            var sums = new List<Tensor>();
            var size = GradientCheckpoints.AreOn ? Piece : Math.Max(1, targets.Length);
            for (var start = 0; start == 0 || start < targets.Length; start += size)
            {
                var piece = start..Math.Min(start + size, targets.Length);
                var (sources, tokens) = (at[piece], targets[piece]);
                sums.Add(GradientCheckpoints.Layer(from, forward, rows =>
                {
                    using var inner = NewDisposeScope();
                    return loss(TokenScores.At(sources, tokens, [tokens.Length], model, forward, rows), piece).MoveToOuterDisposeScope();
                }));
            }

            return stack(sums).sum();
        }

        TokenScores Noted(TokenScores scores)
        {
            if (!GradientCheckpoints.RunsAgain)
            {
                correct.add_(scores.Correct(), TensorArithmetic.One);
            }

            return scores;
        }
    }
}
