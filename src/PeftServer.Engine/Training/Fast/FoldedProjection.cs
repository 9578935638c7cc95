using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// Linear maps that share an input, stacked, with LoRA folded in. The input lies in rows of width K + P (P: the ranks
/// together, rounded up), u = x Aᵀ is written beside it, and y = [x | u] [W | s·B]ᵀ is one product; backward likewise.
/// </summary>
internal sealed class FoldedProjection : IDisposable
{
    private readonly List<Member> _members = [];
    private readonly FrozenStack _stack;
    private readonly Tensor? _bias; // [N]
    private readonly BlockKernels _kernels;
    private readonly ScalarType _dtype;
    private readonly Device _device;
    private ILoraCollector? _collector;
    private nint _gradients;

    /// <summary>Stacks the weights of <paramref name="projections"/>; LoRA parts may be missing.</summary>
    public FoldedProjection(IReadOnlyList<(Projection Site, LoraProjection? Lora)> projections, Device device, ScalarType dtype, BlockKernels kernels)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        (_kernels, _dtype, _device) = (kernels, dtype, device);
        InFeatures = projections[0].Site.InFeatures;
        OutFeatures = projections.Sum(projection => projection.Site.OutFeatures);
        var ranks = projections.Sum(projection => projection.Lora?.Rank ?? 0);
        RankWidth = RankWidthOf(ranks, device);
        _stack = FrozenStack.Of([.. projections.Select(projection => projection.Site)], RankWidth, device, dtype, kernels);
        _bias = projections.All(projection => projection.Site.Bias is null) ? null
            : cat([.. projections.Select(projection => projection.Site.Bias?.Value ?? zeros(projection.Site.OutFeatures, dtype: dtype, device: device))]).DetachFromDisposeScope();

