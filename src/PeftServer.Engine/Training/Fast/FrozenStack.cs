using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Training.Fast;

/// <summary>
/// Frozen weights [N, K] that share an input, one above the other, with room for s·B [N, P] of a LoRA beside them and for its A [P, K]
/// below them. How they are held decides how products with them are made.
/// </summary>
internal abstract class FrozenStack : IDisposable
{
    /// <summary>s·B, each adapted weight's in a block of its own: [N, P].</summary>
    public abstract Tensor ScaledB { get; }

    /// <summary>The A's one above the other: [P, K].</summary>
    public abstract Tensor A { get; }

    /// <summary>y [n, N] = [x | u] [W | s·B]ᵀ for rows [x | u], written to <paramref name="target"/>.</summary>
    public abstract void Forward(Tensor input, Tensor target);

    /// <summary>The same for x [n, K] and u [n, P] that stand apart.</summary>
    public abstract Tensor ForwardApart(Tensor x, Tensor u);

    /// <summary>Columns that rows of gradients of y need beside their own: P where du is written there, else 0.</summary>
    public abstract long Room { get; }

    /// <summary>dx = dy W + du A [n, K] and du = dy s·B [n, P] from rows [dy | room].</summary>
    public abstract (Tensor Dx, Tensor Du) Backward(Tensor rows);

    public abstract void Dispose();

    /// <summary>
    /// Lays the weights out once: afterwards those of <paramref name="sites"/> are views of the stack. All are to be packed alike, or none.
    /// </summary>
    public static FrozenStack Of(IReadOnlyList<Projection> sites, int rankWidth, Device device, ScalarType dtype, BlockKernels kernels) =>
        sites[0].Weight.Packed switch
        {
            null => new DenseStack(sites, rankWidth, device, dtype),
            Nf4Matrix => new Nf4Stack(sites, rankWidth, device, dtype, kernels),
            Fp8Matrix => new Fp8Stack(sites, rankWidth, device, dtype, kernels),
            var other => throw new NotSupportedException($"There is no product with {other.Kind} weights."),
        };
}

/// <summary>All in one matrix [[W, s·B], [A, 0]] of [N + P, K + P], so that LoRA's own products cost next to nothing.</summary>
internal abstract class FoldedStack : FrozenStack
{
    private long Rows => ScaledB.size(0);

    private long Ranks => ScaledB.size(1);

    private long Columns => A.size(1);

    public override long Room => Ranks;

    /// <summary>The matrix [N + P, K + P], for the caller's scope.</summary>
    protected abstract Tensor Whole();

    public override void Forward(Tensor input, Tensor target)
    {
        using var scope = NewDisposeScope();
        Aten.Product(input, Whole().narrow(0, 0, Rows).t(), target);
    }

    public override Tensor ForwardApart(Tensor x, Tensor u)
    {
        using var scope = NewDisposeScope();
        var y = x.mm(Whole().narrow(0, 0, Rows).narrow(1, 0, Columns).t()); // [n, N]
        if (Ranks > 0)
        {
            y.addmm_(u, ScaledB.t(), 1f, 1f);
        }

        return y.MoveToOuterDisposeScope();
    }

    public override (Tensor Dx, Tensor Du) Backward(Tensor rows)
    {
        using var scope = NewDisposeScope();
        var du = rows.narrow(1, Rows, Ranks);
        if (Ranks > 0)
        {
            Aten.Product(rows.narrow(1, 0, Rows), ScaledB, du);
        }

        var dx = rows.narrow(1, 0, Rows + Ranks).mm(Whole().narrow(1, 0, Columns)); // [n, K]
        return (dx.MoveToOuterDisposeScope(), du.MoveToOuterDisposeScope());
    }
}

/// <summary>The weights as they are.</summary>
internal sealed class DenseStack : FoldedStack
{
    private readonly Tensor _whole; // [N + P, K + P]

    public DenseStack(IReadOnlyList<Projection> sites, int rankWidth, Device device, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var (rows, columns) = (sites.Sum(site => site.OutFeatures), sites[0].InFeatures);
        _whole = zeros(rows + rankWidth, columns + rankWidth, dtype: dtype, device: device).DetachFromDisposeScope();
        ScaledB = _whole.narrow(0, 0, rows).narrow(1, columns, rankWidth).DetachFromDisposeScope();
        A = _whole.narrow(0, rows, rankWidth).narrow(1, 0, columns).DetachFromDisposeScope();
        var row = 0;
        foreach (var site in sites)
        {
            var place = _whole.narrow(0, row, site.OutFeatures).narrow(1, 0, columns);
            place.copy_(site.DenseWeight());
            site.PlaceDenseWeight(place.DetachFromDisposeScope());
            row += site.OutFeatures;
        }
    }

    public override Tensor ScaledB { get; }

    public override Tensor A { get; }

    protected override Tensor Whole() => _whole.alias();

    public override void Dispose()
    {
        ScaledB.Dispose();
        A.Dispose();
        _whole.Dispose();
    }
}

/// <summary>4-bit weights: decoded for each product, which at thousands of rows takes a twentieth of the product's own time.</summary>
internal sealed class Nf4Stack : FoldedStack
{
    private readonly List<Nf4Matrix> _matrices;
    private readonly BlockKernels _kernels;

    public Nf4Stack(IReadOnlyList<Projection> sites, int rankWidth, Device device, ScalarType dtype, BlockKernels kernels)
    {
        (_kernels, _matrices) = (kernels, [.. sites.Select(site => (Nf4Matrix)site.Weight.Packed!)]);
        ScaledB = zeros(_matrices.Sum(matrix => matrix.Rows), rankWidth, dtype: dtype, device: device).DetachFromDisposeScope();
        A = zeros(rankWidth, _matrices[0].Columns, dtype: dtype, device: device).DetachFromDisposeScope();
    }

