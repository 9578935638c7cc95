using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Kernels;

/// <summary>
/// What the hand-written training step does between its matrix products. Two implementations: <see cref="CudaBlockKernels"/>, and
/// plain tensor code (<see cref="TensorBlockKernels"/>) that holds the step to autograd where there is no GPU. Rows are tokens; a
/// tensor described as "may be part of wider rows" has its columns side by side but rows further apart.
/// </summary>
internal abstract class BlockKernels
{
    /// <summary>
    /// Does <paramref name="work"/>, beside what comes after it where the device can: nothing may write to what it reads, nor read what it writes,
    /// before <see cref="Join"/>.
    /// </summary>
    public virtual void Beside(Action work, params ReadOnlySpan<Tensor> reads) => work();

    /// <summary>What comes after this comes after all that was sent beside.</summary>
    public virtual void Join()
    {
    }

    /// <summary>
    /// sum = x + delta and normed = the norm of the sum: [n, H]; x and normed may be part of wider rows. stats takes what the backward needs
    /// of each row. Where delta is null the sum is x itself and nothing is written to <paramref name="sum"/>.
    /// </summary>
    public abstract void AddNorm(Tensor x, Tensor? delta, NormWeights norm, Tensor? sum, Tensor normed, Tensor stats);

    /// <summary>
    /// The gradient of a norm's input plus <paramref name="residual"/> (if any): [n, H]. All may be part of wider rows, the residual of as
    /// wide ones as the result, which may be written over it or over the gradient.
    /// </summary>
    public abstract void NormBackward(Tensor grad, Tensor x, NormWeights norm, Tensor stats, Tensor? residual, Tensor gradX);

    /// <summary>Adds a bias [N] to rows [n, N], which may be part of wider ones.</summary>
    public abstract void AddBias(Tensor rows, Tensor bias);

    /// <summary>
    /// Norms each query and key head of rows [q | k | v] in place, with weights [D]; rstd [n, H + G] in float32 takes their factors.
    /// </summary>
    public abstract void HeadNorm(Tensor qkv, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads);

    /// <summary>
    /// From the gradients of normed heads to those of the heads <paramref name="qk"/> [n, (H + G)·D] before, in place in rows [q | k | v], which
    /// may be part of wider ones.
    /// </summary>
    public abstract void HeadNormBackward(Tensor dqkv, Tensor qk, NormWeights query, NormWeights key, Tensor rstd, HeadLayout heads);

    /// <summary>Turns the query and key heads of rows of q, k and v in place. cos, sin: float32 [n, half of the dimensions that turn].</summary>
    public abstract void Rope(Tensor qkv, Tensor cos, Tensor sin, HeadLayout heads);

    /// <summary>Gathers dq [n, H, D] and dk [n, G, D], turned back, and dv [n, G, D] into rows of q, k and v, which may be part of wider ones.</summary>
    public abstract void RopeBackward(Tensor dq, Tensor dk, Tensor dv, Tensor cos, Tensor sin, Tensor dqkv, HeadLayout heads);

    /// <summary>hidden = a(gate) · up for rows [gate | up]: [n, F]; either may be part of wider rows.</summary>
    public abstract void Gate(GateForm form, Tensor gateUp, Tensor hidden);

    /// <summary>
    /// Overwrites [gate | up] with their gradients and writes a(gate) · up to <paramref name="hidden"/> [n, F] on the way; grad and
    /// [gate | up] may be part of wider rows.
    /// </summary>
    public abstract void GateBackward(GateForm form, Tensor grad, Tensor gateUp, Tensor hidden);

    /// <summary>hidden = a(x) for rows [n, F]; either may be part of wider rows.</summary>
    public abstract void Activate(GateForm form, Tensor x, Tensor hidden);

    /// <summary>Overwrites x with its gradient and writes a(x) to <paramref name="hidden"/> [n, F] on the way; grad and x may be part of wider rows.</summary>
    public abstract void ActivateBackward(GateForm form, Tensor grad, Tensor x, Tensor hidden);

    /// <summary>
    /// Adds −log p of every target to <paramref name="loss"/> and the hits to <paramref name="correct"/> (float32 scalars), and
    /// overwrites logits [m, V], which may be part of wider rows, with scale · their gradient.
    /// </summary>
    public abstract void CrossEntropy(Tensor logits, Tensor targets, Tensor loss, Tensor correct, double scale, ScoreForm form);

    /// <summary>
    /// Causal attention of packed sequences; q [n, H, D], k and v [n, G, D] may be part of wider rows. With a window a token sees so many
    /// tokens back, itself included.
    /// </summary>
    public abstract AttentionState Attention(Tensor q, Tensor k, Tensor v, PackedBorders borders, AttentionScope scope);

    /// <summary>Gradients of q, k and v.</summary>
    public abstract (Tensor Dq, Tensor Dk, Tensor Dv) AttentionBackward(
        Tensor grad, Tensor q, Tensor k, Tensor v, AttentionState state, PackedBorders borders, AttentionScope scope);

    /// <summary>Overwrites scores [heads, rows, S], part of wider rows, with their softmax over the keys that each row's query sees.</summary>
    public abstract void CappedSoftmax(Tensor scores, CappedRows rows);

    /// <summary>The same; and overwrites <paramref name="grad"/>, the gradient of that softmax, with the gradient of the scores.</summary>
    public abstract void CappedSoftmaxBackward(Tensor scores, Tensor grad, CappedRows rows);

