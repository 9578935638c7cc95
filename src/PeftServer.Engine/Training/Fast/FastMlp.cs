using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>The feed-forward of a block, with a gate or without, from the stream to its answer.</summary>
internal sealed class FastMlp : FastFeedForward
{
    private readonly FastBlock _block;
    private readonly BlockKernels _kernels;
    private readonly FoldedProjection _gateUp;
    private readonly FoldedProjection _down;
    private readonly NormWeights _norm;
    private readonly FastEnd _end;

    public FastMlp(FastBlock block, Func<IReadOnlyList<Projection>, FoldedProjection> fold, BlockKernels kernels)
    {
        (_block, _kernels) = (block, kernels);
        (_gateUp, _down) = (fold(block.GateUp), fold([block.Down!]));
        _norm = NormWeights.Of(block.MiddleNorm);
        _end = new FastEnd(block.MlpEnd, kernels);
    }

    public override IEnumerable<PackedBlock> Blocks => _gateUp.Blocks.Concat(_down.Blocks);

    public override long GradientRoom => _down.Room;

    public override FeedForwardState Forward(Tensor x, Tensor? delta, Tensor? sum, Tensor answer)
    {
        using var scope = NewDisposeScope();
        var state = GateUp(x, delta, sum);
        var hidden = _down.NewInput(x.size(0));
        if (_block.IsGated)
        {
            _kernels.Gate(_block.Gate, _gateUp.Output(state.GateUp), _down.Columns(hidden));
        }
        else
        {
            _kernels.Activate(_block.Gate, _gateUp.Output(state.GateUp), _down.Columns(hidden));
        }

        var projected = _end.Normalizes ? empty_like(answer) : answer;
        _down.Forward(hidden, projected);
        var stats = _end.Forward(projected, answer);
        state = state with { DownU = _down.Ranks(hidden), Projected = stats is null ? null : projected, EndStats = stats };
        state.MoveToOuterScope();
        return state;
    }

    public override void Backward(Tensor gradRows, Tensor input, FeedForwardState? kept, Tensor residual, Tensor dInput)
    {
        using var scope = NewDisposeScope();
        var state = (MlpState)(kept ?? (_end.Normalizes ? Forward(input, null, null, empty_like(input)) : GateUp(input, null, null)));
        var rows = _end.Backward(gradRows, state.Projected, state.EndStats, _down.OutFeatures);
        using (var hidden = empty([input.size(0), _down.InFeatures], dtype: input.dtype, device: input.device))
        {
            var (dHidden, du) = _down.BackwardInput(rows); // [n, F], [n, P]
            if (_block.IsGated)
            {
                _kernels.GateBackward(_block.Gate, dHidden, _gateUp.Output(state.GateUp), hidden); // gate and up are their gradients from here on
            }
            else
            {
                _kernels.ActivateBackward(_block.Gate, dHidden, _gateUp.Output(state.GateUp), hidden);
            }

            _down.AddGradients(rows.narrow(1, 0, _down.OutFeatures), hidden, state.DownU ?? _down.RanksOf(hidden), du);
            dHidden.Dispose();
        }

        var (dNormed, dRanks) = _gateUp.BackwardInput(state.GateUp);
        _gateUp.AddGradients(_gateUp.Output(state.GateUp), input, _norm, state.Stats, state.U, dRanks);
        _kernels.NormBackward(dNormed, input, _norm, state.Stats, residual, dInput);
    }

    public override void Dispose()
    {
        _gateUp.Dispose();
        _down.Dispose();
        _norm.Dispose();
        _end.Dispose();
    }

    /// <summary>Norm and the two wide projections of x + delta, which is written to sum where there is a delta.</summary>
    private MlpState GateUp(Tensor x, Tensor? delta, Tensor? sum)
    {
        using var scope = NewDisposeScope();
        var gateUp = _gateUp.NewOutput(x.size(0)); // [n, 2F + room], or where there is no gate [n, F + room]
        var stats = _norm.NewStats(x.size(0), x.device);
        using var normed = _gateUp.NewInput(x.size(0));
        _kernels.AddNorm(x, delta, _norm, sum, _gateUp.Columns(normed), stats);
        _gateUp.Forward(normed, _gateUp.Output(gateUp));
        var state = new MlpState(gateUp, _gateUp.Ranks(normed), stats);
        state.MoveToOuterScope();
        return state;
    }
}

/// <summary>Rows [gate | up | room], LoRA's u of them, the norm's factors.</summary>
internal sealed record MlpState(Tensor GateUp, Tensor U, Tensor Stats) : FeedForwardState
{
    /// <summary>LoRA's u of the product of gate and up; null: not made yet.</summary>
    public Tensor? DownU { get; init; }

    /// <summary>What the down projection gave and the factors of the norm of it, where there is one.</summary>
    public Tensor? Projected { get; init; }

    public Tensor? EndStats { get; init; }

    protected override IEnumerable<Tensor?> All => [GateUp, U, Stats, DownU, Projected, EndStats];
}
