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

    /// <summary>y [n, N] for an input whose own columns are filled; writes u beside them.</summary>
    public Tensor Forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        FillRanks(input);
        return F.linear(input, _weight).MoveToOuterDisposeScope();
    }

    /// <summary>Writes u = x Aᵀ beside the input, as <see cref="Forward"/> does.</summary>
    public void FillRanks(Tensor input)
    {
        if (RankWidth > 0)
        {
            using var scope = NewDisposeScope();
            Aten.Product(Columns(input), _a.t(), input.narrow(1, InFeatures, RankWidth));
        }
    }

    /// <summary>
    /// Adds the gradients of A and B, and gives that of the input as [n, K] in wider rows (nothing where the input needs none).
    /// </summary>
    public Tensor? Backward(Tensor grad, Tensor input, bool needsInput = true)
    {
        using var scope = NewDisposeScope();
        if (RankWidth == 0)
        {
            return needsInput ? grad.mm(_weight).MoveToOuterDisposeScope() : null;
        }

        var u = input.narrow(1, InFeatures, RankWidth); // [n, P]
        var all = needsInput ? grad.mm(_weight) : null; // [n, K + P]
        var du = all is null ? grad.mm(_weight.narrow(1, InFeatures, RankWidth)) : all.narrow(1, InFeatures, RankWidth); // [n, P]
        var dB = grad.t().mm(u); // [N, P]; only the members' own blocks mean something
        var dA = du.t().mm(Columns(input)); // [P, K]
        foreach (var member in _members)
        {
            member.Add(dA, dB);
        }

        if (all is null)
        {
            return null;
        }

        var dx = Columns(all);
        dx.addmm_(du, _a, 1f, 1f);
        return dx.MoveToOuterDisposeScope(); // [n, K]
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