    /// <summary>
    /// Rows x [n, K] of groups that stand one after another, each times its own of the matrices [E, K, N], or [E, N, K] where they are
    /// <paramref name="turned"/>: [n, N]. ends: int32 [E], where the rows of each group end.
    /// </summary>
    public abstract Tensor GroupedProduct(Tensor x, Tensor matrices, bool turned, Tensor ends);

    /// <summary>Decodes a matrix [N, K] into <paramref name="target"/>, which may be part of wider rows.</summary>
    public abstract void Nf4Decode(Nf4Matrix matrix, Tensor target);

    /// <summary>
    /// x · columnScale = codes · scale, row by row: x [n, K] may be part of wider rows, columnScale [K] may be null, codes e4m3 [n, K],
    /// scale float32 [n].
    /// </summary>
    public abstract void QuantizeRows(Tensor x, Tensor? columnScale, Tensor codes, Tensor scale);

    /// <summary>target [K, N] = codes [N, K] turned.</summary>
    public abstract void TransposeCodes(Tensor codes, Tensor target);

    /// <summary>target [n, N] = (x · scaleX) (w · scaleW)ᵀ for e4m3 codes x [n, K], w [N, K] and the scales of their rows.</summary>
    public abstract void ScaledProduct(Tensor x, Tensor scaleX, Tensor w, Tensor scaleW, Tensor target);

    /// <summary>Adds blocks of the gradients of stacked matrices to those of the trained ones. Takes over the blocks' tensors.</summary>
    public abstract ILoraCollector CreateCollector(IReadOnlyList<CollectedBlock> blocks);

    /// <summary>Copies float32 matrices, scaled, into blocks of others in the type of the model.</summary>
    public abstract ILoraPacker CreatePacker(IReadOnlyList<PackedBlock> blocks);
}

/// <summary>The activation of a feed-forward part, a(x) = x · s(x), with a gate or alone.</summary>
internal enum GateForm
{
    /// <summary>s is the sigmoid: Llama.</summary>
    Silu,

    /// <summary>s(x) = ½ (1 + tanh(√(2/π) (x + 0.044715 x³))), GELU's approximation: Gemma, GPT-2.</summary>
    Gelu,

    /// <summary>s(x) = ½ (1 + erf(x / √2)), GELU itself: GPT-NeoX.</summary>
    ExactGelu,

    /// <summary>s(x) is 1 above 0, else 0: OPT.</summary>
    Relu,
}

/// <summary>What is done to scores before the softmax: factor · s, and of that c · tanh(that / c) where there is a cap c.</summary>
internal readonly record struct ScoreForm(double Factor, double? Cap)
{
    public static ScoreForm Plain => new(1, null);
}

/// <summary>
/// Rows of attention's scores: row i of a head is that of query First + i mod Queries, counted from the first of the keys. It sees keys up
/// to itself, the last Window of them where there is one.
/// </summary>
internal readonly record struct CappedRows(int Queries, int First, int? Window, double Scale, double Cap);

/// <summary>Factor of the scores, how many tokens back a token sees, itself included (null: all), and the soft cap of the scores (null: none).</summary>
internal readonly record struct AttentionScope(double Scale, int? Window = null, double? SoftCap = null)
{
    /// <summary>Without a window that no sequence is longer than.</summary>
    public AttentionScope For(PackedBorders borders) => Window >= borders.Longest ? this with { Window = null } : this;
}

/// <summary>Where packed sequences begin: on the host, and as int32 on the device.</summary>
internal sealed record PackedBorders(IReadOnlyList<int> Starts, Tensor OnDevice) : IDisposable
{
    private List<SequenceRows>? _groups;

    /// <summary>The sequences in groups of about one length.</summary>
    public IReadOnlyList<SequenceRows> Groups => _groups ??= [.. SequenceRows.Of(this)];

    /// <summary>The length of every sequence, where it is one.</summary>
    public int? CommonLength { get; } = Common(Starts);

    private static int? Common(IReadOnlyList<int> starts)
    {
        var lengths = starts.Zip(starts.Skip(1), (start, end) => end - start).Distinct().Take(2).ToList();
        return lengths.Count == 1 ? lengths[0] : null;
    }

    public int Longest => Starts.Zip(Starts.Skip(1), (start, end) => end - start).Max();

    /// <summary>Frees what the groups made; not <see cref="OnDevice"/>, which is the caller's.</summary>
    public void Dispose() => _groups?.ForEach(group => group.Dispose());
}

/// <summary>
/// The output of attention [n, H, D] and what its backward needs of the forward; <see cref="IsRectangle"/>: made by the code for
/// sequences of one length.
/// </summary>
internal sealed record AttentionState(Tensor Output, Tensor? LogSumExp, Tensor? Seed, Tensor? Offset, bool IsRectangle = false);

/// <summary>A block that follows a trained matrix: target = source · scale.</summary>
internal sealed record PackedBlock(Tensor Source, Tensor Target, double Scale);

/// <summary>Brings the blocks up to date after an optimizer step.</summary>
internal interface ILoraPacker : IDisposable
{
    void Pack();
}

/// <summary>A float32 gradient that takes up a block of dB (or dA) from a row and a column on: target += scale · block.</summary>
internal sealed record CollectedBlock(Tensor Target, bool FromB, int Row, int Column, double Scale);

/// <summary>Adds the blocks, in the type of the model, to the gradients they belong to.</summary>
internal interface ILoraCollector : IDisposable
{
    void Add(Tensor dA, Tensor dB);
}
