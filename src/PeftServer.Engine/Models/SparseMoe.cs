using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>Sizes of a layer of experts, and how older checkpoints name them.</summary>
/// <param name="Hidden">Width of the stream.</param>
/// <param name="Intermediate">Width inside an expert.</param>
/// <param name="Count">Experts in the layer.</param>
/// <param name="PerToken">Experts that a token goes through.</param>
/// <param name="Normalizes">The weights of a token's experts sum to one.</param>
/// <param name="PieceNames">An expert's gate, up and down projection where each expert is saved by itself.</param>
internal sealed record ExpertShape(int Hidden, int Intermediate, int Count, int PerToken, bool Normalizes, (string Gate, string Up, string Down) PieceNames)
{
    public static (string Gate, string Up, string Down) MixtralNames => ("w1", "w3", "w2");

    public static (string Gate, string Up, string Down) QwenNames => ("gate_proj", "up_proj", "down_proj");
}

/// <summary>A router sends each token through a few of many gated feed-forward parts. <see href="https://arxiv.org/abs/2401.04088"/>.</summary>
internal sealed class SparseMoe(ExpertShape shape, Func<Tensor, Tensor> act) : FeedForward
{
    public readonly ExpertRouter gate = new(shape);
    public readonly Experts experts = new(shape, act);

    public ExpertShape Shape => shape;

    public override Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        if (!gate.weight.IsAdapted && !experts.IsAdapted)
        {
            return Run(x, new AdapterRun([], 0, (int)x.size(0)), batch).MoveToOuterDisposeScope();
        }

        // Adapters change the weights themselves, so sequences under different ones go through one after another.
        var outputs = batch.Runs.Select(run => Run(x.narrow(0, run.Start, run.Count), run, batch)).ToArray();
        return cat(outputs, 0).MoveToOuterDisposeScope(); // [n, hidden]
    }

    private Tensor Run(Tensor x, AdapterRun run, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var (shares, chosen) = gate.Route(x, run, batch);
        return experts.Forward(x, shares, chosen, run, batch).MoveToOuterDisposeScope();
    }
}

/// <summary>Scores the experts for each token and picks the best.</summary>
internal sealed class ExpertRouter(ExpertShape shape) : Module
{
    public readonly Parameter weight = new(shape.Count, shape.Hidden);

    /// <summary>x [n, hidden]; the weights of each token's experts [n, k], in the type of x, and their indices [n, k].</summary>
    public (Tensor Shares, Tensor Chosen) Route(Tensor x, AdapterRun run, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var scores = F.linear(x, weight.Under(run, batch)).softmax(-1, ScalarType.Float32); // [n, experts]
        var (shares, chosen) = scores.topk(shape.PerToken, -1);
        if (shape.Normalizes)
        {
            shares = shares.div(shares.sum(-1, keepdim: true));
        }

        return (shares.to(x.dtype).MoveToOuterDisposeScope(), chosen.MoveToOuterDisposeScope());
    }
}

/// <summary>The experts of a layer, fused: each kind of weight is one tensor over all of them.</summary>
internal sealed class Experts(ExpertShape shape, Func<Tensor, Tensor> act) : Module
{
    public readonly Parameter gate_up_proj = new(shape.Count, 2 * shape.Intermediate, shape.Hidden);
    public readonly Parameter down_proj = new(shape.Count, shape.Hidden, shape.Intermediate);
    private readonly KeptScalar _perToken = new((long)shape.PerToken);

    public bool IsAdapted => gate_up_proj.IsAdapted || down_proj.IsAdapted;

    /// <summary>Names of the single experts' tensors in older checkpoints.</summary>
    public IEnumerable<KeyValuePair<Weight, WeightPieces>> Pieces()
    {
        WeightPieces Of(params string[] names) =>
            new([.. Enumerable.Range(0, shape.Count).Select(expert => names.Select(name => $"{Path}.{expert}.{name}.weight").ToList())]);
        yield return KeyValuePair.Create(gate_up_proj.Weight, Of(shape.PieceNames.Gate, shape.PieceNames.Up));
        yield return KeyValuePair.Create(down_proj.Weight, Of(shape.PieceNames.Down));
    }

    /// <summary>x [n, hidden]; shares and chosen [n, k] of the router; the result is [n, hidden].</summary>
    public Tensor Forward(Tensor x, Tensor shares, Tensor chosen, AdapterRun run, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var (gateUp, down) = (gate_up_proj.Under(run, batch), down_proj.Under(run, batch));
        var order = chosen.flatten().argsort(0); // the n·k choices, expert by expert
        var counts = chosen.flatten().bincount(null, shape.Count).cpu().data<long>().ToArray(); // a device sync a layer
        var tokens = order.floor_divide(_perToken); // [n·k]
        var inputs = x.index_select(0, tokens); // [n·k, hidden]
        var outputs = new List<Tensor>();
        var start = 0L;
        for (var expert = 0; expert < shape.Count; start += counts[expert], expert++)
        {
            if (counts[expert] > 0)
            {
                var halves = F.linear(inputs.narrow(0, start, counts[expert]), gateUp.select(0, expert)).chunk(2, -1); // [m, intermediate]
                outputs.Add(F.linear(act(halves[0]).mul(halves[1]), down.select(0, expert))); // [m, hidden]
            }
        }

        var weighted = cat(outputs, 0).mul(shares.flatten().index_select(0, order).unsqueeze(1)); // [n·k, hidden]
        return zeros_like(x).index_add(0, tokens, weighted, TensorArithmetic.One).MoveToOuterDisposeScope();
    }
}
