using System.Runtime.InteropServices;
using PeftServer.Engine.Kernels;

namespace PeftServer.Engine.Native;

/// <summary>
/// Operators that TorchSharp does not bind, through libtorch's stable C ABI (<c>torch_call_dispatcher</c>). Autograd sees
/// these calls like any other; a failure is an exception, not the end of the process.
/// </summary>
internal static unsafe partial class Aten
{
    /// <summary>A fused AdamW step in place: p, m, v ← one update with gradient g; with AMSGrad the highest v so far. All float32, step 0-dimensional.</summary>
    public static void FusedAdamW(Tensor p, Tensor g, Tensor m, Tensor v, Tensor? highest, Tensor step, double lr, double beta1, double beta2, double weightDecay, double eps)
    {
        Span<ulong> stack =
        [
            List(p), List(g), List(m), List(v), highest is null ? List() : List(highest), List(step),
            Double(lr), Double(beta1), Double(beta2), Double(weightDecay), Double(eps), highest is null ? 0u : 1u, 0, 0, 0,
        ];
        Call("aten::_fused_adamw_\0"u8, "\0"u8, stack);
    }

    /// <summary>Attention with grouped heads and a scale: q [B, H, T, D], k and v [B, G, S, D] with H a multiple of G.</summary>
    public static Tensor Attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, double scale)
    {
        Span<ulong> stack =
        [
            Handle(q), Handle(k), Handle(v), mask is null ? 0 : Optional(Handle(mask)), Double(0), causal ? 1u : 0u,
            Optional(Double(scale)), q.size(1) == k.size(1) ? 0u : 1u,
        ];
        Call("aten::scaled_dot_product_attention\0"u8, "\0"u8, stack);
        return Result(stack[0]);
    }

    /// <summary>
    /// Causal attention of packed sequences by FlashAttention: q [n, H, D], k and v [n, G, D]; starts: int32 on the device. For
    /// bfloat16 on CUDA. No autograd: <see cref="FlashAttentionBackward"/> is its gradient.
    /// </summary>
    public static AttentionState FlashAttention(Tensor q, Tensor k, Tensor v, Tensor starts, int longest, AttentionScope scope)
    {
        Span<ulong> stack =
        [
            Handle(q), Handle(k), Handle(v), Optional(Handle(starts)), Optional(Handle(starts)), (ulong)longest, (ulong)longest,
            Double(0), 1, 0, Optional(Double(scope.Scale)), Behind(scope), Ahead(scope), 0, 0, 0,
        ];
        Call("aten::_flash_attention_forward\0"u8, "\0"u8, stack);
        Result(stack[4]).Dispose(); // a debug mask, empty
        return new AttentionState(Result(stack[0]), Result(stack[1]), Result(stack[2]), Result(stack[3]));
    }

    public static (Tensor Dq, Tensor Dk, Tensor Dv) FlashAttentionBackward(
        Tensor grad, Tensor q, Tensor k, Tensor v, AttentionState state, Tensor starts, int longest, AttentionScope scope)
    {
        Span<ulong> stack =
        [
            Handle(grad), Handle(q), Handle(k), Handle(v), Handle(state.Output), Handle(state.LogSumExp!), Handle(starts), Handle(starts),
            (ulong)longest, (ulong)longest, Double(0), 1, Handle(state.Seed!), Handle(state.Offset!), Optional(Double(scope.Scale)), Behind(scope), Ahead(scope), 0,
        ];
        Call("aten::_flash_attention_backward\0"u8, "\0"u8, stack);
        return (Result(stack[0]), Result(stack[1]), Result(stack[2]));
    }

    /// <summary>Tokens before a token that it sees, as an optional argument.</summary>
    private static ulong Behind(AttentionScope scope) => scope.Window is { } window ? Optional((ulong)window - 1) : 0;

    private static ulong Ahead(AttentionScope scope) => scope.Window is null ? 0 : Optional(0);

    /// <summary>Causal attention on a CPU: q, k, v [1, H, T, D]; the output [1, H, T, D] and the log of the sums [1, H, T].</summary>
    public static (Tensor Output, Tensor LogSumExp) CpuFlashAttention(Tensor q, Tensor k, Tensor v, double scale)
    {
        Span<ulong> stack = [Handle(q), Handle(k), Handle(v), Double(0), 1, 0, Optional(Double(scale))];
        Call("aten::_scaled_dot_product_flash_attention_for_cpu\0"u8, "\0"u8, stack);
        return (Result(stack[0]), Result(stack[1]));
    }

    public static (Tensor Dq, Tensor Dk, Tensor Dv) CpuFlashAttentionBackward(
        Tensor grad, Tensor q, Tensor k, Tensor v, Tensor output, Tensor logSumExp, double scale)
    {
        Span<ulong> stack =
            [Handle(grad), Handle(q), Handle(k), Handle(v), Handle(output), Handle(logSumExp), Double(0), 1, 0, Optional(Double(scale))];
        Call("aten::_scaled_dot_product_flash_attention_for_cpu_backward\0"u8, "\0"u8, stack);
        return (Result(stack[0]), Result(stack[1]), Result(stack[2]));
    }

    /// <summary>target = a · b, written where target is; it may be part of wider rows.</summary>
    public static void Product(Tensor a, Tensor b, Tensor target)
    {
        Span<ulong> stack = [Handle(a), Handle(b), Handle(target)];
        Call("aten::mm\0"u8, "out\0"u8, stack);
        Result(stack[0]).Dispose();
    }

    /// <summary>target = a · b for each of a batch, written where target is; its rows may be part of wider ones.</summary>
    public static void BatchProduct(Tensor a, Tensor b, Tensor target)
    {
        Span<ulong> stack = [Handle(a), Handle(b), Handle(target)];
        Call("aten::bmm\0"u8, "out\0"u8, stack);
        Result(stack[0]).Dispose();
    }

    /// <summary>Groups of rows of a [n, K], each times its matrix of b [E, K, N]; ends: int32 [E]. For bfloat16 on CUDA.</summary>
    public static Tensor GroupedProduct(Tensor a, Tensor b, Tensor ends)
    {
        Span<ulong> stack = [Handle(a), Handle(b), Optional(Handle(ends)), 0, 0];
        Call("aten::_grouped_mm\0"u8, "\0"u8, stack);
        return Result(stack[0]);
    }

    /// <summary>
    /// target = (a · scaleA) (b · scaleB) for e4m3 codes: a [n, K] row by row, b [K, N] column by column, scaleA [n, 1] and
    /// scaleB [1, N] in float32, target bfloat16. CUDA from compute capability 8.9.
    /// </summary>
    public static void ScaledProduct(Tensor a, Tensor b, Tensor scaleA, Tensor scaleB, Tensor target)
    {
        const ulong BFloat16 = 15;
        Span<ulong> stack = [Handle(a), Handle(b), Handle(scaleA), Handle(scaleB), 0, 0, Optional(BFloat16), 1, Handle(target)];
        Call("aten::_scaled_mm\0"u8, "out\0"u8, stack);
        Result(stack[0]).Dispose();
    }

    /// <summary>The same bytes as numbers of another type.</summary>
    public static Tensor View(Tensor x, ScalarType dtype)
    {
        Span<ulong> stack = [Handle(x), (ulong)dtype];
        Call("aten::view\0"u8, "dtype\0"u8, stack);
        return Result(stack[0]);
    }

    public static Tensor LogSigmoid(Tensor x)
    {
        Span<ulong> stack = [Handle(x)];
        Call("aten::log_sigmoid\0"u8, "\0"u8, stack);
        return Result(stack[0]);
    }

    /// <summary>Address of a tensor's first element.</summary>
    public static nint DataPointer(Tensor tensor)
    {
        Check(aoti_torch_get_data_ptr(tensor.Handle, out var pointer), "aoti_torch_get_data_ptr");
        return pointer;
    }

    internal static void Call(ReadOnlySpan<byte> op, ReadOnlySpan<byte> overload, Span<ulong> stack)
    {
        fixed (byte* name = op, variant = overload)
        fixed (ulong* first = stack)
        {
            Check(torch_call_dispatcher(name, variant, first, aoti_torch_abi_version()), System.Text.Encoding.ASCII.GetString(op[..^1]));
        }
    }

    /// <summary>A new reference that the call takes over.</summary>
    internal static ulong Handle(Tensor tensor)
    {
        Check(aoti_torch_new_tensor_handle(tensor.Handle, out var handle), "aoti_torch_new_tensor_handle");
        return (ulong)handle;
    }

    /// <summary>A tensor argument that is not there where the schema has no optional one.</summary>
    internal static ulong Undefined()
    {
        Check(aoti_torch_new_uninitialized_tensor(out var handle), "aoti_torch_new_uninitialized_tensor");
        return (ulong)handle;
    }

    /// <summary>Takes over what a call returned.</summary>
    internal static Tensor Result(ulong slot) => Tensor.UnsafeCreateTensor((nint)slot);

    internal static ulong Double(double value) => BitConverter.DoubleToUInt64Bits(value);

    /// <summary>An optional argument that is present: a cell that the callee frees.</summary>
    internal static ulong Optional(ulong value)
    {
        var cell = (ulong*)NativeMemory.Alloc(sizeof(ulong));
        *cell = value;
        return (ulong)cell;
    }

    internal static ulong List(params ReadOnlySpan<Tensor> tensors)
    {
        Check(torch_new_list_reserve_size((nuint)tensors.Length, out var list), "torch_new_list_reserve_size");
        foreach (var tensor in tensors)
        {
            Check(torch_list_push_back(list, Handle(tensor)), "torch_list_push_back");
        }

        return (ulong)list;
    }

    private static void Check(int code, string call)
    {
        if (code != 0)
        {
            throw new TorchException(CudaAllocator.RanOut() ? $"CUDA out of memory in {call}." : $"libtorch refused {call}; its reason is on standard error.");
        }
    }

    [LibraryImport("torch_cpu")]
    private static partial int torch_call_dispatcher(byte* op, byte* overload, ulong* stack, ulong version);

    [LibraryImport("torch_cpu")]
    private static partial int aoti_torch_new_tensor_handle(nint source, out nint result);

    [LibraryImport("torch_cpu")]
    private static partial int aoti_torch_new_uninitialized_tensor(out nint result);

    [LibraryImport("torch_cpu")]
    private static partial int torch_new_list_reserve_size(nuint size, out nint list);

    [LibraryImport("torch_cpu")]
    private static partial int torch_list_push_back(nint list, ulong value);

    [LibraryImport("torch_cpu")]
    private static partial ulong aoti_torch_abi_version();

    [LibraryImport("torch_cpu")]
    private static partial int aoti_torch_get_data_ptr(nint tensor, out nint pointer);
}

/// <summary>An operator of libtorch failed.</summary>
public sealed class TorchException(string message) : Exception(message);
