using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>The activation functions that configs name, by transformers' names.</summary>
internal static class Activation
{
    private static readonly Scalar Cubic = 0.044715.ToScalar();
    private static readonly Scalar Slope = Math.Sqrt(2 / Math.PI).ToScalar();
    private static readonly Scalar Half = 0.5.ToScalar();
    private static readonly Scalar QuickSlope = 1.702.ToScalar();

    /// <summary>The function in a config's field. Throws, naming the field, for one that is not known.</summary>
    public static Func<Tensor, Tensor> Of(PretrainedConfig config, string field, string otherwise) =>
        Find(config.Text(field, otherwise)) ?? throw config.Unsupported(field, config.Text(field, otherwise));

    public static Func<Tensor, Tensor>? Find(string name) => name switch
    {
        "silu" or "swish" => x => F.silu(x),
        "gelu" or "gelu_python" => x => F.gelu(x),
        "gelu_new" or "gelu_pytorch_tanh" or "gelu_fast" or "gelu_python_tanh" or "gelu_accurate" => TanhGelu,
        "quick_gelu" => QuickGelu,
        "relu" => x => F.relu(x),
        "relu2" => SquaredRelu,
        "relu6" => x => F.relu6(x),
        "tanh" => x => x.tanh(),
        "sigmoid" => x => x.sigmoid(),
        "mish" => x => F.mish(x),
        "leaky_relu" => x => F.leaky_relu(x, 0.01),
        "linear" => x => x.alias(),
        _ => null,
    };

    public static Tensor TanhGelu(Tensor x)
    {
        using var scope = NewDisposeScope();
        var inner = x.Plus(x.mul(x).mul(x).mul(Cubic)).mul(Slope).tanh().add(TensorArithmetic.One);
        return x.mul(Half).mul(inner).MoveToOuterDisposeScope();
    }

    private static Tensor QuickGelu(Tensor x)
    {
        using var scope = NewDisposeScope();
        return x.mul(x.mul(QuickSlope).sigmoid()).MoveToOuterDisposeScope();
    }

    private static Tensor SquaredRelu(Tensor x)
    {
        using var scope = NewDisposeScope();
        return F.relu(x).square().MoveToOuterDisposeScope();
    }
}
