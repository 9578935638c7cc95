using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// The frozen weights that share an input, stacked, with LoRA folded in. The input lies in rows of width K + P (P: the ranks
/// together, rounded up), u = x Aᵀ is written beside it, and y = [x | u] [W | s·B]ᵀ is one product; backward,
/// dy [W | s·B] gives dx and du at once. LoRA's own thin products cost a fifth of what they cost apart.
/// </summary>
internal sealed class FoldedProjection : IDisposable
{
    /// <summary>Tensor cores want wide rows; a CPU only whole vectors.</summary>
    private static int RankAlignment(Device device) => device.type is DeviceType.CUDA ? 64 : 8;

    private readonly List<Member> _members = [];
    private readonly Tensor _weight; // [N, K + P]: the frozen weights, then s·B of each member in its own block
    private readonly Tensor _a; // [P, K]: the A's one above the other

    /// <summary>
    /// Lays the weights of <paramref name="projections"/> out once: afterwards each is a view of the stack. LoRA parts may be missing.
    /// </summary>
    public FoldedProjection(IReadOnlyList<(Linear Site, LoraProjection? Lora)> projections)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var first = projections[0].Site.weight.Value;
        InFeatures = projections[0].Site.InFeatures;
        OutFeatures = projections.Sum(projection => projection.Site.OutFeatures);
        var ranks = projections.Sum(projection => projection.Lora?.Rank ?? 0);
        var alignment = RankAlignment(first.device);
        RankWidth = (ranks + alignment - 1) / alignment * alignment;
        _weight = zeros(OutFeatures, InFeatures + RankWidth, dtype: first.dtype, device: first.device).DetachFromDisposeScope();
        _a = zeros(RankWidth, InFeatures, dtype: first.dtype, device: first.device).DetachFromDisposeScope();

        var (row, column) = (0, 0);
        foreach (var (site, lora) in projections)
        {
            var place = _weight.narrow(0, row, site.OutFeatures).narrow(1, 0, InFeatures);
            place.copy_(site.weight.Value);
            site.weight.Set(place.DetachFromDisposeScope());
            if (lora is not null)
            {
                _members.Add(new Member(
                    lora,
                    _a.narrow(0, column, lora.Rank).DetachFromDisposeScope(),
                    _weight.narrow(0, row, site.OutFeatures).narrow(1, InFeatures + column, lora.Rank).DetachFromDisposeScope(), row, column));
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
    public Tensor NewInput(long tokens) => empty([tokens, InFeatures + RankWidth], dtype: _weight.dtype, device: _weight.device);

    /// <summary>The input's own columns: [n, K], in wider rows.</summary>
    public Tensor Columns(Tensor input) => input.narrow(1, 0, InFeatures);

    /// <summary>Writes u = x Aᵀ beside an input whose own columns are filled, and y [n, N] = [x | u] [W | s·B]ᵀ to <paramref name="target"/>.</summary>
    public void Forward(Tensor input, Tensor target)
    {
        using var scope = NewDisposeScope();
        if (RankWidth > 0)
        {
            Aten.Product(Columns(input), _a.t(), input.narrow(1, InFeatures, RankWidth));
        }

        Aten.Product(input, _weight.t(), target);
    }

    /// <summary>u [n, P] as <see cref="Forward"/> left it beside the input, to be kept for the backward.</summary>
    public Tensor Ranks(Tensor input) => input.narrow(1, InFeatures, RankWidth).clone();

    /// <summary>u [n, P] of an input [n, K] that stands alone.</summary>
    public Tensor RanksOf(Tensor x)
    {
        using var scope = NewDisposeScope();
        return x.mm(_a.t()).MoveToOuterDisposeScope();
    }

    /// <summary>y and u of an input [n, K] that stands alone, where copying it would cost more than the thin product does.</summary>
    public (Tensor Y, Tensor U) ForwardApart(Tensor x)
    {
        using var scope = NewDisposeScope();
        var (y, u) = (x.mm(Columns(_weight).t()), x.mm(_a.t()));
        if (RankWidth > 0)
        {
            y.addmm_(u, _weight.narrow(1, InFeatures, RankWidth).t(), 1f, 1f);
        }

        return (y.MoveToOuterDisposeScope(), u.MoveToOuterDisposeScope());
    }

    /// <summary>The gradients of the input, [n, K] in wider rows, and of u, [n, P], from that of y [n, N].</summary>
    public (Tensor Dx, Tensor Du) BackwardInput(Tensor grad)
    {
        using var scope = NewDisposeScope();
        var all = grad.mm(_weight); // [n, K + P]
        var (dx, du) = (Columns(all), all.narrow(1, InFeatures, RankWidth));
        if (RankWidth > 0)
        {
            dx.addmm_(du, _a, 1f, 1f);
        }

        return (dx.MoveToOuterDisposeScope(), du.MoveToOuterDisposeScope());
    }

    /// <summary>The gradient of u alone, for an input that needs none.</summary>
    public Tensor BackwardRanks(Tensor grad)
    {
        using var scope = NewDisposeScope();
        return grad.mm(_weight.narrow(1, InFeatures, RankWidth)).MoveToOuterDisposeScope(); // [n, P]
    }

    /// <summary>Adds the gradients of the A's and B's: grad is that of y, x [n, K] the input, u [n, P] what A made of it.</summary>
    public void AddGradients(Tensor grad, Tensor x, Tensor u, Tensor du)
    {
        if (RankWidth == 0)
        {
            return;
        }

        using var scope = NewDisposeScope();
        var dB = grad.t().mm(u); // [N, P]; only the members' own blocks mean something
        var dA = du.t().mm(x); // [P, K]
        foreach (var member in _members)
        {
            member.Add(dA, dB);
        }
    }

    public void Dispose()
    {
        foreach (var member in _members)
        {
            member.A.Dispose();
            member.B.Dispose();
        }

        _weight.Dispose();
        _a.Dispose();
    }

    private sealed record Member(LoraProjection Lora, Tensor A, Tensor B, int Row, int Column)
    {
        // The block beside W holds s·B, so its gradient is 1/s of B's.
        private readonly Scalar _scale = Lora.Scale.ToScalar();

        public void Add(Tensor dA, Tensor dB)
        {
            Lora.A.grad!.add_(dA.narrow(0, Column, Lora.Rank), TensorArithmetic.One);
            Lora.B.grad!.add_(dB.narrow(0, Row, Lora.B.size(0)).narrow(1, Column, Lora.Rank), _scale);
        }
    }
}
