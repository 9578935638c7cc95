using System.Runtime.InteropServices;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Kernels;

/// <summary>
/// Causal attention by cuDNN for sequences of one length: on Hopper it takes half the time of libtorch's flash attention, which
/// serves all others.
/// </summary>
internal sealed class CudnnAttention
{
    // Through TorchScript: the C ABI cannot return tensors and numbers in one call. The script is fixed, since one that does not
    // compile ends the process.
    private const string Script = """
        def forward(q, k, v, scale: float):
            out, lse, cum_q, cum_k, max_q, max_k, seed, offset, debug = torch._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, True, False, scale=scale)
            return [out, lse, seed, offset]
        """;

    /// <summary>Widest heads that it takes forward and backward wherever it is.</summary>
    private const int Certain = 128;

    private static readonly Lazy<jit.CompilationUnit> Compiled = new(() => jit.compile(Script + "\n"));
    private readonly Dictionary<double, Scalar> _scales = [];

    private readonly Dictionary<long, bool> _wide = [];
    private bool _works = true; // until a call has failed: this cuDNN or this GPU cannot

    /// <summary>Whether it takes heads of <paramref name="width"/>, as far as is known. Wider ones than all can are tried once, backward too.</summary>
    public bool Takes(long width, Device device)
    {
        if (width <= Certain || !_works)
        {
            return _works;
        }

        if (!_wide.TryGetValue(width, out var takes))
        {
            _wide[width] = takes = TryBoth(width, device);
            _works = true;
        }

        return takes;
    }

    private bool TryBoth(long width, Device device)
    {
        using var scope = NewDisposeScope();
        var x = zeros([1, 1, 128, width], dtype: ScalarType.BFloat16, device: device);
        try
        {
            if (TryForward(x, x, x, 1) is not { } state)
            {
                return false;
            }

            Backward(x, x, x, x, state, 1);
            return true;
        }
        catch (TorchException)
        {
            return false;
        }
    }

    /// <summary>q [B, H, T, D], k and v [B, G, T, D]; the output is [B, H, T, D]. Null where it cannot be done.</summary>
    public AttentionState? TryForward(Tensor q, Tensor k, Tensor v, double scale)
    {
        if (!_scales.TryGetValue(scale, out var factor))
        {
            _scales[scale] = factor = scale.ToScalar();
        }

        try
        {
            var results = (Tensor[])Compiled.Value.invoke("forward", q, k, v, factor);
            return new AttentionState(results[0], results[1], results[2], results[3], IsRectangle: true);
        }
        catch (Exception e) when (e is ExternalException or InvalidCastException)
        {
            _works = false;
            return null;
        }
    }

    public static (Tensor Dq, Tensor Dk, Tensor Dv) Backward(Tensor grad, Tensor q, Tensor k, Tensor v, AttentionState state, double scale)
    {
        Span<ulong> stack =
        [
            Aten.Handle(grad), Aten.Handle(q), Aten.Handle(k), Aten.Handle(v), Aten.Handle(state.Output), Aten.Handle(state.LogSumExp!),
            Aten.Handle(state.Seed!), Aten.Handle(state.Offset!), Aten.Undefined(), Aten.Undefined(), Aten.Undefined(),
            (ulong)q.size(2), (ulong)k.size(2), Aten.Double(0), 1, Aten.Optional(Aten.Double(scale)),
        ];
        Aten.Call("aten::_scaled_dot_product_cudnn_attention_backward\0"u8, "\0"u8, stack);
        return (Aten.Result(stack[0]), Aten.Result(stack[1]), Aten.Result(stack[2]));
    }
}
