using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// One block of Llama's shape, forward and backward by hand. The stream comes as (x, y) with x + y still to be added, because adding and
/// norming is one kernel.
/// </summary>
internal sealed class FastLlamaLayer : IDisposable
{
    private readonly FastBlock _block;
    private readonly Tensor? _bias; // of q, k and v: [(H + 2G)·D]
    private readonly BlockKernels _kernels;
    private readonly FoldedProjection _qkv;
    private readonly FoldedProjection _o;
    private readonly FoldedProjection _gateUp;
    private readonly FoldedProjection _down;

    public FastLlamaLayer(FastBlock block, Adapter adapter, BlockKernels kernels)
    {
        (_block, _kernels) = (block, kernels);
        var parts = adapter.Parts.ToDictionary(entry => entry.Site, entry => (LoraProjection)entry.Part);
        var norm = block.InputNorm.weight.Value;
        FoldedProjection Fold(IEnumerable<Linear> sites) =>
            new([.. sites.Select(site => (site, parts.GetValueOrDefault(site)))], norm.device, norm.dtype, kernels);
        _bias = block.Qkv[0].bias is null ? null : cat([.. block.Qkv.Select(site => site.bias!.Value)]).DetachFromDisposeScope();
        _qkv = Fold(block.Qkv);
        _o = Fold([block.O]);
        _gateUp = Fold(block.GateUp);
        _down = Fold([block.Down]);
    }

    public IEnumerable<PackedBlock> Blocks => new[] { _qkv, _o, _gateUp, _down }.SelectMany(projection => projection.Blocks);

    /// <summary>Columns that rows of the stream's gradient need beside their own, at least.</summary>
    public long GradientRoom => Math.Max(_o.Room, _down.Room);

    private HeadLayout Heads => _block.Heads;

    private AttentionScope Scope => new(_block.Scale, _block.Window);

    /// <summary>
    /// The block's output as (x, y). The state is what its backward needs: all of it, or in lean mode the block's input alone.
    /// </summary>
    public (Tensor X, Tensor Y, LayerState State) Forward(Tensor x, Tensor? y, FastBatch batch, ActivationMode mode)
    {
        using var scope = NewDisposeScope();
        var keep = mode is ActivationMode.Keep;
        var input = y is null ? x : empty_like(x); // [n, hidden]: x + y
        var attention = Attend(x, y, y is null ? null : input, batch);
        var projected = attention.Projected;
        var (middle, output) = (empty_like(x), empty_like(x)); // [n, hidden]
        MlpState? mlp = null;
        foreach (var (start, count) in Pieces(x.size(0), mode))
        {
            using var inner = NewDisposeScope();
            var piece = ForwardMlp(input.narrow(0, start, count), projected.narrow(0, start, count), middle.narrow(0, start, count), output.narrow(0, start, count));
            mlp = keep ? piece.MoveToOuterScope() : null;
        }

        var state = new LayerState(input, keep ? attention : null, keep ? middle : null, mlp);
        if (y is not null)
        {
            input.MoveToOuterDisposeScope();
        }

        return (middle.MoveToOuterDisposeScope(), output.MoveToOuterDisposeScope(), state.MoveToOuterScope());
    }

    /// <summary>
    /// From the gradient of the block's output (of x and y alike) to that of its input, in place; nothing where that is not needed. The
    /// gradient lies in rows with <see cref="GradientRoom"/> beside it. What the state does not hold is computed again; what it holds is used up.
    /// </summary>
    public void Backward(Tensor gradRows, LayerState state, FastBatch batch, ActivationMode mode, bool needsInput)
    {
        using var scope = NewDisposeScope();
        var attention = state.Attention ?? Attend(state.Input, null, null, batch);
        var middle = state.Middle ?? state.Input.Plus(attention.Projected);
        var dMiddle = empty_like(gradRows); // [n, hidden + room]
        foreach (var (start, count) in Pieces(gradRows.size(0), mode))
        {
            using var inner = NewDisposeScope();
            BackwardMlp(gradRows.narrow(0, start, count), middle.narrow(0, start, count), state.Mlp, dMiddle.narrow(0, start, count));
        }

        BackwardAttention(dMiddle, state.Input, attention, batch, needsInput ? gradRows : null);
    }

    public void Dispose()
    {
        _qkv.Dispose();
        _o.Dispose();
        _gateUp.Dispose();
        _down.Dispose();
        _bias?.Dispose();
    }

    /// <summary>Rows that go through the feed-forward together: all of them, or in lean mode so many that its wide rows stay small.</summary>
    private static IEnumerable<(long Start, long Count)> Pieces(long tokens, ActivationMode mode)
    {
        var size = mode is ActivationMode.Keep ? tokens : ActivationPlan.LeanTokens;
        for (var start = 0L; start < tokens; start += size)
        {
            yield return (start, Math.Min(size, tokens - start));
        }
    }

