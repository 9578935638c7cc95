using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>The attention of a block, from the stream to its answer: norm, q, k and v, heads, output projection.</summary>
internal sealed class FastAttention : IDisposable
{
    private readonly FastBlock _block;
    private readonly BlockKernels _kernels;
    private readonly FoldedProjection _qkv;
    private readonly FoldedProjection _o;
    private readonly NormWeights _inputNorm;
    private readonly NormWeights _queryNorm;
    private readonly NormWeights _keyNorm;
    private readonly FastEnd _end;

    public FastAttention(FastBlock block, Func<IReadOnlyList<Projection>, FoldedProjection> fold, BlockKernels kernels)
    {
        (_block, _kernels) = (block, kernels);
        (_qkv, _o) = (fold(block.Qkv), fold([block.O]));
        (_inputNorm, _queryNorm, _keyNorm) = (NormWeights.Of(block.InputNorm), NormWeights.Of(block.QueryNorm), NormWeights.Of(block.KeyNorm));
        _end = new FastEnd(block.AttentionEnd, kernels);
    }

    public IEnumerable<PackedBlock> Blocks => _qkv.Blocks.Concat(_o.Blocks);

    /// <summary>Columns that rows of the gradient of the answer need beside their own.</summary>
    public long GradientRoom => _o.Room;

    private HeadLayout Heads => _block.Heads;

    private bool NormsHeads => _queryNorm.Form is not NormForm.None;

    /// <summary>What the stream takes, [n, hidden], and what the backward needs. x + y is written to <paramref name="sum"/> where there is a y.</summary>
    public (Tensor Answer, AttentionPart Part) Forward(Tensor x, Tensor? y, Tensor? sum, FastBatch batch)
    {
        using var scope = NewDisposeScope();
        var qkv = empty([x.size(0), _qkv.OutFeatures], dtype: x.dtype, device: x.device); // [n, (H + 2G)·D]
        var stats = _inputNorm.NewStats(x.size(0), x.device);
        Tensor u;
        using (var normed = _qkv.NewInput(x.size(0)))
        {
            _kernels.AddNorm(x, y, _inputNorm, sum, _qkv.Columns(normed), stats);
            _qkv.Forward(normed, qkv);
            u = _qkv.Ranks(normed);
        }

        var (raw, statsOfHeads) = NormHeads(qkv);
        if (_block.Rotary is not null)
        {
            var (cos, sin) = batch.Angles(_block.Rotary, Heads);
            _kernels.Rope(qkv, cos, sin, Heads);
        }

        var (q, k, v) = Heads.Split(qkv);
        var heads = _kernels.Attention(q, k, v, batch.Borders, _block.Scope);
        var (projected, outputU) = _o.ForwardApart(heads.Output.view(-1, _o.InFeatures));
        var answer = _end.Normalizes ? empty_like(projected) : projected; // [n, hidden]
        var endStats = _end.Forward(projected, answer);
        var part = new AttentionPart(qkv, u, stats, heads, outputU)
        {
            Raw = raw,
            StatsOfHeads = statsOfHeads,
            Projected = _end.Normalizes ? projected : null,
            EndStats = endStats,
        };
        return (answer.MoveToOuterDisposeScope(), part.MoveToOuterScope());
    }

    /// <summary>
    /// From rows of the gradient of the answer to that of the stream, [n, hidden], <paramref name="residual"/> included, written to
    /// <paramref name="dInput"/>; nothing where that is null.
    /// </summary>
    public void Backward(Tensor gradRows, Tensor input, AttentionPart part, FastBatch batch, Tensor residual, Tensor? dInput)
    {
        using var scope = NewDisposeScope();
        var rows = _end.Backward(gradRows, part.Projected, part.EndStats, _o.OutFeatures);
        var (dOutput, dOutputRanks) = _o.BackwardInput(rows);
        _o.AddGradients(rows.narrow(1, 0, _o.OutFeatures), part.Heads.Output.view(-1, _o.InFeatures), part.OutputU, dOutputRanks);
        var (q, k, v) = Heads.Split(part.Qkv);
        var (dq, dk, dv) = _kernels.AttentionBackward(dOutput.view(-1, Heads.QueryHeads, Heads.HeadDim), q, k, v, part.Heads, batch.Borders, _block.Scope);
        var dQkvRows = _qkv.NewOutput(input.size(0));
        var dQkv = _qkv.Output(dQkvRows); // [n, (H + 2G)·D]
        var (cos, sin) = batch.Angles(_block.Rotary, Heads);
        _kernels.RopeBackward(dq, dk, dv, cos, sin, dQkv, Heads);
        NormHeadsBackward(dQkv, part);
        _kernels.Join(); // the rows that the result is written to were read beside
        if (dInput is null)
        {
            _qkv.AddGradients(dQkv, input, _inputNorm, part.Stats, part.U, _qkv.BackwardRanks(dQkv));
            return;
        }

        var (dNormed, dRanks) = _qkv.BackwardInput(dQkvRows);
        _qkv.AddGradients(dQkv, input, _inputNorm, part.Stats, part.U, dRanks);
        _kernels.NormBackward(dNormed, input, _inputNorm, part.Stats, residual, dInput);
    }

