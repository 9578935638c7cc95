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
        if (GradientCheckpoints.AreOn && batch.PromptTargets is not { Count: > 0 })
        {
            return InPieces(model, adapters, batch, dropout, settings ?? new SftSettings());
        }

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

    private static (Tensor Sum, Tensor Correct) InPieces(
        CausalLanguageModel model, IReadOnlyList<Adapter> adapters, SftBatch batch, Generator? dropout, SftSettings settings)
    {
        using var scope = NewDisposeScope();
        using var forward = ForwardBatch.Packed(batch.Sequences, adapters, model.Device, dropout, batch.Tasks);
        var hidden = model.Hidden(forward); // [n, hidden]
        var correct = zeros([], device: model.Device);
        var sum = Sum(hidden, settings, scores => correct.add_(scores.Correct(), TensorArithmetic.One));
        if (adapters is [var one] && one.SideStates(forward) is var (states, weight))
        {
            sum = sum.Plus(Sum(states, new SftSettings(), _ => { }).Times(weight));
        }

        return (sum.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());

        Tensor Sum(Tensor states, SftSettings variant, Action<TokenScores> note)
        {
            states = GradientCheckpoints.Cut(states);
            var places = forward.PlacesOf(batch.Sources);
            var sums = new List<Tensor>();
            for (var start = 0; start < places.Length; start += Piece)
            {
                var piece = start..Math.Min(start + Piece, places.Length);
                var (at, targets) = (places[piece], batch.Targets[piece]);
                sums.Add(GradientCheckpoints.Layer(states, forward, rows =>
                {
                    using var inner = NewDisposeScope();
                    var scores = TokenScores.At(at, targets, [at.Length], model, forward, rows);
                    if (!GradientCheckpoints.RunsAgain)
                    {
                        note(scores);
                    }

                    return Sft.Sum(scores, variant).MoveToOuterDisposeScope();
                }));
            }

            return stack(sums).sum();
        }
    }
}