    public override Tensor ScaledB { get; }

    public override Tensor A { get; }

    protected override Tensor Whole()
    {
        using var scope = NewDisposeScope();
        var (columns, ranks) = (_matrices[0].Columns, ScaledB.size(1));
        var whole = empty(ScaledB.size(0) + ranks, columns + ranks, dtype: ScaledB.dtype, device: ScaledB.device); // [N + P, K + P]
        var row = 0;
        foreach (var matrix in _matrices)
        {
            _kernels.Nf4Decode(matrix, whole.narrow(0, row, matrix.Rows).narrow(1, 0, columns));
            row += matrix.Rows;
        }

        whole.narrow(0, 0, row).narrow(1, columns, ranks).copy_(ScaledB);
        whole.narrow(0, row, ranks).narrow(1, 0, columns).copy_(A); // the corner stays as it is: no product takes it
        return whole.MoveToOuterDisposeScope();
    }

    public override void Dispose()
    {
        ScaledB.Dispose();
        A.Dispose();
    }
}

/// <summary>
/// 8-bit weights: products take 8-bit activations and gradients too, with a scale to a row; LoRA's own stay in the type of the model. The
/// backward needs dy W, whose weights' scales lie along the sum: they go into dy before that is coded.
/// </summary>
internal sealed class Fp8Stack : FrozenStack
{
    private readonly BlockKernels _kernels;
    private readonly Tensor _codes; // e4m3 [N, K]
    private readonly Tensor _scale; // float32 [N]
    private readonly Tensor _ones; // float32 [K]

    public Fp8Stack(IReadOnlyList<Projection> sites, int rankWidth, Device device, ScalarType dtype, BlockKernels kernels)
    {
        using var scope = NewDisposeScope();
        _kernels = kernels;
        var (rows, columns) = (sites.Sum(site => site.OutFeatures), sites[0].InFeatures);
        _codes = empty([rows, columns], dtype: Fp8Matrix.E4M3, device: device).DetachFromDisposeScope();
        _scale = empty(rows, dtype: ScalarType.Float32, device: device).DetachFromDisposeScope();
        _ones = ones(columns, dtype: ScalarType.Float32, device: device).DetachFromDisposeScope();
        ScaledB = zeros(rows, rankWidth, dtype: dtype, device: device).DetachFromDisposeScope();
        A = zeros(rankWidth, columns, dtype: dtype, device: device).DetachFromDisposeScope();
        var row = 0;
        foreach (var site in sites)
        {
            var packed = (Fp8Matrix)site.Weight.Packed!;
            var (codes, scale) = (_codes.narrow(0, row, packed.Rows), _scale.narrow(0, row, packed.Rows));
            codes.copy_(packed.Codes);
            scale.copy_(packed.Scale);
            site.Weight.Set(new Fp8Matrix(codes, scale, dtype));
            row += packed.Rows;
        }
    }

    public override Tensor ScaledB { get; }

    public override Tensor A { get; }

    public override void Forward(Tensor input, Tensor target)
    {
        using var scope = NewDisposeScope();
        var columns = _codes.size(1);
        Product(input.narrow(1, 0, columns), null, _codes, _scale, target);
        if (ScaledB.size(1) > 0)
        {
            target.addmm_(input.narrow(1, columns, ScaledB.size(1)), ScaledB.t(), 1f, 1f);
        }
    }

    public override Tensor ForwardApart(Tensor x, Tensor u)
    {
        using var scope = NewDisposeScope();
        var y = empty(x.size(0), _codes.size(0), dtype: x.dtype, device: x.device); // [n, N]
        Product(x, null, _codes, _scale, y);
        if (u.size(1) > 0)
        {
            y.addmm_(u, ScaledB.t(), 1f, 1f);
        }

        return y.MoveToOuterDisposeScope();
    }

    public override long Room => 0;

    public override (Tensor Dx, Tensor Du) Backward(Tensor rows)
    {
        using var scope = NewDisposeScope();
        var grad = rows.narrow(1, 0, _codes.size(0));
        var turned = empty([_codes.size(1), _codes.size(0)], dtype: Fp8Matrix.E4M3, device: _codes.device); // [K, N]
        _kernels.TransposeCodes(_codes, turned);
        var dx = empty(grad.size(0), _codes.size(1), dtype: grad.dtype, device: grad.device); // [n, K]
        Product(grad, _scale, turned, _ones, dx);
        var du = grad.mm(ScaledB); // [n, P]
        if (du.size(1) > 0)
        {
            dx.addmm_(du, A, 1f, 1f);
        }

        return (dx.MoveToOuterDisposeScope(), du.MoveToOuterDisposeScope());
    }

    public override void Dispose()
    {
        ScaledB.Dispose();
        A.Dispose();
        _codes.Dispose();
        _scale.Dispose();
        _ones.Dispose();
    }

    /// <summary>target = (x · columnScale) (w · scaleW)ᵀ.</summary>
    private void Product(Tensor x, Tensor? columnScale, Tensor w, Tensor scaleW, Tensor target)
    {
        using var scope = NewDisposeScope();
        var codes = empty([x.size(0), x.size(1)], dtype: Fp8Matrix.E4M3, device: x.device);
        var scale = empty(x.size(0), dtype: ScalarType.Float32, device: x.device);
        _kernels.QuantizeRows(x, columnScale, codes, scale);
        _kernels.ScaledProduct(codes, scale, w, scaleW, target);
    }
}
