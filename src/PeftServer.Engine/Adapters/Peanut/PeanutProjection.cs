using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Peanut;

/// <summary>ΔW = s·B(f(A(W))) at a projection, with residual layers inside.</summary>
internal sealed class PeanutProjection : WeightDelta
{
    private readonly PeanutConfig _config;
    private readonly Scalar _scale;
    private readonly Weight peanut_A; // (r, out)
    private readonly Weight peanut_B; // (out, r)
    private readonly Weight[] _encoders; // (r, r)
    private readonly Weight[] _decoders; // (r, r)

    public PeanutProjection(PeanutConfig config, Projection site)
    {
        _config = config;
        _scale = config.Scaling.ToScalar();
        peanut_A = new Weight(config.R, site.OutFeatures) { Trainable = true };
        peanut_B = new Weight(site.OutFeatures, config.R) { Trainable = true };
        _encoders = [.. Enumerable.Range(0, config.Depth).Select(_ => new Weight(config.R, config.R) { Trainable = true })];
        _decoders = [.. Enumerable.Range(0, config.Depth).Select(_ => new Weight(config.R, config.R) { Trainable = true })];
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
    [
        ("peanut_A.weight", peanut_A), ("peanut_B.weight", peanut_B),
        .. _encoders.Select((weight, i) => ($"peanut_encoders.{i}.weight", weight)),
        .. _decoders.Select((weight, i) => ($"peanut_decoders.{i}.weight", weight)),
    ];

    public override Tensor DeltaWeight(Projection site)
    {
        var hidden = Activation(F.linear(site.DenseWeight().to(ScalarType.Float32).t(), peanut_A.Value)); // [in, r]
        var kept = new Stack<Tensor>();
        foreach (var encoder in _encoders)
        {
            kept.Push(hidden);
            hidden = Activation(F.linear(hidden, encoder.Value));
        }

        foreach (var decoder in _decoders)
        {
            hidden = Activation(F.linear(hidden, decoder.Value)).Plus(kept.Pop());
        }

        return F.linear(hidden, peanut_B.Value).mul(_scale).t(); // [out, in]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        foreach (var (_, weight) in State)
        {
            weight.Kaiming(weight.Shape[1], generator, device);
        }

        if (_config.InitWeights)
        {
            peanut_B.Zeros(device);
        }
    }

    private Tensor Activation(Tensor x) => _config.ActFn switch
    {
        "silu" => F.silu(x),
        "gelu" => F.gelu(x),
        "tanh" => x.tanh(),
        "sigmoid" => x.sigmoid(),
        _ => F.relu(x),
    };
}
