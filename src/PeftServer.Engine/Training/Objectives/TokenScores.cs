using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// What a model says of the targets of a batch, row after row: m targets over a vocabulary of v, in float32, with gradients where
/// they are on. Objectives are functions of this; none of them sees a model.
/// </summary>
/// <param name="Logits">Scores of every token at each target, [m, v], after the temperature.</param>
/// <param name="LogSoftmax">Their log-probabilities, [m, v].</param>
/// <param name="LogProbs">Those of the targets, [m].</param>
/// <param name="Targets">The targets, [m].</param>
/// <param name="Counts">How many targets each row has.</param>
internal sealed record TokenScores(Tensor Logits, Tensor LogSoftmax, Tensor LogProbs, Tensor Targets, IReadOnlyList<int> Counts)
{
    public int Rows => Counts.Count;

    /// <summary>Targets of the first half of the rows: the chosen ones, where a batch is [all chosen; all rejected].</summary>
    public int FirstHalf => Counts.Take(Rows / 2).Sum();

    /// <summary>Runs <paramref name="model"/> over a batch. Only hidden states before a target go through the head.</summary>
    /// <param name="model">The model.</param>
    /// <param name="adapters">Adapters that are on; none: the base model, the usual reference.</param>
    /// <param name="batch">The rows.</param>
    /// <param name="dropout">Draws what is dropped; null: nothing is.</param>
    /// <param name="temperature">Divides the logits.</param>
    public static TokenScores Of(
        CausalLanguageModel model, IReadOnlyList<Adapter> adapters, SftBatch batch, Generator? dropout, double temperature = 1)
    {
        using var scope = NewDisposeScope();
        using var forward = ForwardBatch.Packed(batch.Sequences, adapters, model.Device, dropout, batch.Tasks);
        return At(forward.PlacesOf(batch.Sources), batch.Targets, batch.Counts, model, forward, model.Hidden(forward), temperature).MoveToOuterDisposeScope();
    }

    /// <summary>The scores of <paramref name="tokens"/> by the hidden states [n, hidden] at <paramref name="places"/>.</summary>
    public static TokenScores At(
        long[] places, long[] tokens, IReadOnlyList<int> counts, CausalLanguageModel model, ForwardBatch forward, Tensor hidden, double temperature = 1)
    {
        using var scope = NewDisposeScope();
        var device = model.Device;
        var logits = model.Logits(hidden.index_select(0, tensor(places, device: device)), forward).to(ScalarType.Float32); // [m, v]
        if (temperature != 1)
        {
            logits = logits.Times(1 / temperature);
        }

        var all = F.log_softmax(logits, -1); // [m, v]
        var targets = tensor(tokens, device: device); // [m]
        var chosen = all.gather(-1, targets.unsqueeze(-1)).squeeze(-1); // [m]
        return new TokenScores(logits, all, chosen, targets, counts).MoveToOuterDisposeScope();
    }

    private TokenScores MoveToOuterDisposeScope()
    {
        foreach (var tensor in new[] { Logits, LogSoftmax, LogProbs, Targets })
        {
            tensor.MoveToOuterDisposeScope();
        }

        return this;
    }

    /// <summary>Sum over the targets of each row: [m] → [rows]. The order of addition does not depend on the device's threads.</summary>
    public Tensor SumByRow(Tensor perToken)
    {
        using var scope = NewDisposeScope();
        var sums = new Tensor[Rows];
        var start = 0L;
        for (var row = 0; row < Rows; row++)
        {
            sums[row] = perToken.narrow(0, start, Counts[row]).sum();
            start += Counts[row];
        }

        return stack(sums).MoveToOuterDisposeScope();
    }

    /// <summary>Gives each target what its row has: [rows] → [m].</summary>
    public Tensor SpreadOverTokens(Tensor perRow)
    {
        using var scope = NewDisposeScope();
        var rows = Enumerable.Range(0, Rows).SelectMany(row => Enumerable.Repeat((long)row, Counts[row])).ToArray();
        return perRow.index_select(0, tensor(rows, device: perRow.device)).MoveToOuterDisposeScope();
    }

    /// <summary>Targets of each row, [rows], at least 1 so that one may divide by it.</summary>
    public Tensor Lengths() =>
        tensor(Counts.Select(count => (float)Math.Max(1, count)).ToArray(), device: LogProbs.device);

    /// <summary>Entropy of the model at each target, in nats: [m].</summary>
    public Tensor Entropies()
    {
        using var scope = NewDisposeScope();
        return LogSoftmax.exp().mul(LogSoftmax).sum(-1).neg().MoveToOuterDisposeScope();
    }

    /// <summary>How many targets the model would have chosen.</summary>
    public Tensor Correct()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        return LogSoftmax.argmax(-1).eq(Targets).sum().MoveToOuterDisposeScope();
    }
}
