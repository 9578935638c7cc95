using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// One Llama block, forward and backward by hand. The stream comes as (x, y) with x + y still to be added, because adding and
/// norming is one kernel.
/// </summary>
internal sealed class FastLlamaLayer : IDisposable
{
    private readonly LlamaDecoderLayer _layer;
    private readonly BlockKernels _kernels;
    private readonly FoldedProjection _qkv;
    private readonly FoldedProjection _o;
    private readonly FoldedProjection _gateUp;
    private readonly FoldedProjection _down;

    public FastLlamaLayer(LlamaDecoderLayer layer, Adapter adapter, BlockKernels kernels)
    {
        (_layer, _kernels) = (layer, kernels);
        var parts = adapter.Parts.ToDictionary(entry => entry.Site, entry => (LoraProjection)entry.Part);
        (Linear, LoraProjection?) With(Linear site) => (site, parts.GetValueOrDefault(site));
        _qkv = new FoldedProjection([With(layer.self_attn.q_proj), With(layer.self_attn.k_proj), With(layer.self_attn.v_proj)]);
        _o = new FoldedProjection([With(layer.self_attn.o_proj)]);
        _gateUp = new FoldedProjection([With(layer.mlp.gate_proj), With(layer.mlp.up_proj)]);
        _down = new FoldedProjection([With(layer.mlp.down_proj)]);
    }

    public IEnumerable<PackedBlock> Blocks => new[] { _qkv, _o, _gateUp, _down }.SelectMany(projection => projection.Blocks);

    private HeadLayout Heads => _layer.self_attn.Heads;

    private double Scale => 1 / Math.Sqrt(Heads.HeadDim);

    /// <summary>The block's output as (x, y), and what its backward needs.</summary>
    public (Tensor X, Tensor Y, LayerState State) Forward(Tensor x, Tensor? y, FastBatch batch)
    {
        using var scope = NewDisposeScope();
        var state = Attend(x, y, batch);
        var output = Down(state);
        return (state.Middle, output.MoveToOuterDisposeScope(), state.MoveToOuterScope(borrowed: x));
    }

    /// <summary>Gives up all but the block's input, to be computed again when the backward comes.</summary>
    public LayerState Recompute(Tensor input, FastBatch batch)
    {
        using var scope = NewDisposeScope();
        return Attend(input, null, batch).MoveToOuterScope(borrowed: input);
    }

    /// <summary>
    /// From the gradient of the block's output (of x and y alike) to that of its input, which it returns unless the block is the first.
    /// What the state holds is used up.
    /// </summary>
    public Tensor? Backward(Tensor grad, LayerState state, FastBatch batch, bool needsInput)
    {
        using var scope = NewDisposeScope();
        var middle = BackwardMlp(grad, state);
        return BackwardAttention(middle, state, batch, needsInput)?.MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        _qkv.Dispose();
        _o.Dispose();
        _gateUp.Dispose();
        _down.Dispose();
    }

    /// <summary>Attention and the first half of the feed-forward: all that a backward needs.</summary>
    private LayerState Attend(Tensor x, Tensor? y, FastBatch batch)
    {
        var input = y is null ? x : empty_like(x); // [n, hidden]: x + y
        var normed = Norm(_layer.input_layernorm, x, y, y is null ? null : input, _qkv, out _);
        var qkv = _qkv.Forward(normed); // [n, (H + 2G)·D]
        normed.Dispose();
        _kernels.Rope(qkv, batch.Cos, batch.Sin, Heads);
        var (q, k, v) = Split(qkv);
        var attention = _kernels.Attention(q, k, v, batch.Borders, Scale);

        var projected = Output(attention);
        var middle = empty_like(x); // [n, hidden]: input + what attention gave
        var normedMiddle = Norm(_layer.post_attention_layernorm, input, projected, middle, _gateUp, out _);
        var gateUp = _gateUp.Forward(normedMiddle); // [n, 2F]
        return new LayerState(input, qkv, attention, middle, gateUp);
    }

    private Tensor Norm(RmsNorm norm, Tensor x, Tensor? y, Tensor? sum, FoldedProjection into, out Tensor rstd)
    {
        var normed = into.NewInput(x.size(0));
        rstd = empty(x.size(0), dtype: ScalarType.Float32, device: x.device);
        _kernels.AddRmsNorm(x, y, norm.weight.Value, norm.Eps, sum, into.Columns(normed), rstd);
        return normed;
    }

    private Tensor Output(AttentionState attention)
    {
        using var scope = NewDisposeScope();
        return _o.Forward(OutputInput(attention)).MoveToOuterDisposeScope(); // [n, hidden]
    }

    private Tensor OutputInput(AttentionState attention)
    {
        var input = _o.NewInput(attention.Output.size(0));
        _o.Columns(input).copy_(attention.Output.view(-1, _o.InFeatures));
        return input;
    }

