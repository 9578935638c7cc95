using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Road;

/// <summary>y′ = c ∘ y + s ∘ rot(y) at a projection, rot swapping the halves of every group with a sign.</summary>
internal sealed class RoadProjection : SiteAdapter
{
    private readonly RoadConfig _config;
    private readonly Weight road_theta;
    private readonly Weight road_alpha;

    public RoadProjection(RoadConfig config, Projection site)
    {
        if (config.GroupSize % 2 != 0 || site.OutFeatures % config.GroupSize != 0)
        {
            throw new AdapterException("group_size", $"{config.GroupSize} must be even and divide the {site.OutFeatures} outputs of {site.Path}.");
        }

        _config = config;
        var size = config.Variant switch
        {
            "road_1" => site.OutFeatures / 2,
            "road_2" => site.OutFeatures,
            _ => site.OutFeatures * 2,
        };
        road_theta = new Weight(size) { Trainable = true };
        road_alpha = new Weight(size) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(road_theta), road_theta), (nameof(road_alpha), road_alpha)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        return Rotate(call.Next(x)).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        road_theta.Normal(_config.InitWeights ? 0 : 1, generator, device);
        road_alpha.Ones(device);
        if (!_config.InitWeights)
        {
            road_alpha.Normal(1, generator, device);
        }
    }

    public override Tensor Merge(Site site, Tensor weight) => Rotate(weight.to(ScalarType.Float32).t()).t();

    public override Tensor? MergeBias(Site site, Tensor? bias) => bias is null ? null : Rotate(bias.to(ScalarType.Float32).unsqueeze(0)).squeeze(0);

    /// <summary>The last dimension of y [n, out], rotated.</summary>
    private Tensor Rotate(Tensor y)
    {
        var half = _config.GroupSize / 2;
        var groups = y.reshape(y.size(0), -1, 2, half);
        var swapped = stack([groups.select(2, 1).neg(), groups.select(2, 0)], 2).reshape(y.shape);
        var (cos, sin) = Factors(half);
        return y.mul(cos.to(y.dtype)).Plus(swapped.mul(sin.to(y.dtype)));
    }

    private (Tensor Cos, Tensor Sin) Factors(int half)
    {
        var (theta, alpha) = (road_theta.Value, road_alpha.Value);
        switch (_config.Variant)
        {
            case "road_1":
                theta = theta.reshape(-1, half).repeat_interleave(2, 0).flatten();
                alpha = alpha.reshape(-1, half).repeat_interleave(2, 0).flatten();
                return (alpha.mul(theta.cos()), alpha.mul(theta.sin()));
            case "road_2":
                return (alpha.mul(theta.cos()), alpha.mul(theta.sin()));
            default:
                theta = theta.reshape(-1, 2, _config.GroupSize);
                alpha = alpha.reshape(-1, 2, _config.GroupSize);
                return (alpha.select(1, 0).mul(theta.select(1, 0).cos()).flatten(), alpha.select(1, 1).mul(theta.select(1, 1).sin()).flatten());
        }
    }
}
