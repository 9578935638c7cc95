using System.Runtime.InteropServices;

namespace PeftServer.Engine.Native;

/// <summary>The few calls of cuBLASLt that a matrix product with an algorithm of one's own choice needs. Names are NVIDIA's.</summary>
internal static unsafe partial class CublasLt
{
    private const int Float32 = 0;
    private const int BFloat16 = 14;
    private const int ComputeFloat32 = 68;
    private const int TransposesA = 3;
    private const int TransposesB = 4;
    private const int MaxWorkspaceBytes = 1;
    private const int ReductionSchemeMask = 3;
    private const uint InFloat32 = 3; // partial sums are added in place or in the type of the computation, never in that of the result

    private static readonly string[] Names = ["libcublasLt.so.13", "libcublasLt.so.12"];

    static CublasLt() => NativeLibraryHandle = CudaPackages.Find(Names);

    internal static nint NativeLibraryHandle { get; }

    public static bool IsAvailable => NativeLibraryHandle != 0;

    /// <summary>A handle for the current device; 0 where there is none to be had.</summary>
    public static nint CreateHandle() => cublasLtCreate(out var handle) == 0 ? handle : 0;

    /// <summary>A product of bfloat16 matrices in column order with sums in float32. Throws where cuBLASLt refuses.</summary>
    public static nint CreateProduct(bool transposesA, bool transposesB)
    {
        Check(cublasLtMatmulDescCreate(out var product, ComputeFloat32, Float32), nameof(cublasLtMatmulDescCreate));
        var (a, b) = (transposesA ? 1 : 0, transposesB ? 1 : 0);
        Check(cublasLtMatmulDescSetAttribute(product, TransposesA, &a, sizeof(int)), nameof(cublasLtMatmulDescSetAttribute));
        Check(cublasLtMatmulDescSetAttribute(product, TransposesB, &b, sizeof(int)), nameof(cublasLtMatmulDescSetAttribute));
        return product;
    }

    public static void DestroyProduct(nint product) => _ = cublasLtMatmulDescDestroy(product);

    /// <summary>A bfloat16 matrix in column order, <paramref name="stride"/> elements from column to column.</summary>
    public static nint CreateMatrix(long rows, long columns, long stride)
    {
        Check(cublasLtMatrixLayoutCreate(out var matrix, BFloat16, (ulong)rows, (ulong)columns, stride), nameof(cublasLtMatrixLayoutCreate));
        return matrix;
    }

    public static void DestroyMatrix(nint matrix) => _ = cublasLtMatrixLayoutDestroy(matrix);

    /// <summary>At most <paramref name="count"/> algorithms for a product, the one first that is thought the fastest. None where there is none.</summary>
    public static IReadOnlyList<ProductAlgorithm> Algorithms(nint handle, nint product, nint a, nint b, nint d, long workspaceBytes, int count)
    {
        Check(cublasLtMatmulPreferenceCreate(out var preference), nameof(cublasLtMatmulPreferenceCreate));
        try
        {
            var (bytes, reduction) = ((ulong)workspaceBytes, InFloat32);
            Check(cublasLtMatmulPreferenceSetAttribute(preference, MaxWorkspaceBytes, &bytes, sizeof(ulong)), nameof(cublasLtMatmulPreferenceSetAttribute));
            Check(cublasLtMatmulPreferenceSetAttribute(preference, ReductionSchemeMask, &reduction, sizeof(uint)), nameof(cublasLtMatmulPreferenceSetAttribute));
            var results = new ProductAlgorithm[count];
            fixed (ProductAlgorithm* first = results)
            {
                var code = cublasLtMatmulAlgoGetHeuristic(handle, product, a, b, d, d, preference, count, first, out var found);
                return code == 0 ? [.. results.Take(found).Where(result => result.State == 0)] : [];
            }
        }
        finally
        {
            _ = cublasLtMatmulPreferenceDestroy(preference);
        }
    }

    /// <summary>Whether an algorithm that was found for another product suits this one, within so many bytes of workspace.</summary>
    public static bool Suits(nint handle, nint product, nint a, nint b, nint d, ProductAlgorithm algorithm, long workspaceBytes)
    {
        ProductAlgorithm result = default;
        return cublasLtMatmulAlgoCheck(handle, product, a, b, d, d, &algorithm, &result) == 0 && result.State == 0 && (long)result.WorkspaceBytes <= workspaceBytes;
    }

    /// <summary>d = a · b, plus <paramref name="c"/> where <paramref name="adds"/>; false where the algorithm cannot.</summary>
    public static bool TryMultiply(
        nint handle, nint product, (nint Layout, nint Address) a, (nint Layout, nint Address) b, nint c, (nint Layout, nint Address) d, bool adds, ProductAlgorithm algorithm,
        (nint Address, long Bytes) workspace, nint stream)
    {
        var (alpha, beta) = (1f, adds ? 1f : 0f);
        return cublasLtMatmul(
            handle, product, &alpha, a.Address, a.Layout, b.Address, b.Layout, &beta, c, d.Layout, d.Address, d.Layout, &algorithm, workspace.Address, (nuint)workspace.Bytes,
            stream) == 0;
    }

    private static void Check(int code, string call)
    {
        if (code != 0)
        {
            throw new TorchException($"cuBLASLt refused {call} with code {code}.");
        }
    }

    [LibraryImport("cublasLt")]
    private static partial int cublasLtCreate(out nint handle);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulDescCreate(out nint product, int computeType, int scaleType);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulDescDestroy(nint product);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulDescSetAttribute(nint product, int attribute, void* value, nuint bytes);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatrixLayoutCreate(out nint matrix, int type, ulong rows, ulong columns, long stride);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatrixLayoutDestroy(nint matrix);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulPreferenceCreate(out nint preference);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulPreferenceDestroy(nint preference);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulPreferenceSetAttribute(nint preference, int attribute, void* value, nuint bytes);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulAlgoGetHeuristic(
        nint handle, nint product, nint a, nint b, nint c, nint d, nint preference, int asked, ProductAlgorithm* results, out int found);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmulAlgoCheck(nint handle, nint product, nint a, nint b, nint c, nint d, ProductAlgorithm* algorithm, ProductAlgorithm* result);

    [LibraryImport("cublasLt")]
    private static partial int cublasLtMatmul(
        nint handle, nint product, float* alpha, nint a, nint layoutA, nint b, nint layoutB, float* beta, nint c, nint layoutC, nint d, nint layoutD, ProductAlgorithm* algorithm, nint workspace,
        nuint workspaceBytes, nint stream);
}

/// <summary>
/// An algorithm of cuBLASLt with its settings, and what is said of it: the layout of <c>cublasLtMatmulHeuristicResult_t</c>, whose first field
/// is <c>cublasLtMatmulAlgo_t</c>, so that a pointer to one is a pointer to the other.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct ProductAlgorithm
{
    private fixed ulong _algorithm[8];
    private readonly nuint _workspaceBytes;
    private readonly int _state;
    private readonly float _waves;
    private fixed int _reserved[4];

    public readonly nuint WorkspaceBytes => _workspaceBytes;

    /// <summary>0 where it can be used.</summary>
    public readonly int State => _state;

    /// <summary>How often it fills the device.</summary>
    public readonly float Waves => _waves;
}
