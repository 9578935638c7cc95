using PeftServer.Engine.Native;

namespace PeftServer.Engine.Kernels;

/// <summary>
/// Matrix products on one GPU by whatever is fastest for their shape: of the algorithms that cuBLASLt proposes each is timed once, beside
/// libtorch's own choice, which stays unless another is clearly faster. Numbers of rows that are near one another share a choice, so
/// batches of any length soon need no more timing. For one thread at a time.
/// </summary>
internal sealed class TunedProducts
{
    private const int Proposals = 16;
    private const int Rounds = 3;
    private const int RunsOfRound = 4;
    private const long WorkspaceBytes = 64 << 20;
    private const int Alignment = 256; // of addresses, which the proposals count on
    private const int MostShapes = 4096;

    /// <summary>A choice is another than libtorch's where it takes less than this share of the time: noise alone changes nothing.</summary>
    private const double Clearly = 0.985;

    private readonly int _device;
    private readonly nint _handle;
    private Tensor? _workspace;
    private readonly Dictionary<ProductShape, Plan?> _plans = [];
    private readonly Dictionary<ProductShape, ProductAlgorithm?> _choices = [];
    private readonly List<ProductTiming> _timings = [];

    public TunedProducts(int device)
    {
        _device = device;
        _handle = CublasLt.IsAvailable ? CublasLt.CreateHandle() : 0;
    }

    /// <summary>What was timed so far.</summary>
    public IReadOnlyList<ProductTiming> Timings => _timings;

    /// <summary>target = a · b, or added to it, where an algorithm is known to be faster than libtorch's choice; else false, and nothing is done.</summary>
    public bool TryMultiply(Tensor a, Tensor b, Tensor target, bool adds)
    {
        if (_handle == 0 || ProductShape.Of(a, b, target, adds) is not { } shape || !Suit(a, b, target))
        {
            return false;
        }

        _workspace ??= empty(WorkspaceBytes, dtype: ScalarType.Byte, device: torch.device($"cuda:{_device}")).DetachFromDisposeScope();
        if (!_plans.TryGetValue(shape, out var plan))
        {
            if (_plans.Count >= MostShapes)
            {
                ForgetPlans();
            }

            _plans[shape] = plan = Choose(shape, a, b, target);
        }

        return plan is not null && TryRun(plan, plan.Algorithm, a, b, target, target);
    }

    private static bool Suit(params ReadOnlySpan<Tensor> tensors)
    {
        foreach (var tensor in tensors)
        {
            if (Aten.DataPointer(tensor) % Alignment != 0)
            {
                return false;
            }
        }

        return true;
    }

    private void ForgetPlans()
    {
        foreach (var plan in _plans.Values)
        {
            plan?.Dispose();
        }

        _plans.Clear();
    }

    private Plan? Choose(ProductShape shape, Tensor a, Tensor b, Tensor target)
    {
        var plan = new Plan(shape);
        if (!_choices.TryGetValue(shape.Rounded, out var choice))
        {
            _choices[shape.Rounded] = choice = Fastest(plan, a, b, target);
        }

        if (choice is { } algorithm && plan.Suits(_handle, algorithm, WorkspaceBytes))
        {
            plan.Algorithm = algorithm;
            return plan;
        }

        plan.Dispose();
        return null;
    }

    /// <summary>The fastest algorithm; null: libtorch's choice is. A product that adds writes elsewhere meanwhile.</summary>
    private ProductAlgorithm? Fastest(Plan plan, Tensor a, Tensor b, Tensor target)
    {
        using var scope = NewDisposeScope();
        var place = plan.Shape.Adds ? empty([plan.Shape.Rows, plan.Shape.Stride], dtype: target.dtype, device: target.device).narrow(1, 0, plan.Shape.Columns) : target;
        var proposals = Suit(place) ? plan.Algorithms(_handle, WorkspaceBytes, Proposals).Where(algorithm => TryRun(plan, algorithm, a, b, target, place)).ToList() : [];
        Plain(a, b, place, plan.Shape.Adds);
        var best = new double[proposals.Count + 1]; // libtorch's time first
        Array.Fill(best, double.PositiveInfinity);
        var (from, to) = (CudaDriver.CreateEvent(), CudaDriver.CreateEvent());
        for (var round = 0; round < Rounds; round++)
        {
            for (var i = 0; i < best.Length; i++)
            {
                CudaDriver.Record(from, CudaDriver.CurrentStream(_device));
                for (var run = 0; run < RunsOfRound; run++)
                {
                    if (i == 0)
                    {
                        Plain(a, b, place, plan.Shape.Adds);
                    }
                    else
                    {
                        TryRun(plan, proposals[i - 1], a, b, target, place);
                    }
                }

                CudaDriver.Record(to, CudaDriver.CurrentStream(_device));
                best[i] = Math.Min(best[i], CudaDriver.Milliseconds(from, to) / RunsOfRound);
            }
        }

        CudaDriver.DestroyEvent(from);
        CudaDriver.DestroyEvent(to);
        if (!plan.Shape.Adds)
        {
            Plain(a, b, target, false); // what is right stands there, whoever was the last to try
        }

        var fastest = Array.IndexOf(best, best.Min());
        _timings.Add(new ProductTiming(plan.Shape, proposals.Count, best[0], best[fastest], fastest));
        return fastest > 0 && best[fastest] < Clearly * best[0] ? proposals[fastest - 1] : null;
    }

