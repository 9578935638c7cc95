using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>How a linear layer of an adapter starts.</summary>
internal enum LinearStart
{
    /// <summary>N(0, 0.02), bias 0: not the identity, in the first step either.</summary>
    Bert,

    /// <summary>N(0, 0.01) cut at two deviations, bias 0.</summary>
    Houlsby,

    /// <summary>Kaiming-uniform, bias 0.</summary>
    Kaiming,

    Zero,

    /// <summary>As <c>torch.nn.Linear</c>.</summary>
    Torch,
}

/// <summary>A trainable piece of an adapter with named weights.</summary>
internal abstract class HubModule
{
    public abstract IEnumerable<(string Name, Weight Weight)> State { get; }

    /// <summary>x [n, in]; the result is [n, out].</summary>
    public abstract Tensor Forward(Tensor x);
}

internal abstract class HubLinear : HubModule
{
    public abstract void Initialize(LinearStart start, Generator generator, Device device);
}

/// <summary>y = x Wᵀ + b, trainable.</summary>
internal sealed class DenseLinear(int inFeatures, int outFeatures, bool hasBias = true) : HubLinear
{
    private readonly Weight weight = new(outFeatures, inFeatures) { Trainable = true };
    private readonly Weight? bias = hasBias ? new(outFeatures) { Trainable = true } : null;

    public Weight Weight => weight;

    public Weight? Bias => bias;

    public override IEnumerable<(string Name, Weight Weight)> State =>
        bias is null ? [(nameof(weight), weight)] : [(nameof(weight), weight), (nameof(bias), bias)];

    public override Tensor Forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        return F.linear(x, weight.Value.to(x.dtype), bias?.Value.to(x.dtype)).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(LinearStart start, Generator generator, Device device)
    {
        switch (start)
        {
            case LinearStart.Bert:
                weight.Normal(0.02, generator, device);
                break;
            case LinearStart.Houlsby:
                using (var scope = NewDisposeScope())
                {
                    using var limit = 2.0.ToScalar();
                    using var low = (-2.0).ToScalar();
                    var draws = randn(outFeatures, inFeatures, generator: generator);
                    for (var beyond = draws.abs().gt(limit); beyond.any().item<bool>(); beyond = draws.abs().gt(limit))
                    {
                        draws = where(beyond, randn(outFeatures, inFeatures, generator: generator), draws);
                    }

                    weight.Set(draws.clamp(low, limit).Times(0.01).to(device).MoveToOuterDisposeScope());
                }

                break;
            case LinearStart.Zero:
                weight.Zeros(device);
                break;
            default:
                weight.Kaiming(inFeatures, generator, device);
                break;
        }

        if (start is LinearStart.Torch)
        {
            bias?.Uniform(1 / Math.Sqrt(inFeatures), generator, device);
        }
        else
        {
            bias?.Zeros(device);
        }
    }
}

/// <summary>A trainable layer norm.</summary>
internal sealed class HubNorm(int width, double eps = 1e-5) : HubModule
{
    private readonly long[] _shape = [width];
    private readonly Weight weight = new(width) { Trainable = true };
    private readonly Weight bias = new(width) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(weight), weight), (nameof(bias), bias)];

    public override Tensor Forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        return F.layer_norm(x, _shape, weight.Value.to(x.dtype), bias.Value.to(x.dtype), eps).MoveToOuterDisposeScope(); // [n, width]
    }

    public void Initialize(Device device)
    {
        weight.Ones(device);
        bias.Zeros(device);
    }
}
