using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// One block, forward and backward by hand: how the stream goes around attention and feed-forward. It comes as (x, y) with
/// x + y still to be added, because adding and norming is one kernel.
/// </summary>
internal sealed class FastLlamaLayer : IDisposable
{
    private readonly FastBlock _block;
    private readonly BlockKernels _kernels;
    private readonly FastAttention _attention;
    private readonly FastFeedForward _mlp;

    public FastLlamaLayer(FastBlock block, Adapter adapter, BlockKernels kernels)
    {
        (_block, _kernels) = (block, kernels);
        var parts = adapter.Parts.ToDictionary(entry => entry.Site, entry => (LoraProjection)entry.Part);
        var (device, dtype) = (adapter.Model.Device, adapter.Model.Dtype);
        FoldedProjection Fold(IReadOnlyList<Projection> sites) => new([.. sites.Select(site => (site, parts.GetValueOrDefault(site)))], device, dtype, kernels);
        _attention = new FastAttention(block, Fold, kernels);
        _mlp = block.Experts is null ? new FastMlp(block, Fold, kernels) : new FastExperts(block, kernels);
    }

    public IEnumerable<PackedBlock> Blocks => _attention.Blocks.Concat(_mlp.Blocks);

    /// <summary>Columns that rows of the stream's gradient need beside their own, at least.</summary>
    public long GradientRoom => Math.Max(_attention.GradientRoom, _mlp.GradientRoom);

    /// <summary>
    /// The block's output as (x, y), both the caller's. The state is what its backward needs: all of it, or in lean mode the block's input
    /// alone.
    /// </summary>
    public (Tensor X, Tensor Y, LayerState State) Forward(Tensor x, Tensor? y, FastBatch batch, ActivationMode mode)
    {
        using var scope = NewDisposeScope();
        var keep = mode is ActivationMode.Keep;
        var input = y is null ? x.alias() : empty_like(x); // [n, hidden]: x + y
        var (attended, part) = _attention.Forward(x, y, y is null ? null : input, batch);
        var (middle, output) = (_block.IsParallel ? input : empty_like(x), empty_like(x)); // [n, hidden]
        FeedForwardState? mlp = null;
        foreach (var (start, count) in Pieces(x.size(0), mode))
        {
            using var inner = NewDisposeScope();
            Tensor Piece(Tensor rows) => rows.narrow(0, start, count);
            var piece = _block.IsParallel
                ? _mlp.Forward(Piece(input), null, null, Piece(output))
                : _mlp.Forward(Piece(input), Piece(attended), Piece(middle), Piece(output));
            if (keep)
            {
                piece.MoveToOuterScope();
                mlp = piece;
            }
        }

        if (_block.IsParallel)
        {
            output.Add(attended);
        }

        var state = new LayerState(input, keep ? part : null, keep && !_block.IsParallel ? middle : null, mlp);
        return (middle.alias().MoveToOuterDisposeScope(), output.MoveToOuterDisposeScope(), state.MoveToOuterScope());
    }

    /// <summary>
    /// From the gradient of the block's output (of x and y alike) to that of its input, in place; nothing where that is not needed. The
    /// gradient lies in rows with <see cref="GradientRoom"/> beside it. What the state does not hold is computed again; what it holds is used up.
    /// </summary>
    public void Backward(Tensor gradRows, LayerState state, FastBatch batch, ActivationMode mode, bool needsInput)
    {
        using var scope = NewDisposeScope();
        var (input, part, middle) = (state.Input, state.Attention, state.Middle);
        if (part is null)
        {
            (var attended, part) = _attention.Forward(input, null, null, batch);
            middle = _block.IsParallel ? null : input.Plus(attended);
        }

        var dMiddleRows = empty_like(gradRows); // [n, hidden + room]
        foreach (var (start, count) in Pieces(gradRows.size(0), mode))
        {
            using var inner = NewDisposeScope();
            Tensor Piece(Tensor rows) => rows.narrow(0, start, count);
            _kernels.Join(); // what was held for work beside goes now
            _mlp.Backward(Piece(gradRows), Piece(middle ?? input), state.Mlp, Stream(Piece(gradRows)), Stream(Piece(dMiddleRows)));
        }

        if (_block.IsParallel)
        {
            _kernels.Join(); // attention uses the room beside the gradient, as the feed-forward did
        }

        // Side by side, both answers have the output's gradient and the norm's input that of both: a norm's backward is linear.
        _attention.Backward(
            _block.IsParallel ? gradRows : dMiddleRows, input, part, batch, Stream(dMiddleRows), needsInput ? Stream(gradRows) : null);
    }

    public void Dispose()
    {
        _attention.Dispose();
        _mlp.Dispose();
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

    /// <summary>The stream's own columns of rows with room beside them.</summary>
    private Tensor Stream(Tensor rows) => rows.narrow(1, 0, _block.O.OutFeatures);
}

/// <summary>
/// What a block keeps for its backward: about 94 KB a token in an 8B Llama. Norms, gates and their product are cheap to compute again
/// and are not kept; in lean mode only the input is.
/// </summary>
internal sealed record LayerState(Tensor Input, AttentionPart? Attention, Tensor? Middle, FeedForwardState? Mlp) : IDisposable
{
    public LayerState MoveToOuterScope()
    {
        Input.MoveToOuterDisposeScope();
        Middle?.MoveToOuterDisposeScope();
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

/// <summary>A packed batch as the fast step needs it: cosines and sines [n, D/2] in float32 of each kind of layer, borders on host and device.</summary>
internal sealed record FastBatch(IReadOnlyList<(Tensor Cos, Tensor Sin)> Turns, PackedBorders Borders) : IDisposable
{
    private (Tensor Cos, Tensor Sin)? _still;

    /// <summary>The angles by which heads turn; those of no turn for a layer that does not.</summary>
    public (Tensor Cos, Tensor Sin) Angles(int? kind, HeadLayout heads) => kind is { } turning ? Turns[turning] : _still ??= Still(heads);

    public void Dispose()
    {
        Borders.Dispose();
        _still?.Cos.Dispose();
        _still?.Sin.Dispose();
    }

    private (Tensor Cos, Tensor Sin) Still(HeadLayout heads)
    {
        long[] shape = [Borders.Starts[^1], heads.Turning / 2];
        return (ones(shape, device: Borders.OnDevice.device).DetachFromDisposeScope(), zeros(shape, device: Borders.OnDevice.device).DetachFromDisposeScope());
    }
}