    public void Dispose()
    {
        _qkv.Dispose();
        _o.Dispose();
        _inputNorm.Dispose();
        _queryNorm.Dispose();
        _keyNorm.Dispose();
        _end.Dispose();
    }

    /// <summary>Norms q and k in rows [q | k | v] in place, where the model does; gives them as they were and what the backward needs.</summary>
    private (Tensor? Raw, Tensor? Stats) NormHeads(Tensor qkv)
    {
        if (!NormsHeads)
        {
            return (null, null);
        }

        var raw = Turning(qkv).clone(); // [n, (H + G)·D]
        if (_block.NormsWholeRows)
        {
            var factors = empty([2, qkv.size(0)], dtype: ScalarType.Float32, device: qkv.device);
            _kernels.AddNorm(Queries(raw), null, _queryNorm, null, Queries(qkv), factors.narrow(0, 0, 1));
            _kernels.AddNorm(Keys(raw), null, _keyNorm, null, Keys(qkv), factors.narrow(0, 1, 1));
            return (raw, factors);
        }

        var stats = empty([qkv.size(0), Heads.QueryHeads + Heads.KeyValueHeads], dtype: ScalarType.Float32, device: qkv.device);
        _kernels.HeadNorm(qkv, _queryNorm, _keyNorm, stats, Heads);
        return (raw, stats);
    }

    private void NormHeadsBackward(Tensor dQkv, AttentionPart part)
    {
        if (!NormsHeads)
        {
            return;
        }

        if (!_block.NormsWholeRows)
        {
            _kernels.HeadNormBackward(dQkv, part.Raw!, _queryNorm, _keyNorm, part.StatsOfHeads!, Heads);
            return;
        }

        _kernels.NormBackward(Queries(dQkv), Queries(part.Raw!), _queryNorm, part.StatsOfHeads!.narrow(0, 0, 1), null, Queries(dQkv));
        _kernels.NormBackward(Keys(dQkv), Keys(part.Raw!), _keyNorm, part.StatsOfHeads!.narrow(0, 1, 1), null, Keys(dQkv));
    }

    private Tensor Turning(Tensor qkv) => qkv.narrow(1, 0, Heads.QueryWidth + Heads.KeyValueWidth);

    private Tensor Queries(Tensor qkv) => qkv.narrow(1, 0, Heads.QueryWidth);

    private Tensor Keys(Tensor qkv) => qkv.narrow(1, Heads.QueryWidth, Heads.KeyValueWidth);
}

/// <summary>Fused rows of q, k and v after the rotation, LoRA's u of them, the norm's factors, the heads, LoRA's u of the output.</summary>
internal sealed record AttentionPart(Tensor Qkv, Tensor U, Tensor Stats, AttentionState Heads, Tensor OutputU) : IDisposable
{
    /// <summary>q and k before they were normed, and the factors of these norms, where there are such.</summary>
    public Tensor? Raw { get; init; }

    public Tensor? StatsOfHeads { get; init; }

    /// <summary>What the output projection gave and the factors of the norm of it, where there is one.</summary>
    public Tensor? Projected { get; init; }

    public Tensor? EndStats { get; init; }

    private IEnumerable<Tensor> All => new[]
    {
        Qkv, U, Stats, Raw, StatsOfHeads, Heads.Output, Heads.LogSumExp, Heads.Seed, Heads.Offset, OutputU, Projected, EndStats,
    }.OfType<Tensor>();

    public AttentionPart MoveToOuterScope()
    {
        foreach (var tensor in All)
        {
            tensor.MoveToOuterDisposeScope();
        }

        return this;
    }

    public void Dispose()
    {
        foreach (var tensor in All)
        {
            tensor.Dispose();
        }
    }
}