    private Tensor Down(LayerState state)
    {
        using var scope = NewDisposeScope();
        var hidden = _down.NewInput(state.GateUp.size(0));
        _kernels.SwiGlu(state.GateUp, _down.Columns(hidden));
        return _down.Forward(hidden).MoveToOuterDisposeScope(); // [n, hidden]
    }

    private Tensor BackwardMlp(Tensor grad, LayerState state)
    {
        using var scope = NewDisposeScope();
        using (var hidden = _down.NewInput(grad.size(0)))
        {
            _kernels.SwiGlu(state.GateUp, _down.Columns(hidden));
            _down.FillRanks(hidden);
            using var dHidden = _down.Backward(grad, hidden)!; // [n, F]
            _kernels.SwiGluBackward(dHidden, state.GateUp); // gate and up are their gradients from here on
        }

        var normed = Norm(_layer.post_attention_layernorm, state.Middle, null, null, _gateUp, out var rstd);
        _gateUp.FillRanks(normed);
        var dNormed = _gateUp.Backward(state.GateUp, normed)!;
        var result = empty_like(grad);
        _kernels.RmsNormBackward(dNormed, state.Middle, _layer.post_attention_layernorm.weight.Value, rstd, grad, result);
        return result.MoveToOuterDisposeScope(); // [n, hidden]
    }

    private Tensor? BackwardAttention(Tensor grad, LayerState state, FastBatch batch, bool needsInput)
    {
        using var scope = NewDisposeScope();
        var outputInput = OutputInput(state.Attention);
        _o.FillRanks(outputInput);
        var dOutput = _o.Backward(grad, outputInput)!.contiguous().view(-1, Heads.QueryHeads, Heads.HeadDim);
        var (q, k, v) = Split(state.Qkv);
        var (dq, dk, dv) = _kernels.AttentionBackward(dOutput, q, k, v, state.Attention, batch.Borders, Scale);
        var dQkv = empty_like(state.Qkv);
        _kernels.RopeBackward(dq, dk, dv, batch.Cos, batch.Sin, dQkv, Heads);

        var normed = Norm(_layer.input_layernorm, state.Input, null, null, _qkv, out var rstd);
        _qkv.FillRanks(normed);
        if (_qkv.Backward(dQkv, normed, needsInput) is not { } dNormed)
        {
            return null;
        }

        _kernels.RmsNormBackward(dNormed, state.Input, _layer.input_layernorm.weight.Value, rstd, grad, grad);
        return grad.alias().MoveToOuterDisposeScope(); // [n, hidden]
    }

    private (Tensor Q, Tensor K, Tensor V) Split(Tensor qkv) => (
        qkv.narrow(1, 0, Heads.QueryWidth).view(-1, Heads.QueryHeads, Heads.HeadDim),
        qkv.narrow(1, Heads.QueryWidth, Heads.KeyValueWidth).view(-1, Heads.KeyValueHeads, Heads.HeadDim),
        qkv.narrow(1, Heads.QueryWidth + Heads.KeyValueWidth, Heads.KeyValueWidth).view(-1, Heads.KeyValueHeads, Heads.HeadDim));
}

/// <summary>
/// What a block keeps for its backward: about 94 KB a token in an 8B Llama. Norms, SwiGLU and the thin products are cheap to compute
/// again and are not kept.
/// </summary>
internal sealed record LayerState(Tensor Input, Tensor Qkv, AttentionState Attention, Tensor Middle, Tensor GateUp) : IDisposable
{
    private IEnumerable<Tensor> All =>
        new[] { Input, Qkv, Attention.Output, Attention.LogSumExp, Attention.Seed, Attention.Offset, Middle, GateUp }.OfType<Tensor>();

    /// <summary>Moves what was made here; <paramref name="borrowed"/> is the caller's already.</summary>
    public LayerState MoveToOuterScope(Tensor borrowed)
    {
        foreach (var tensor in All.Where(tensor => !ReferenceEquals(tensor, borrowed)))
        {
            tensor.MoveToOuterDisposeScope();
        }

        return this;
    }

    /// <summary>For a block that is computed again. The middle is part of the stream and goes when the next block has taken it in.</summary>
    public void DropAllButInput()
    {
        foreach (var tensor in All.Where(tensor => !ReferenceEquals(tensor, Input) && !ReferenceEquals(tensor, Middle)))
        {
            tensor.Dispose();
        }
    }

    public void Dispose()
    {
        foreach (var tensor in All)
        {
            tensor.Dispose();
        }
    }
}

/// <summary>A packed batch as the fast step needs it: cosines and sines [n, D/2] in float32, borders on host and device.</summary>
internal sealed record FastBatch(Tensor Cos, Tensor Sin, PackedBorders Borders);