        var (row, column) = (0, 0);
        foreach (var (site, lora) in projections)
        {
            if (lora is not null)
            {
                _members.Add(new Member(
                    lora,
                    _stack.A.narrow(0, column, lora.Rank).DetachFromDisposeScope(),
                    _stack.ScaledB.narrow(0, row, site.OutFeatures).narrow(1, column, lora.Rank).DetachFromDisposeScope(), row, column));
                column += lora.Rank;
            }

            row += site.OutFeatures;
        }
    }

    public int InFeatures { get; }

    public int OutFeatures { get; }

    /// <summary>Columns beside the input: 0 where nothing here is adapted.</summary>
    public int RankWidth { get; }

    /// <summary>What follows the trained matrices, to be brought up to date after every optimizer step.</summary>
    public IEnumerable<PackedBlock> Blocks => _members.SelectMany(member => new[]
    {
        new PackedBlock(member.Lora.A, member.A, 1),
        new PackedBlock(member.Lora.B, member.B, member.Lora.Scale),
    });

    /// <summary>Room for an input of <paramref name="tokens"/> rows and what stands beside it: [n, K + P].</summary>
    public Tensor NewInput(long tokens) => empty([tokens, InFeatures + RankWidth], dtype: _dtype, device: _device);

    /// <summary>The input's own columns: [n, K], in wider rows.</summary>
    public Tensor Columns(Tensor input) => input.narrow(1, 0, InFeatures);

    /// <summary>Writes u = x Aᵀ beside an input whose own columns are filled, and y [n, N] = [x | u] [W | s·B]ᵀ + b to <paramref name="target"/>.</summary>
    public void Forward(Tensor input, Tensor target)
    {
        using var scope = NewDisposeScope();
        if (RankWidth > 0)
        {
            Aten.Product(Columns(input), _stack.A.t(), input.narrow(1, InFeatures, RankWidth));
        }

        _stack.Forward(input, target);
        AddBias(target);
    }

    /// <summary>u [n, P] as <see cref="Forward"/> left it beside the input, to be kept for the backward.</summary>
    public Tensor Ranks(Tensor input) => input.narrow(1, InFeatures, RankWidth).clone();

    /// <summary>u [n, P] of an input [n, K] that stands alone.</summary>
    public Tensor RanksOf(Tensor x)
    {
        using var scope = NewDisposeScope();
        return x.mm(_stack.A.t()).MoveToOuterDisposeScope();
    }

    /// <summary>y and u of an input [n, K] that stands alone, where copying it would cost more than the thin product does.</summary>
    public (Tensor Y, Tensor U) ForwardApart(Tensor x)
    {
        var u = RanksOf(x);
        var y = _stack.ForwardApart(x, u);
        AddBias(y);
        return (y, u);
    }

    /// <summary>Columns that rows of gradients of the output have beside their own.</summary>
    public long Room => _stack.Room;

    /// <summary>Room for an output (and its gradient) of <paramref name="tokens"/> rows and what stands beside it.</summary>
    public Tensor NewOutput(long tokens) => empty([tokens, OutFeatures + Room], dtype: _dtype, device: _device);

    /// <summary>The output's own columns: [n, N], in wider rows.</summary>
    public Tensor Output(Tensor rows) => rows.narrow(1, 0, OutFeatures);

    /// <summary>
    /// The gradients of the input, [n, K], and of u, [n, P], from rows [dy | room] of that of y. With du beside dy, dx =
    /// [dy | du] [W over A] is one product again.
    /// </summary>
    public (Tensor Dx, Tensor Du) BackwardInput(Tensor rows) => _stack.Backward(rows);

    /// <summary>The gradient of u alone, for an input that needs none.</summary>
    public Tensor BackwardRanks(Tensor grad) => grad.mm(_stack.ScaledB); // [n, P]

    /// <summary>
    /// Adds the gradients of the A's and B's, beside what comes next: grad is that of y, x [n, K] the input, u [n, P] what A made of it. None of
    /// them may change before <see cref="BlockKernels.Join"/>.
    /// </summary>
    public void AddGradients(Tensor grad, Tensor x, Tensor u, Tensor du)
    {
        if (RankWidth > 0)
        {
            _kernels.Beside(
                () =>
                {
                    using var scope = NewDisposeScope();
                    Add(grad, u, du.t().mm(x));
                },
                grad, x, u, du);
        }
    }

    /// <summary>
    /// The same where the input is a norm of x. That of Llama need not be made again for it: dA = (du · rstd)ᵀ x · weight.
    /// </summary>
    public void AddGradients(Tensor grad, Tensor x, NormWeights norm, Tensor stats, Tensor u, Tensor du)
    {
        if (RankWidth > 0)
        {
            _kernels.Beside(() => AddNormed(grad, x, norm, stats, u, du), grad, x, stats, u, du);
        }
    }

    private void AddNormed(Tensor grad, Tensor x, NormWeights norm, Tensor stats, Tensor u, Tensor du)
    {
        using var scope = NewDisposeScope();
        if (norm.Form is NormForm.Rms or NormForm.OffsetRms)
        {
            var scaled = du.mul(stats.select(0, 0).unsqueeze(1)).to(_dtype); // [n, P]
            Add(grad, u, scaled.t().mm(x).mul_(norm.Factor!));
            return;
        }

        var normed = x;
        if (norm.Form is not NormForm.None)
        {
            normed = empty_like(x);
            _kernels.AddNorm(x, null, norm, null, normed, stats);
        }

        Add(grad, u, du.t().mm(normed));
    }

    private void AddBias(Tensor rows)
    {
        if (_bias is not null)
        {
            _kernels.AddBias(rows, _bias);
        }
    }

    private void Add(Tensor grad, Tensor u, Tensor dA)
    {
        var dB = grad.t().mm(u); // [N, P]; only the members' own blocks mean something
        Collector().Add(dA, dB);
    }

    /// <summary>Made when the optimizer has made the gradients, and anew should another one make others.</summary>
    private ILoraCollector Collector()
    {
        var gradients = Aten.DataPointer(_members[0].Lora.A.grad!);
        if (_collector is null || gradients != _gradients)
        {
            _collector?.Dispose();
            _collector = _kernels.CreateCollector([.. _members.SelectMany(member => member.Gradients)]);
            _gradients = gradients;
        }

        return _collector;
    }

    public void Dispose()
    {
        foreach (var member in _members)
        {
            member.A.Dispose();
            member.B.Dispose();
        }

        _collector?.Dispose();
        _bias?.Dispose();
        _stack.Dispose();
    }

    /// <summary>Columns for so many ranks. Tensor cores want wide rows; a CPU only whole vectors.</summary>
    public static int RankWidthOf(int ranks, Device device)
    {
        var alignment = device.type is DeviceType.CUDA ? 64 : 8;
        return (ranks + alignment - 1) / alignment * alignment;
    }

    private sealed record Member(LoraProjection Lora, Tensor A, Tensor B, int Row, int Column)
    {
        // The block beside W holds s·B, so its gradient is 1/s of B's.
        public IEnumerable<CollectedBlock> Gradients =>
        [
            new(Lora.A.grad!.DetachFromDisposeScope(), FromB: false, Column, 0, 1),
            new(Lora.B.grad!.DetachFromDisposeScope(), FromB: true, Row, Column, Lora.Scale),
        ];
    }
}