    /// <summary>Norm, projections, attention, output projection. The sum x + y is written to <paramref name="sum"/> where there is a y.</summary>
    private AttentionPart Attend(Tensor x, Tensor? y, Tensor? sum, FastBatch batch)
    {
        using var scope = NewDisposeScope();
        var qkv = empty([x.size(0), _qkv.OutFeatures], dtype: x.dtype, device: x.device); // [n, (H + 2G)·D]
        Tensor u, rstd;
        using (var normed = _qkv.NewInput(x.size(0)))
        {
            rstd = Norm(_block.InputNorm, x, y, sum, _qkv.Columns(normed));
            _qkv.Forward(normed, qkv);
            u = _qkv.Ranks(normed);
        }

        if (_bias is not null)
        {
            _kernels.AddBias(qkv, _bias);
        }

        Tensor? raw = null, rstdOfHeads = null;
        if (_block.QueryNorm is { } queryNorm)
        {
            raw = qkv.narrow(1, 0, Heads.QueryWidth + Heads.KeyValueWidth).clone(); // [n, (H + G)·D]
            rstdOfHeads = empty([x.size(0), Heads.QueryHeads + Heads.KeyValueHeads], dtype: ScalarType.Float32, device: x.device);
            _kernels.HeadNorm(qkv, queryNorm.weight.Value, _block.KeyNorm!.weight.Value, queryNorm.Eps, rstdOfHeads, Heads);
        }

        var (cos, sin) = batch.Angles(_block.Turns);
        _kernels.Rope(qkv, cos, sin, Heads);
        var (q, k, v) = Split(qkv);
        var heads = _kernels.Attention(q, k, v, batch.Borders, Scope);
        var (projected, outputU) = _o.ForwardApart(heads.Output.view(-1, _o.InFeatures));
        return new AttentionPart(qkv, u, rstd, heads, outputU, projected) { Raw = raw, RstdOfHeads = rstdOfHeads }.MoveToOuterScope();
    }

    /// <summary>Writes input + projected to middle and the feed-forward's answer to output.</summary>
    private MlpState ForwardMlp(Tensor input, Tensor projected, Tensor middle, Tensor output)
    {
        using var scope = NewDisposeScope();
        var state = GateUp(input, projected, middle);
        var hidden = _down.NewInput(input.size(0));
        _kernels.SwiGlu(_gateUp.Output(state.GateUp), _down.Columns(hidden));
        _down.Forward(hidden, output);
        return (state with { DownU = _down.Ranks(hidden) }).MoveToOuterScope();
    }

    /// <summary>Norm and the two wide projections of x + delta, which is written to sum where there is a delta.</summary>
    private MlpState GateUp(Tensor x, Tensor? delta, Tensor? sum)
    {
        using var scope = NewDisposeScope();
        var gateUp = _gateUp.NewOutput(x.size(0)); // [n, 2F + room]
        using var normed = _gateUp.NewInput(x.size(0));
        var rstd = Norm(_block.MiddleNorm, x, delta, sum, _gateUp.Columns(normed));
        _gateUp.Forward(normed, _gateUp.Output(gateUp));
        return new MlpState(gateUp, _gateUp.Ranks(normed), rstd, null).MoveToOuterScope();
    }

    private Tensor Norm(RmsNorm norm, Tensor x, Tensor? y, Tensor? sum, Tensor normed)
    {
        var rstd = empty(x.size(0), dtype: ScalarType.Float32, device: x.device);
        _kernels.AddRmsNorm(x, y, norm.weight.Value, norm.Eps, sum, normed, rstd);
        return rstd;
    }

    private void BackwardMlp(Tensor gradRows, Tensor middle, MlpState? kept, Tensor dMiddleRows)
    {
        using var scope = NewDisposeScope();
        var (grad, weight) = (Stream(gradRows), _block.MiddleNorm.weight.Value);
        var state = kept ?? GateUp(middle, null, null);
        using (var hidden = empty([middle.size(0), _down.InFeatures], dtype: grad.dtype, device: grad.device))
        {
            var (dHidden, du) = _down.BackwardInput(gradRows); // [n, F], [n, P]
            _kernels.SwiGluBackward(dHidden, _gateUp.Output(state.GateUp), hidden); // gate and up are their gradients from here on
            _down.AddGradients(grad, hidden, state.DownU ?? _down.RanksOf(hidden), du);
            dHidden.Dispose();
        }

        var (dNormed, dRanks) = _gateUp.BackwardInput(state.GateUp);
        _gateUp.AddGradients(_gateUp.Output(state.GateUp), middle, state.Rstd, weight, state.U, dRanks);
        _kernels.RmsNormBackward(dNormed, middle, weight, state.Rstd, grad, Stream(dMiddleRows));
    }

