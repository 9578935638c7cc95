using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>Several parts of one place as one. The weights are the parts' own.</summary>
internal abstract class ResidualComposition(IReadOnlyList<ResidualPart> parts) : ResidualPart
{
    protected IReadOnlyList<ResidualPart> Parts { get; } = parts;

    public override IEnumerable<(string Name, Weight Weight)> State => [];

    /// <summary>The first adapter decides what goes in, the last one how it joins the stream: the library's rule.</summary>
    public override ResidualInput Enter(Tensor h, in ResidualCall call) => Parts[0].Enter(h, call);

    public override Tensor Up(in ResidualInput input, in ResidualCall call) => throw new NotSupportedException($"{GetType().Name} cannot stand in a fusion.");

    public override Tensor Leave(Tensor adapted, Tensor h, in ResidualCall call) => Parts[^1].Leave(adapted, h, call);

    public override void Initialize(Generator generator, Device device)
    {
    }
}

/// <summary>Each takes what the one before gives.</summary>
internal sealed class StackedResidual(IReadOnlyList<ResidualPart> parts) : ResidualComposition(parts)
{
    public override Tensor Forward(in ResidualInput input, in ResidualCall call) => Through(input, call, Parts.Count);

    public override Tensor Up(in ResidualInput input, in ResidualCall call) => Parts.Count == 1
        ? Parts[0].Up(input, call)
        : Parts[^1].Up(Parts[^1].Enter(Through(input, call, Parts.Count - 1), call), call);

    private Tensor Through(in ResidualInput input, in ResidualCall call, int count)
    {
        var x = Parts[0].Forward(input, call);
        foreach (var part in Parts.Take(count).Skip(1))
        {
            x = part.Forward(part.Enter(x, call), call);
        }

        return x;
    }
}

/// <summary>Σ wᵢ·yᵢ / n, skip connections included.</summary>
internal sealed class AveragedResidual(IReadOnlyList<ResidualPart> parts, IReadOnlyList<double> weights) : ResidualComposition(parts)
{
    public override Tensor Forward(in ResidualInput input, in ResidualCall call)
    {
        using var scope = NewDisposeScope();
        var sum = Parts[0].Forward(input, call).Times(weights[0] / Parts.Count);
        for (var i = 1; i < Parts.Count; i++)
        {
            sum = sum.Plus(Parts[i].Forward(input, call).Times(weights[i] / Parts.Count));
        }

        return sum.MoveToOuterDisposeScope(); // [n, hidden]
    }
}

/// <summary>A span of each sequence for every part.</summary>
internal sealed class SplitResidual(IReadOnlyList<ResidualPart> parts, IReadOnlyList<int> splits) : ResidualComposition(parts)
{
    public override Tensor Forward(in ResidualInput input, in ResidualCall call)
    {
        using var scope = NewDisposeScope();
        var (rows, y) = (Rows(call), zeros_like(input.X));
        for (var i = 0; i < Parts.Count; i++)
        {
            if (rows[i].Count > 0)
            {
                var at = tensor(rows[i].ToArray(), device: y.device);
                var own = new ResidualInput(input.X.index_select(0, at), input.Skip?.index_select(0, at));
                y = y.index_copy(0, at, Parts[i].Forward(own, call with { Residual = call.Residual.index_select(0, at) }));
            }
        }

        return y.MoveToOuterDisposeScope(); // [n, hidden]
    }

    /// <summary>The rows of every part. Throws where a sequence is longer than the spans together.</summary>
    private List<List<long>> Rows(in ResidualCall call)
    {
        var rows = Parts.Select(_ => new List<long>()).ToList();
        foreach (var sequence in call.Batch.SequencesOf(call.Run))
        {
            for (var i = 0; i < sequence.Count; i++)
            {
                var (part, end) = (0, splits[0]);
                while (sequence.Past + i >= end)
                {
                    part++;
                    end += part < splits.Count ? splits[part] : throw new InvalidOperationException($"A sequence is longer than the {splits.Sum()} tokens of a split.");
                }

                rows[part].Add(sequence.Start + i);
            }
        }

        return rows;
    }
}
