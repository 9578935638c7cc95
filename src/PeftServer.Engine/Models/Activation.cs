using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>The activation functions that configs name, by transformers' names.</summary>
internal static class Activation
{
    private static readonly KeptScalar Cubic = new KeptScalar(0.044715);
    private static readonly KeptScalar Slope = new KeptScalar(Math.Sqrt(2 / Math.PI));
    private static readonly KeptScalar Half = new KeptScalar(0.5);
    private static readonly KeptScalar QuickSlope = new KeptScalar(1.702);

    /// <summary>The function in a config's field. Throws, naming the field, for one that is not known.</summary>
    public static Func<Tensor, Tensor> Of(PretrainedConfig config, string field, string otherwise) =>
        Find(config.Text(field, otherwise)) ?? throw config.Unsupported(field, config.Text(field, otherwise));

    public static Func<Tensor, Tensor>? Find(string name) => name switch
    {
        "silu" or "swish" => Silu,
        "gelu" or "gelu_python" => Gelu,
        "gelu_new" or "gelu_pytorch_tanh" or "gelu_fast" or "gelu_python_tanh" or "gelu_accurate" => TanhGelu,
        "quick_gelu" => QuickGelu,
        "relu" => Relu,
        "relu2" => SquaredRelu,
        "relu6" => x => F.relu6(x),
        "tanh" => x => x.tanh(),
        "sigmoid" => x => x.sigmoid(),
        "mish" => x => F.mish(x),
        "leaky_relu" => x => F.leaky_relu(x, 0.01),
        "gelu_10" => ClippedGelu,
        "laplace" => Laplace,
        "linear" => x => x.alias(),
        _ => null,
    };

    public static Tensor Silu(Tensor x) => F.silu(x);

    public static Tensor Gelu(Tensor x) => F.gelu(x);

    public static Tensor Relu(Tensor x) => F.relu(x);

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

    private static Tensor ClippedGelu(Tensor x)
    {
        using var scope = NewDisposeScope();
        return F.gelu(x).AtLeast(-10).AtMost(10).MoveToOuterDisposeScope();
    }

    /// <summary>Half of 1 + erf of how far x is from 0.707, in units of 0.282: <see href="https://arxiv.org/abs/2209.10655"/>.</summary>
    private static Tensor Laplace(Tensor x)
    {
        using var scope = NewDisposeScope();
        return x.Plus(-0.707107).Times(1 / (0.282095 * Math.Sqrt(2))).erf().Plus(1).mul(Half).MoveToOuterDisposeScope();
    }

    private static Tensor SquaredRelu(Tensor x)
    {
        using var scope = NewDisposeScope();
        return F.relu(x).square().MoveToOuterDisposeScope();
    }
}
