using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Gralora;

/// <summary>k slices of the input, each with its own A; their results change places, and each slice of the output has its own B.</summary>
internal sealed class GraloraProjection : LinearDelta
{
    private readonly GraloraConfig _config;
    private readonly Scalar _scale;
    private readonly Weight gralora_A; // (k, in/k, r)
    private readonly Weight gralora_B; // (k, r, out/k)
    private readonly Weight? _generalA; // (hybrid_r, in)
    private readonly Weight? _generalB; // (out, hybrid_r)

    public GraloraProjection(GraloraConfig config, Projection site)
    {
        var k = config.GraloraK;
        if (site.InFeatures % k != 0 || site.OutFeatures % k != 0 || config.R % k != 0)
        {
            throw new AdapterException("gralora_k", $"{k} must divide r ({config.R}) and both sides of {site.Path} [{site.OutFeatures}, {site.InFeatures}].");
        }

        _config = config;
        _scale = (config.Alpha / (config.R + config.HybridR)).ToScalar();
        gralora_A = new Weight(k, site.InFeatures / k, config.R) { Trainable = true };
        gralora_B = new Weight(k, config.R, site.OutFeatures / k) { Trainable = true };
        if (config.HybridR > 0)
        {
            _generalA = new Weight(config.HybridR, site.InFeatures) { Trainable = true };
            _generalB = new Weight(site.OutFeatures, config.HybridR) { Trainable = true };
        }
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            yield return (nameof(gralora_A), gralora_A);
            yield return (nameof(gralora_B), gralora_B);
            if (_generalA is not null)
            {
                yield return ("gralora_A_general.weight", _generalA);
                yield return ("gralora_B_general.weight", _generalB!);
            }
        }
    }

    protected override double DropoutShare => _config.GraloraDropout;

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var (n, k, r) = (x.size(0), _config.GraloraK, _config.R);
        var slices = x.reshape(n, k, -1).transpose(0, 1); // [k, n, in/k]
        var low = slices.bmm(gralora_A.Value.to(x.dtype)).view(k, n, k, r / k); // from slice, token, to slice, r/k
        var moved = low.permute(2, 1, 0, 3).reshape(k, n, r);
        var y = moved.bmm(gralora_B.Value.to(x.dtype)).transpose(0, 1).reshape(n, site.OutFeatures);
        if (_generalA is not null)
        {
            y = y.Plus(F.linear(F.linear(x, _generalA.Value.to(x.dtype)), _generalB!.Value.to(x.dtype)));
        }

        return y.mul(_scale);
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        gralora_A.Kaiming(gralora_A.Shape[1], generator, device);
        gralora_B.Kaiming(_config.R, generator, device);
        _generalA?.Kaiming(_generalA.Shape[1], generator, device);
        _generalB?.Kaiming(_config.HybridR, generator, device);
        if (_config.InitWeights)
        {
            gralora_B.Zeros(device);
            _generalB?.Zeros(device);
        }
    }
}