    private void BackwardAttention(Tensor gradRows, Tensor input, AttentionPart part, FastBatch batch, Tensor? dInputRows)
    {
        using var scope = NewDisposeScope();
        var (grad, weight) = (Stream(gradRows), _block.InputNorm.weight.Value);
        var output = part.Heads.Output.view(-1, _o.InFeatures);
        var (dOutput, dOutputRanks) = _o.BackwardInput(gradRows);
        _o.AddGradients(grad, output, part.OutputU, dOutputRanks);
        var (q, k, v) = Split(part.Qkv);
        var (dq, dk, dv) = _kernels.AttentionBackward(dOutput.view(-1, Heads.QueryHeads, Heads.HeadDim), q, k, v, part.Heads, batch.Borders, Scope);
        var dQkvRows = _qkv.NewOutput(input.size(0));
        var dQkv = _qkv.Output(dQkvRows); // [n, (H + 2G)·D]
        var (cos, sin) = batch.Angles(_block.Turns);
        _kernels.RopeBackward(dq, dk, dv, cos, sin, dQkv, Heads);
        if (_block.QueryNorm is { } queryNorm)
        {
            _kernels.HeadNormBackward(dQkv, part.Raw!, queryNorm.weight.Value, _block.KeyNorm!.weight.Value, part.RstdOfHeads!, Heads);
        }

        if (dInputRows is null)
        {
            _qkv.AddGradients(dQkv, input, part.Rstd, weight, part.U, _qkv.BackwardRanks(dQkv));
            return;
        }

        var (dNormed, dRanks) = _qkv.BackwardInput(dQkvRows);
        _qkv.AddGradients(dQkv, input, part.Rstd, weight, part.U, dRanks);
        _kernels.RmsNormBackward(dNormed, input, weight, part.Rstd, grad, Stream(dInputRows)); // [n, hidden]
    }

    /// <summary>The stream's own columns of rows with room beside them.</summary>
    private Tensor Stream(Tensor rows) => rows.narrow(1, 0, _o.OutFeatures);

    private (Tensor Q, Tensor K, Tensor V) Split(Tensor qkv) => (
        qkv.narrow(1, 0, Heads.QueryWidth).view(-1, Heads.QueryHeads, Heads.HeadDim),
        qkv.narrow(1, Heads.QueryWidth, Heads.KeyValueWidth).view(-1, Heads.KeyValueHeads, Heads.HeadDim),
        qkv.narrow(1, Heads.QueryWidth + Heads.KeyValueWidth, Heads.KeyValueWidth).view(-1, Heads.KeyValueHeads, Heads.HeadDim));
}

/// <summary>
/// What a block keeps for its backward: about 94 KB a token in an 8B Llama. Norms, SwiGLU and its product are cheap to compute again
/// and are not kept; in lean mode only the input is.
/// </summary>
internal sealed record LayerState(Tensor Input, AttentionPart? Attention, Tensor? Middle, MlpState? Mlp) : IDisposable
{
    public LayerState MoveToOuterScope()
    {
        Attention?.MoveToOuterScope();
        Mlp?.MoveToOuterScope();
        return this;
    }

    public void Dispose()
    {
        Input.Dispose();
        Middle?.Dispose();
        Attention?.Dispose();
        Mlp?.Dispose();
    }
}

/// <summary>
/// Fused rows [q | k | v] after the rotation, LoRA's u of them, the norm's factors, the heads, LoRA's u of the output, and what it gave.
/// </summary>
internal sealed record AttentionPart(Tensor Qkv, Tensor U, Tensor Rstd, AttentionState Heads, Tensor OutputU, Tensor Projected) : IDisposable
{
    /// <summary>q and k before their heads were normed, and the factors of these norms, where there are such.</summary>
    public Tensor? Raw { get; init; }

    public Tensor? RstdOfHeads { get; init; }

    private IEnumerable<Tensor> All => new[]
    {
        Qkv, U, Rstd, Raw, RstdOfHeads, Heads.Output, Heads.LogSumExp, Heads.Seed, Heads.Offset, OutputU, Projected,
    }.OfType<Tensor>();

    public AttentionPart MoveToOuterScope()
    {
        foreach (var tensor in All.Where(tensor => !tensor.IsInvalid))
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

/// <summary>Rows [gate | up | room], LoRA's u of them, the norm's factors, and LoRA's u of the product (null: not made yet).</summary>
internal sealed record MlpState(Tensor GateUp, Tensor U, Tensor Rstd, Tensor? DownU) : IDisposable
{
    public MlpState MoveToOuterScope()
    {
        GateUp.MoveToOuterDisposeScope();
        U.MoveToOuterDisposeScope();
        Rstd.MoveToOuterDisposeScope();
        DownU?.MoveToOuterDisposeScope();
        return this;
    }

    public void Dispose()
    {
        GateUp.Dispose();
        U.Dispose();
        Rstd.Dispose();
        DownU?.Dispose();
    }
}

/// <summary>A packed batch as the fast step needs it: cosines and sines [n, D/2] in float32, borders on host and device.</summary>
internal sealed record FastBatch(Tensor Cos, Tensor Sin, PackedBorders Borders)
{
    private (Tensor Cos, Tensor Sin)? _still;

    /// <summary>The angles by which heads turn; those of no turn for a layer that does not.</summary>
    public (Tensor Cos, Tensor Sin) Angles(bool turns) =>
        turns ? (Cos, Sin) : _still ??= (ones_like(Cos).DetachFromDisposeScope(), zeros_like(Sin).DetachFromDisposeScope());
}
