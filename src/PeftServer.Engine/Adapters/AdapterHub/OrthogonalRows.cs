using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// A matrix [r, width] with orthonormal rows, as <c>torch.nn.utils.parametrizations.orthogonal</c> trains it: a product of Householder
/// reflections of what lies below the diagonal, signs on the diagonal, before a fixed orthogonal base.
/// </summary>
internal sealed class OrthogonalRows
{
    private static readonly long[] Columns = [0];

    private readonly Weight _original; // (r, width)
    private readonly Weight _base; // (width, width)

    public OrthogonalRows(int r, int width)
    {
        if (r >= width)
        {
            throw new AdapterException("r", $"= {r} must be below the width {width} with orthogonality.");
        }

        _original = new Weight(r, width) { Trainable = true };
        _base = new Weight(width, width) { IsBuffer = true };
    }

    public IEnumerable<(string Name, Weight Weight)> State =>
        [("parametrizations.weight.original", _original), ("parametrizations.weight.0.base", _base)];

    public Tensor Value()
    {
        using var scope = NewDisposeScope();
        var x = _original.Value.to(ScalarType.Float32).t(); // [width, r]; reflections need the width of float32
        var below = x.tril(-1);
        var tau = below.mul(below).sum(Columns).Plus(1).reciprocal().Times(2); // [r]
        var q = linalg.householder_product(below, tau);

        // Signs: PyTorch cuts the diagonal to whole numbers, so that weight decay would end it; here it stays what it was.
        var signs = x.detach().diagonal().sign(); // [r]
        return _base.Value.to(ScalarType.Float32).mm(q.mul(signs)).t().MoveToOuterDisposeScope(); // [r, width]
    }

    public void Initialize(Generator generator, Device device)
    {
        using var scope = NewDisposeScope();
        var (r, width) = (_original.Shape[0], _original.Shape[1]);
        var start = zeros(r, width);
        start.diagonal().fill_(TensorArithmetic.MinusOne); // reflections of nothing, times -1: the identity
        _original.Set(start.to(device).MoveToOuterDisposeScope());
        var (q, _) = linalg.qr(randn(width, width, generator: generator));
        _base.Set(q.to(device).MoveToOuterDisposeScope());
    }

    /// <summary>What PyTorch reads of a file's diagonal: whole numbers.</summary>
    public void Prepare() => Diagonal(diagonal => diagonal.trunc());

    /// <summary>What PyTorch shall read: the signs.</summary>
    public void Settle() => Diagonal(diagonal => diagonal.sign());

    private void Diagonal(Func<Tensor, Tensor> change)
    {
        using var scope = NewDisposeScope();
        var diagonal = _original.Value.detach().diagonal();
        diagonal.copy_(change(diagonal));
    }
}