    private static void Plain(Tensor a, Tensor b, Tensor target, bool adds)
    {
        if (adds)
        {
            target.addmm_(a, b, 1f, 1f);
        }
        else
        {
            Aten.Product(a, b, target);
        }
    }

    /// <summary>Rows are columns to cuBLASLt: it computes targetᵀ = bᵀ aᵀ.</summary>
    private bool TryRun(Plan plan, ProductAlgorithm algorithm, Tensor a, Tensor b, Tensor added, Tensor target) => CublasLt.TryMultiply(
        _handle, plan.Product, (plan.B, Aten.DataPointer(b)), (plan.A, Aten.DataPointer(a)), Aten.DataPointer(added), (plan.Target, Aten.DataPointer(target)), plan.Shape.Adds, algorithm,
        (Aten.DataPointer(_workspace!), WorkspaceBytes), CudaDriver.CurrentStream(_device));

    /// <summary>A product as cuBLASLt describes it.</summary>
    private sealed class Plan(ProductShape shape) : IDisposable
    {
        public ProductShape Shape => shape;

        public nint Product { get; } = CublasLt.CreateProduct(shape.TurnsB, shape.TurnsA);

        public nint A { get; } = shape.TurnsA ? CublasLt.CreateMatrix(shape.Rows, shape.Inner, shape.StrideA) : CublasLt.CreateMatrix(shape.Inner, shape.Rows, shape.StrideA);

        public nint B { get; } = shape.TurnsB ? CublasLt.CreateMatrix(shape.Inner, shape.Columns, shape.StrideB) : CublasLt.CreateMatrix(shape.Columns, shape.Inner, shape.StrideB);

        public nint Target { get; } = CublasLt.CreateMatrix(shape.Columns, shape.Rows, shape.Stride);

        public ProductAlgorithm Algorithm { get; set; }

        public IEnumerable<ProductAlgorithm> Algorithms(nint handle, long workspaceBytes, int count) => CublasLt.Algorithms(handle, Product, B, A, Target, workspaceBytes, count);

        public bool Suits(nint handle, ProductAlgorithm algorithm, long workspaceBytes) => CublasLt.Suits(handle, Product, B, A, Target, algorithm, workspaceBytes);

        public void Dispose()
        {
            CublasLt.DestroyProduct(Product);
            CublasLt.DestroyMatrix(A);
            CublasLt.DestroyMatrix(B);
            CublasLt.DestroyMatrix(Target);
        }
    }
}

/// <summary>
/// A product of bfloat16 matrices [Rows, Inner] · [Inner, Columns]: elements from row to row of each, or where one is turned from column to
/// column.
/// </summary>
internal readonly record struct ProductShape(long Rows, long Columns, long Inner, long StrideA, long StrideB, long Stride, bool TurnsA, bool TurnsB, bool Adds)
{
    private const int Group = 8; // elements of an access: strides are whole multiples

    /// <summary>The same with its sizes rounded up to a quarter of the power of two below them.</summary>
    public ProductShape Rounded => this with { Rows = Round(Rows), Columns = Round(Columns), Inner = Round(Inner) };

    /// <summary>Null for matrices that no fast algorithm takes.</summary>
    public static ProductShape? Of(Tensor a, Tensor b, Tensor target, bool adds)
    {
        if (target.dtype is not ScalarType.BFloat16 || target.numel() == 0 || target.stride(1) != 1 || Side(a) is not { } left || Side(b) is not { } right)
        {
            return null;
        }

        var shape = new ProductShape(target.size(0), target.size(1), a.size(1), left.Stride, right.Stride, target.stride(0), left.Turned, right.Turned, adds);
        return shape is { Rows: >= 16, Columns: >= 16, Inner: >= 16 } && shape.StrideA % Group == 0 && shape.StrideB % Group == 0 && shape.Stride % Group == 0 ? shape : null;
    }

    private static (long Stride, bool Turned)? Side(Tensor x) =>
        x.stride(1) == 1 ? (x.stride(0), false) : x.stride(0) == 1 ? (x.stride(1), true) : null;

    private static long Round(long size)
    {
        var step = Math.Max(8, (long)(System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)size) / 8));
        return (size + step - 1) / step * step;
    }
}

/// <summary>Milliseconds of libtorch's choice and of the fastest of so many proposals; which it was, libtorch's being 0.</summary>
internal sealed record ProductTiming(ProductShape Shape, int Proposals, double Plain, double Best, int Index);
